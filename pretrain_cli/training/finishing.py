"""Finishes a run after its last step: validates, saves the model, records how it went."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from transformers import PreTrainedModel

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.errors import Interrupted
from pretrain_cli.model.adapters import attach_adapter, has_adapter, load_adapter, merge
from pretrain_cli.model.load import load_model
from pretrain_cli.records import FileRecord, record_files
from pretrain_cli.refusals import DiskError
from pretrain_cli.run_files import name_latest
from pretrain_cli.run_outcome import judge
from pretrain_cli.run_record import TrainResult, now
from pretrain_cli.storage import read_lines
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.keeping.checkpoints import whole_steps
from pretrain_cli.training.keeping.curves import draw_curves
from pretrain_cli.training.keeping.model_folder import model_card, save_adapter_folder, save_model, trained_texts
from pretrain_cli.training.measuring.scoring import Validation
from pretrain_cli.training.processes.sharding import is_sharded, split_by_deepspeed, whole_model
from pretrain_cli.training.trainer import PackedTrainer

SAMPLES_TAKE_S = 5.0
"""A run that has less of its budget left than this, or than its last samples took, writes none at its end."""


def finish(trainer: PackedTrainer, detach: Callable[[], None]) -> TrainResult:
    """Finish the run that ``trainer`` has trained.

    Args:
        trainer: after its loop.
        detach: takes the training's loss off the model.

    Raises:
        Interrupted: the loop ended for a signal; its last step is saved.
    """
    context, state = trainer.attempt.context, trainer.attempt.state
    if trainer.stopped_by == "signal":
        context.record.update(steps=state.step, tokens=state.tokens)
        raise Interrupted(
            f"Stopped at step {state.step}; it is saved.",
            f"Continue with: ptk train --resume {context.run.name}",
            context.stop.exit_code,
        )
    with _names_the_resume(context.run):
        return _finish(trainer, detach)


def _finish(trainer: PackedTrainer, detach: Callable[[], None]) -> TrainResult:
    attempt = trainer.attempt
    context, state = attempt.context, attempt.state
    model_step = _take_the_best(trainer) if trainer.stopped_by == "early stopping" else None
    found = _final_validation(trainer, record_it=model_step is None)
    detach()
    model = _plain_model(trainer)
    if found is not None:
        state.validation_loss = found.loss
    context.record.update(steps=state.step, tokens=state.tokens)
    outcome = judge(
        context.record.record, read_lines(context.run.metrics), stopped_early=trainer.stopped_by == "early stopping"
    )
    result = TrainResult(
        run=context.run.name,
        status="finished",
        steps=state.step,
        tokens=state.tokens,
        train_loss=_finite(state.last_loss),
        validation_loss=_finite(found.loss if found else state.validation_loss),
        validation_bits_per_byte=_finite(found.bits_per_byte) if found else None,
        tokens_per_second=state.tokens * context.rows.fill / max(1e-9, state.stepping_s),
        seconds=attempt.clock.elapsed_s,
        model=context.run.model,
        first_loss=_finite(state.first_loss),
        peak_memory_bytes=context.peak_bytes,
        model_step=model_step,
        planned_steps=outcome.planned_steps,
        outcome=outcome.told,
        validation_rows=found.rows if found else None,
    )
    if context.rank == 0:
        context.progress.stage("saving the model")
        card = model_card(context.record.record, context.rows, result)
        if has_adapter(model):
            save_adapter_folder(model, context.run)
            model = _merged(model, context)
        texts = trained_texts(context.rows, bool(context.config.model.base))
        told = save_model(model, context.run, context.rows.tokenizer.folder, card, texts)
        named = name_latest(context.artifacts, context.run.name)
        for each in filter(None, (told, named, draw_curves(context.run))):
            context.progress.warn(each)
            context.choices.lines.append(each)
        context.progress.end_stage()
    result = replace(result, seconds=attempt.clock.elapsed_s)
    peak, files = result.peak_memory_bytes, _files(context.run) if context.rank == 0 else {}
    context.record.update(status="finished", ended=now(), result=result, peak_memory_bytes=peak, files=files)
    return result


def _files(run: RunFolder) -> dict[str, FileRecord]:
    """The files that are complete now."""
    made = (run.metrics, run.samples, run.curves)
    return record_files(run.path, [file.name for file in made if file.is_file()])


def _plain_model(trainer: PackedTrainer) -> PreTrainedModel:
    """The model without Trainer's wrappers, put together where it was sharded; on rank 0."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_sharded(model):
        model = whole_model(model)
    elif split_by_deepspeed(model):
        model = whole_model(model, trainer.accelerator.get_state_dict(trainer.model_wrapped))
    return model


