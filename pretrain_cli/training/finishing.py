"""What happens after the last step: validate, save the model, write down how it went?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from pretrain_cli.artifacts import NoSpaceError, RunFolder, write_text
from pretrain_cli.errors import Interrupted
from pretrain_cli.progress import Progress
from pretrain_cli.training.context import Start
from pretrain_cli.training.keeping.checkpoints import whole_steps
from pretrain_cli.training.keeping.model_folder import draw_curves, model_card, save_model
from pretrain_cli.training.keeping.record import now
from pretrain_cli.training.measuring.scoring import Validation
from pretrain_cli.training.processes.agreement import rank
from pretrain_cli.training.processes.sharding import is_sharded, split_by_deepspeed, whole_model
from pretrain_cli.training.result import TrainResult, finite
from pretrain_cli.training.trainer import PackedTrainer

SAMPLES_TAKE_S = 5.0
"""A run that has less of its budget left than this, or than its last samples took, writes none at its end."""


def end(start: Start, trainer: PackedTrainer, detach: Callable[[], None]) -> TrainResult:
    """Finish the run that ``trainer`` has trained.

    Args:
        start: of the run.
        trainer: after its loop.
        detach: takes the training's loss off the model.

    Raises:
        Interrupted: the loop ended for a signal; its last step is saved.
    """
    state, run, record = trainer.job.state, start.run, start.record
    if trainer.stopped_by == "signal":
        record.update(steps=state.step, tokens=state.tokens)
        raise Interrupted(
            f"Stopped at step {state.step}; it is saved.",
            f"Go on with: ptk train --resume {run.name}",
            start.stop.exit_code,
        )
    with _names_the_resume(run):
        return _finish(start, trainer, detach)


def _finish(start: Start, trainer: PackedTrainer, detach: Callable[[], None]) -> TrainResult:
    job, state, run, record = trainer.job, trainer.job.state, start.run, start.record
    model_step = _take_the_best(start, trainer) if trainer.stopped_by == "early stopping" else None
    found = _final_validation(trainer, start.progress, record_it=model_step is None)
    detach()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_sharded(model):
        model = whole_model(model)
    elif split_by_deepspeed(model):
        model = whole_model(model, trainer.accelerator.get_state_dict(trainer.model_wrapped))
    if found is not None:
        state.validation_loss = found.loss
    result = TrainResult(
        run=run.name,
        status="finished",
        steps=state.step,
        tokens=state.tokens,
        train_loss=finite(state.last_loss),
        validation_loss=finite(found.loss if found else state.validation_loss),
        validation_bits_per_byte=finite(found.bits_per_byte) if found else None,
        tokens_per_second=state.tokens / max(1e-9, state.stepping_s),
        seconds=job.clock.elapsed_s,
        model=run.model,
        first_loss=finite(state.first_loss),
        peak_memory_bytes=start.machine.peak_bytes,
        model_step=model_step,
    )
    record.update(steps=state.step, tokens=state.tokens)
    if rank() == 0:
        start.progress.stage("saving the model")
        figures = {"loss": result.validation_loss, "bits_per_byte": result.validation_bits_per_byte}
        save_model(model, run, start.artifacts, model_card(run, record.values, start.prepared.manifest, figures))
        write_text(start.artifacts.latest, run.name + "\n")
        draw_curves(run)
        start.progress.end_stage()
    result = replace(result, seconds=job.clock.elapsed_s)
    record.update(
        status="finished",
        ended=now(),
        result={**result.__dict__, "model": str(run.model)},
        peak_memory_bytes=result.peak_memory_bytes,
    )
    return result


def _take_the_best(start: Start, trainer: PackedTrainer) -> int | None:
    """The step of the best validation, whose weights are put back; None where they can't be."""
    state, run = trainer.job.state, start.run
    why = f"Stopped early at step {state.step}: no better validation in {state.evaluations_without_gain}"
    folder = run.checkpoint(state.best_step)
    if not folder.is_dir() or split_by_deepspeed(trainer.model):
        start.progress.warn(f"{why}. The weights of step {state.best_step} aren't at hand: the model is the last one.")
        return None
    trainer.take_back(folder)
    start.progress.note(f"{why}; the model is that of step {state.best_step}.")
    return state.best_step


@contextlib.contextmanager
def _names_the_resume(run: RunFolder) -> Iterator[None]:
    """Say, where the disk is full, how the run is finished once there is room."""
    try:
        yield
    except NoSpaceError as error:
        steps = whole_steps(run)
        last = f"from {run.checkpoint(steps[-1]).name}" if steps else "from its beginning"
        raise NoSpaceError(
            f"The model can't be saved. {error.message}",
            f"Free some space, then finish the run {last}: ptk train --resume {run.name}",
        ) from error


def _final_validation(trainer: PackedTrainer, progress: Progress, record_it: bool) -> Validation | None:
    """The model's figures; with ``record_it`` they are those of the last step, and go into its metrics."""
    job = trainer.job
    if job.validation_rows is None:
        return None
    rows = min(trainer.validator.rows_at_the_end(), len(job.validation_rows))
    progress.stage("validating", rows, "rows")
    # On a machine that has become busy it takes longer than planned: the model still has to be saved in time.
    seconds = job.clock.left_s - job.clock.exit_s - trainer.saver.estimate_s()
    found = trainer.validator.run(trainer.model_wrapped, rows, seconds, progress.advance)
    progress.end_stage()
    if found is not None and record_it:
        values = {"step": job.state.step, "validation_loss": found.loss}
        if found.bits_per_byte is not None:
            values["validation_bits_per_byte"] = found.bits_per_byte
        job.metrics.amend(values)
        progress.log(job.state.step, values)
        needed = SAMPLES_TAKE_S if job.sample_s is None else job.sample_s
        if job.sample is not None and job.clock.left_s - trainer.saver.estimate_s() > needed:
            job.sample(job.state.step)
    return found
