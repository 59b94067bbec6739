"""How does a run go from its first step to its end, a rewind in between included?"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import DefaultFlowCallback, PrinterCallback, ProgressCallback

from pretrain_cli.artifacts import NoSpaceError, read_lines
from pretrain_cli.errors import DivergedError
from pretrain_cli.tokenizer.load import open_tokenizer
from pretrain_cli.training.arguments import ENDLESS_STEPS, make_arguments
from pretrain_cli.training.choices.announcement import expected_step_seconds, flops_per_token
from pretrain_cli.training.choices.compilation import compiled_body
from pretrain_cli.training.choices.kernels import Kernels, apply_kernels, choose_kernels, hardware_of, liger_config
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.choices.workers import choose_workers
from pretrain_cli.training.context import Start
from pretrain_cli.training.finishing import end
from pretrain_cli.training.job import Job
from pretrain_cli.training.keeping.checkpoints import choose_checkpoint
from pretrain_cli.training.keeping.model_folder import import_drawing
from pretrain_cli.training.keeping.record import Metrics, cut_lines
from pretrain_cli.training.keeping.state import RunState, load_state
from pretrain_cli.training.keeping.tracking import (
    FINISH_SECONDS,
    WandbTracker,
    guard_callbacks,
    other_trackers,
    wants_wandb,
)
from pretrain_cli.training.measuring.clock import RunClock
from pretrain_cli.training.measuring.samples import write_sample
from pretrain_cli.training.processes.agreement import rank, same, world_size
from pretrain_cli.training.processes.sharding import WEIGHTS_IN_PARTS, shard, zero_stage
from pretrain_cli.training.result import TrainResult
from pretrain_cli.training.rows.order import RowOrder
from pretrain_cli.training.step.divergence import Diverged
from pretrain_cli.training.step.loss import attach_loss, head_is_plain
from pretrain_cli.training.trainer import PackedTrainer


def run_course(start: Start, model: Any, plan: Plan, folder: Path | None, state: RunState) -> TrainResult:
    """Train from checkpoint ``folder`` (None: the beginning) to the end.

    Raises:
        DivergedError: the loss left its course.
        Interrupted: a signal came; everything up to that step is saved.
    """
    config, run = start.config, start.run
    others = other_trackers(config, run)
    kernels = _kernels(start, model, plan)
    arguments = make_arguments(
        config,
        plan,
        run.checkpoints,
        start.machine.device,
        start.machine.precision,
        others,
        kernels,
        liger_config(model.config),
    )
    if plan.seconds and rank() == 0:
        import_drawing()
    metrics = Metrics(run.metrics, state.step if folder else 0, writes=rank() == 0)
    if rank() == 0:
        cut_lines(run.samples, state.step)
    tracker = _start_tracker(start)
    wanted, code = config.train.chunked_loss, 1
    # ZeRO's third stage puts the head's weights together for the head's own forward alone.
    gathered = zero_stage(config.trainer) != WEIGHTS_IN_PARTS
    chunked = gathered and head_is_plain(model) if wanted == "auto" else wanted
    _shard(start, model)
    try:
        while True:
            job = _job(start, model, plan, state, metrics)
            if tracker is not None and tracker.mode == "online":
                job.clock.exit_s += FINISH_SECONDS  # for the last of it to arrive
            body = compiled_body(model, start.progress.warn) if start.compiled else None
            detach = attach_loss(model, chunked, config.train.z_loss, body)
            trainer = PackedTrainer(job, model=model, args=arguments)
            for callback in (PrinterCallback, ProgressCallback, DefaultFlowCallback):
                trainer.remove_callback(callback)
            guard_callbacks(trainer.callback_handler.callbacks, others, start.progress.warn)
            job.report.append(start.progress.log)
            job.report.append(tracker.log) if tracker else None
            job.report.append(trainer.feed_trackers) if others else None
            job.sample = _sampler(start, trainer, tracker)
            try:
                _loop(start, trainer, folder)
                result = end(start, trainer, detach)
                if tracker is not None:
                    tracker.log(result.steps, _final_values(result))
                code = 0
                return result
            except Diverged as error:
                detach()
                folder, state = _after_divergence(start, error, job)
            finally:
                trainer.feed.close()
    finally:
        metrics.close()
        if tracker is not None:
            tracker.finish(code)
            with contextlib.suppress(NoSpaceError):
                start.record.update(wandb={**start.record.values["wandb"], "seconds": round(tracker.spent_s, 2)})


def _kernels(start: Start, model: Any, plan: Plan) -> Kernels:
    """Choose a GPU's faster ways, and take those that change the model itself."""
    kernels = choose_kernels(
        hardware_of(start.machine.device),
        start.config.train,
        model.config.model_type,
        model.num_parameters(),
    )
    for name, reason in kernels.reasons.items():
        start.note(f"{name} {reason}")
    apply_kernels(model, kernels)
    return kernels


def _shard(start: Start, model: Any) -> None:
    if not start.config.train.shard_model:
        return
    if world_size() == 1:
        start.progress.warn("There is one process: the model isn't sharded. Start several with --processes N.")
        return
    share = shard(model, torch.device(start.machine.device).type, world_size())
    start.note(f"sharded: each of {world_size()} processes holds {share:.0%} of the weights")


def _start_tracker(start: Start) -> WandbTracker | None:
    if rank() != 0 or not wants_wandb(start.config):
        return None
    names = ("data_fingerprint", "base", "device", "precision", "parameters", "world_size", "versions", "commit")
    facts = {name: start.record.values.get(name) for name in names}
    known = start.record.values.get("wandb") or {}
    tracker = WandbTracker(start.config, start.run, facts, known, start.progress)
    start.record.update(wandb=tracker.start(read_lines(start.run.metrics)))
    return tracker