def _merged(model: PreTrainedModel, context: TrainingContext) -> PreTrainedModel:
    """``model`` with LoRA's matrices in its weights; where those are in 4 bits, in the base's own, opened again."""
    if not context.plan.method.four_bit:
        return merge(model)
    config, location = context.config, model.peft_config["default"].base_model_name_or_path
    dtype = context.machine.held_dtype(context.plan.method)
    base = load_model(location, dtype=dtype, trust_remote_code=config.model.trust_remote_code)
    attach_adapter(base, config.train, context.plan.method.rank, location, context.rows.new_tokens)
    load_adapter(base, context.run.adapter)
    return merge(base)


def _take_the_best(trainer: PackedTrainer) -> int | None:
    """The step of the best validation, whose weights are put back; None where they can't be."""
    context, state = trainer.attempt.context, trainer.attempt.state
    why = f"Stopped early at step {state.step}: no better validation in {state.evaluations_without_gain}"
    folder = context.run.checkpoint(state.best_step)
    if not folder.is_dir() or split_by_deepspeed(trainer.model):
        context.progress.warn(
            f"{why}. The weights of step {state.best_step} are not available: the model is the last one."
        )
        return None
    trainer.take_back(folder)
    context.progress.note(f"{why}; the model is that of step {state.best_step}.")
    return state.best_step


@contextlib.contextmanager
def _names_the_resume(run: RunFolder) -> Iterator[None]:
    """Say, where the disk refuses the model, how to finish the run once there is room."""
    try:
        yield
    except DiskError as error:
        steps = whole_steps(run)
        last = f"from {run.checkpoint(steps[-1]).name}" if steps else "from its beginning"
        raise DiskError(
            f"The model can't be saved. {error.message}",
            f"Free some space, or check disk and limits, then finish the run {last}: ptk train --resume {run.name}",
        ) from error


def _final_validation(trainer: PackedTrainer, record_it: bool) -> Validation | None:
    """The model's figures; with ``record_it`` they are those of the last step, and go into its metrics."""
    attempt = trainer.attempt
    if attempt.context.rows.validation is None:
        return None
    progress, clock = attempt.context.progress, attempt.clock
    rows = trainer.validator.rows_at_the_end()
    progress.stage("validating", rows, "rows")
    # On a machine that has become busy it takes longer than planned: the model still has to be saved in time.
    seconds = clock.left_s - clock.exit_s - trainer.saver.estimate_s()
    found = trainer.validator.run(trainer.model_wrapped, rows, seconds, progress.advance)
    progress.end_stage()
    if found is not None and record_it:
        values = {"step": attempt.state.step, "validation_loss": found.loss}
        if found.bits_per_byte is not None:
            values["validation_bits_per_byte"] = found.bits_per_byte
        attempt.metrics.amend(values)
        progress.log(attempt.state.step, values)
        sampler = attempt.sampler
        needed = SAMPLES_TAKE_S if sampler is None or sampler.seconds is None else sampler.seconds
        if clock.left_s - trainer.saver.estimate_s() > needed:
            attempt.sample()
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
