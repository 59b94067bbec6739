"""Writes what a run starts with: its settled config, its record, and what a resume must find unchanged."""

from __future__ import annotations

from pretrain_cli.base import base_nature
from pretrain_cli.config.load import to_toml
from pretrain_cli.run_record import PlanRecord, ResumeRecord, RunRecord, new_run_record, now, write_run_config
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.keeping.resume import MODEL, model_settings, settled
from pretrain_cli.training.keeping.state import Settings


def settings_of(context: TrainingContext) -> Settings:
    """What has to be the same after a resume."""
    taught = context.teachers
    return {
        **({"teachers": " ".join(teacher.identity for teacher in taught.models)} if taught is not None else {}),
        "data_fingerprint": context.rows.fingerprint,
        "tokenizer": context.rows.tokenizer.fingerprint,
        "batch_tokens": context.plan.batch_tokens,
        "rows": len(context.rows.train),
        "mask_documents": context.rows.masked,
        **({"base_weights": context.base_hash} if context.base_hash else {}),
        **({MODEL: model_settings(context.model.config.to_dict())} if context.config.model.base else {}),
    }


def begin_record(context: TrainingContext, earlier: RunRecord | None) -> None:
    """Write config.toml and run.json; a resume continues the run's own record.

    Between the two, no run has a record without a config, and none that says "finished" has the larger budget of a
    resume that was killed there: repeated, that resume would find nothing to do.
    """
    config = settled(
        context.config, context.plan, context.machine.precision, context.rows.layout, context.compilation.on
    )
    if context.rank == 0 and earlier is None:
        write_run_config(context.run, to_toml(config))
    record = earlier or new_run_record(context.run, context.command)
    again = (ResumeRecord(at=now(), command=context.command),) if earlier else ()
    context.record.begin(
        record,
        resumes=(*record.resumes, *again),
        status="running",
        ended=None,
        data_fingerprint=context.rows.fingerprint,
        base=context.config.model.base,
        base_nature=base_nature(context.config.model.base),
        sequence_length=context.rows.sequence_length,
        device=context.machine.device,
        precision=context.machine.precision,
        compiled=context.compilation.on,
        threads=context.machine.threads,
        parameters=context.model.num_parameters(),
        world_size=context.world_size,
        choices=tuple(context.choices.lines),
        plan=_plan_record(context),
        files={},
    )
    if context.rank == 0 and earlier is not None:
        write_run_config(context.run, to_toml(config))


def _plan_record(context: TrainingContext) -> PlanRecord:
    plan = context.plan
    return PlanRecord(
        steps=plan.steps,
        seconds=plan.seconds,
        expected_steps=plan.expected_steps,
        step_seconds=plan.step_seconds,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulation,
        batch_tokens=plan.batch_tokens,
        optimizer=plan.optimizer,
        method=plan.method.name,
        lora_rank=plan.method.rank,
        fill=context.rows.fill,
        schedule=plan.schedule,
        warmup_steps=plan.warmup_steps,
        save_every=plan.save_every,
        eval_every=plan.eval_every,
        logging_every=plan.logging_every,
        gradient_checkpointing=plan.gradient_checkpointing,
        learning_rate=plan.rates.main,
        matrix_learning_rate=plan.rates.matrix,
        embedding_learning_rate=plan.rates.embedding,
        size=plan.shape.name if plan.shape else None,
    )