def _sampler(start: Start, trainer: PackedTrainer, tracker: WandbTracker | None) -> Callable[[int], None] | None:
    prompts = start.config.train.sample_prompts
    if not prompts or rank() != 0:
        return None
    if start.config.train.shard_model:
        start.progress.warn("No samples are written while training: each process holds a part of the weights only.")
        return None
    tokenizer = open_tokenizer(start.prepared.tokenizer.file)
    first = start.prepared.tokenizer.bos_id if start.prepared.manifest.get("settings", {}).get("add_bos") else None

    written: set[int] = set()

    def sample(step: int) -> None:
        if step in written:
            return
        written.add(step)
        began = time.monotonic()
        texts = [
            (prompt, write_sample(trainer.model, tokenizer, prompt, first, start.prepared.tokenizer.eos_id))
            for prompt in prompts
        ]
        for prompt, text in texts:
            start.progress.sample(prompt, text, step)
            line = json.dumps({"step": step, "prompt": prompt, "text": text}, ensure_ascii=False)
            with contextlib.suppress(OSError), open(start.run.samples, "a", encoding="utf-8") as file:
                file.write(line + "\n")  # a full disk costs the sample, not the run
        if tracker is not None:
            tracker.samples(step, texts)
        trainer.job.sample_s = time.monotonic() - began

    return sample


def _job(start: Start, model: Any, plan: Plan, state: RunState, metrics: Metrics) -> Job:
    train, prepared = start.config.train, start.prepared
    validation = prepared.manifest.get("validation", {})
    order = RowOrder(
        len(prepared.train),
        plan.micro_batch,
        (plan.steps or ENDLESS_STEPS) * plan.accumulation,
        train.seed,
        rank(),
        world_size(),
        state.step * plan.accumulation,
        frozenset(state.left_out),
        state.replaced_from,
    )
    clock = RunClock(plan.seconds, state.elapsed_s, start.started)
    clock.agreed_share = same(clock.own_share) if world_size() > 1 else None
    return Job(
        config=start.config,
        plan=plan,
        run=start.run,
        progress=start.progress,
        train_rows=prepared.train,
        validation_rows=prepared.validation,
        order=order,
        workers=_workers(start, model, plan),
        clock=clock,
        state=state,
        metrics=metrics,
        stop=start.stop,
        tokens_per_byte=validation["tokens"] / validation["bytes"] if validation.get("bytes") else None,
        flops_per_token=flops_per_token(model),
        peak_flops=start.peak_flops,
        rank=rank(),
        world_size=world_size(),
    )


def _workers(start: Start, model: Any, plan: Plan) -> int:
    seconds = expected_step_seconds(start, model, plan) / plan.accumulation
    choice = choose_workers(start.config.train.workers, start.prepared.train, plan.micro_batch, seconds)
    start.note(f"workers {choice.value}: {choice.reason}")
    return choice.value


def _loop(start: Start, trainer: PackedTrainer, folder: Path | None) -> None:
    job = trainer.job
    by_clock = job.by_clock
    start.progress.stage(
        "training", job.plan.seconds if by_clock else job.plan.steps, "seconds" if by_clock else "steps"
    )
    start.stop.in_loop = True
    try:
        trainer.train(resume_from_checkpoint=str(folder) if folder else None)
    finally:
        start.stop.in_loop = False
    if trainer.stopped_by != "signal":  # broken off isn't done
        start.progress.end_stage()


def _after_divergence(start: Start, error: Diverged, job: Job) -> tuple[Path | None, RunState]:
    """Go back once where that was asked for, else end with the last good checkpoint named."""
    run, writes = start.run, rank() == 0
    rows_file = run.path / f"diverged-step-{error.step:06d}.jsonl"
    if writes:
        _write_rows(start, rows_file, error.rows)
    folder, _ = same(lambda: choose_checkpoint(run))
    good = f"the last good checkpoint is {folder.name}" if folder else "there is no checkpoint before it"
    if start.config.train.on_divergence == "rewind" and not job.state.rewound and folder is not None:
        state = load_state(folder)
        start.record.update(rewind=state.rewind(error.rows, job.batch_rows))
        job.metrics.reopen(state.step)
        if writes:
            cut_lines(run.samples, state.step)
        start.progress.warn(
            f"Diverged at step {error.step}: {error.reason}. Going back to {folder.name} and leaving out "
            f"{len(set(error.rows))} rows."
        )
        return folder, state
    again = folder is not None and not job.state.rewound
    rewind = f"; or leave them out: ptk train --resume {run.name} --set train.on_divergence=rewind" if again else ""
    raise DivergedError(
        f"Training diverged at step {error.step}: {error.reason}; {good}.",
        f"Its rows are in {rows_file}. Start anew with --learning-rate {job.plan.rates.main / 2:.2g}, the half{rewind}",
    )


def _write_rows(start: Start, path: Path, rows: list[int]) -> None:
    """Save rows as jsonl, ids and text, for a look at what a diverged step held."""
    tokenizer = open_tokenizer(start.prepared.tokenizer.file)
    try:
        with open(path, "w", encoding="utf-8") as file:
            for row in dict.fromkeys(rows):
                ids = start.prepared.train.rows.gather([row])[0].tolist()
                line = {"row": row, "text": tokenizer.decode(ids, skip_special_tokens=False), "input_ids": ids}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        start.progress.warn(f"{path} can't be written: {error.strerror}.")


def _final_values(result: TrainResult) -> dict[str, float]:
    values = {
        "validation_loss": result.validation_loss,
        "validation_bits_per_byte": result.validation_bits_per_byte,
    }
    return {key: value for key, value in values.items() if value is not None}
