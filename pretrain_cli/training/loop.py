"""Takes a run from its first step to its end, with a rewind in between where one was asked for."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import DefaultFlowCallback, PrinterCallback, ProgressCallback

from pretrain_cli.data.rows.distant import DistantRows
from pretrain_cli.drawing import import_drawing
from pretrain_cli.errors import DivergedError, PtkError
from pretrain_cli.run_record import TrainResult
from pretrain_cli.storage import open_own, read_lines
from pretrain_cli.tokenizer.load import open_tokenizer
from pretrain_cli.training.arguments import ENDLESS_STEPS, blaming, make_arguments, trainer_refusals
from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.choices.compilation import CompiledBody
from pretrain_cli.training.choices.compile_memory import remember
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.finishing import finish
from pretrain_cli.training.keeping.checkpoints import choose_checkpoint
from pretrain_cli.training.keeping.metrics import Metrics, cut_lines, keep_other_lines
from pretrain_cli.training.keeping.resume import StartingPoint
from pretrain_cli.training.keeping.state import RunState, load_state
from pretrain_cli.training.keeping.tracking import (
    FINISH_SECONDS,
    WandbTracker,
    guard_callbacks,
    other_trackers,
    why_no_wandb,
)
from pretrain_cli.training.measuring.clock import RunClock
from pretrain_cli.training.measuring.samples import SampleWriter
from pretrain_cli.training.processes.agreement import same
from pretrain_cli.training.processes.sharding import check_share, is_sharded, shard
from pretrain_cli.training.rows.order import Keep, RowOrder
from pretrain_cli.training.rows.shuffle import FileWindows
from pretrain_cli.training.step.divergence import Diverged
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.step.rows_at_once import memory_explained
from pretrain_cli.training.trainer import PackedTrainer


def run_loop(context: TrainingContext, point: StartingPoint) -> TrainResult:
    """Train from ``point`` to the end.

    Raises:
        DivergedError: the loss diverged.
        Interrupted: a signal came; everything up to that step is saved.
    """
    others = other_trackers(context.config, context.run)
    arguments = make_arguments(context, others)
    if context.plan.seconds and context.rank == 0:
        import_drawing()
    written = (context.run.metrics, context.run.samples) if context.rank == 0 else ()
    for told in filter(None, map(keep_other_lines, written)):
        context.progress.warn(told)
    metrics = Metrics(context.run.metrics, point.state.step if point.checkpoint else 0, writes=context.rank == 0)
    if context.rank == 0:
        cut_lines(context.run.samples, point.state.step)
    tracker = _start_tracker(context)
    context = context.with_weights()
    _shard(context)
    code = 1
    try:
        while True:
            attempt = _attempt(context, point.state, metrics, tracker)
            try:
                result = _train(attempt, point.checkpoint, arguments, others)
            except Diverged as error:
                point = _after_divergence(attempt, error)
                continue
            code = 0
            if tracker is None:
                reason = why_no_wandb(context.config) if context.config.tracking.report_to != "none" else ""
                return replace(result, tracking=f"off, {reason}" if reason else "")
            tracker.log(result.steps, _final_values(result))
            tracker.finish()
            return replace(result, tracking=tracker.told)
    finally:
        metrics.close()
        if tracker is not None:
            tracker.finish(code)
            with contextlib.suppress(OSError, PtkError):
                kept = context.record.record.wandb
                seconds = round(tracker.spent_s, 2)
                context.record.update(wandb=kept.model_copy(update={"seconds": seconds}) if kept else None)


def _train(attempt: Attempt, checkpoint: Path | None, arguments: TrainingArguments, others: list[str]) -> TrainResult:
    """Train one attempt to its end, and finish the run."""
    context = attempt.context
    compilation, warn = context.compilation, context.progress.warn
    body = CompiledBody(context.model, warn, compilation.by_layer) if compilation.on else None
    detach = attach_loss(context.model, context.chunked_loss, context.config.train.z_loss, body, context.teachers)
    own_keys = context.config.trainer
    with trainer_refusals(own_keys) if own_keys else contextlib.nullcontext():
        trainer = PackedTrainer(attempt, model=context.model, args=arguments)
    for callback in (PrinterCallback, ProgressCallback, DefaultFlowCallback):
        trainer.remove_callback(callback)
    guard_callbacks(trainer.callback_handler.callbacks, others, context.progress.warn)
    at_once = trainer.at_once

    def fewer_rows() -> str:
        halves = at_once.rows > 1 and context.world_size > 1
        return f"ptk train --resume {context.run.name} --set train.micro_batch={at_once.rows // 2}" if halves else ""

    def held() -> str:
        return f"{at_once.told} of {context.rows.sequence_length:,} tokens at once"

    try:
        with memory_explained(context.config.train, held, fewer_rows):
            with blaming(own_keys):
                _loop(trainer, checkpoint)
            if body is not None and not body.failed:
                _remember_compiling(trainer)
            return finish(trainer, detach)
    except Diverged:
        detach()
        trainer.saver.wait()
        raise
    finally:
        trainer.feed.close()
        trainer.saver.close()


def _loop(trainer: PackedTrainer, checkpoint: Path | None) -> None:
    """Trainer's own loop, with the screen and the signals around it."""
    context = trainer.attempt.context
    plan, stop, progress = context.plan, context.stop, context.progress
    progress.stage("training", plan.seconds if plan.by_clock else plan.steps, "seconds" if plan.by_clock else "steps")
    stop.in_loop = True
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        stop.in_loop = False
    if trainer.stopped_by != "signal":  # an interrupted stage isn't done
        progress.end_stage()


def _remember_compiling(trainer: PackedTrainer) -> None:
    """Keep what compiling took and gave, for the choice of later runs."""
    context, found = trainer.attempt.context, trainer.meter.compiling()
    plan, compilation = context.plan, context.compilation
    if found is None or context.rank or not compilation.key or not plan.cost.measured:
        return
    without = replace(plan, cost=plan.cost.compiled(1 / compilation.cost.gain)).step_seconds
    first_s, later_s = found
    remember(compilation.key, first_s, without / later_s)


def _shard(context: TrainingContext) -> None:
    if not context.config.train.shard_model:
        return
    if context.world_size == 1:
        context.progress.warn("There is one process: the model isn't sharded. Start several with --processes N.")
        return
    kind, precision = torch.device(context.machine.device).type, context.machine.precision
    model = context.model
    share = check_share(model) if is_sharded(model) else shard(model, kind, context.world_size, precision)
    context.choices.note(f"sharded: each of {context.world_size} processes holds {share:.0%} of the weights")
    context.record.update(choices=tuple(context.choices.lines))


def _start_tracker(context: TrainingContext) -> WandbTracker | None:
    if context.rank != 0 or why_no_wandb(context.config):
        return None
    names = ("data_fingerprint", "base", "device", "precision", "parameters", "world_size", "versions", "commit")
    record = context.record.record
    facts = {name: getattr(record, name) for name in names}
    tracker = WandbTracker(context.config, context.run, facts, record.wandb, context.progress)
    context.record.update(wandb=tracker.start(read_lines(context.run.metrics)))
    return tracker


def _windows(context: TrainingContext) -> tuple[FileWindows | None, Keep | None]:
    """The order of the rows' files, where few of them are shuffled at a time, and what has them here in time."""
    rows, config = context.rows.train.rows, context.config.train
    if not config.shuffle_files:
        return None, None
    windows = FileWindows(rows.file_rows, config.shuffle_files, config.seed)
    return windows, rows.keep if isinstance(rows, DistantRows) else None


def _attempt(context: TrainingContext, state: RunState, metrics: Metrics, tracker: WandbTracker | None) -> Attempt:
    plan = context.plan
    order = RowOrder(
        len(context.rows.train),
        plan.micro_batch,
        (plan.steps or ENDLESS_STEPS) * plan.accumulation,
        context.config.train.seed,
        context.rank,
        context.world_size,
        state.step * plan.accumulation,
        frozenset(state.left_out),
        state.replaced_from,
        context.stages,
        *_windows(context),
    )
    # What a resume takes to start is nothing that the run's budget was given for.
    started = time.monotonic() if state.step else context.started
    clock = RunClock(plan.seconds, state.elapsed_s, started, state.began_s)
    state.began_s = clock.training_began_s
    clock.agreed_share = same(clock.own_share) if context.world_size > 1 else None
    if tracker is not None and tracker.mode == "online":
        clock.exit_s += FINISH_SECONDS  # for the last of it to arrive
    reports: list[Callable[[int, Mapping[str, float]], None]] = [context.progress.log]
    if tracker is not None:
        reports.append(tracker.log)
    return Attempt(context, state, order, clock, metrics, tuple(reports), _sampler(context, tracker))


def _sampler(context: TrainingContext, tracker: WandbTracker | None) -> SampleWriter | None:
    prompts, rows = context.config.train.sample_prompts, context.rows
    if not prompts or context.rank != 0:
        return None
    if context.config.train.shard_model:
        context.progress.warn("No samples are written while training: each process holds only some of the weights.")
        return None
    return SampleWriter(
        context.model,
        open_tokenizer(rows.tokenizer.file),
        prompts,
        rows.tokenizer.bos_id if rows.layout.add_bos else None,
        rows.tokenizer.eos_id,
        context.run.samples,
        context.progress,
        tracker.samples if tracker is not None else None,
    )


def _after_divergence(attempt: Attempt, error: Diverged) -> StartingPoint:
    """Go back once where that was asked for; else end with the last good checkpoint named."""
    context = attempt.context
    run, writes = context.run, context.rank == 0
    rows_file = run.path / f"diverged-step-{error.step:06d}.jsonl"
    if writes:
        _write_rows(context, rows_file, error.rows)
    folder, _ = same(lambda: choose_checkpoint(run))
    good = f"the last good checkpoint is {folder.name}" if folder else "there is no checkpoint before it"
    rewound = attempt.state.rewound
    if context.config.train.on_divergence == "rewind" and not rewound and folder is not None:
        state = load_state(folder)
        context.record.update(rewind=state.rewind(error.rows, context.batch_rows))
        attempt.metrics.reopen(state.step)
        if writes:
            cut_lines(run.samples, state.step)
        context.progress.warn(
            f"Diverged at step {error.step}: {error.reason}. Going back to {folder.name} and leaving out "
            f"{len(set(error.rows))} rows."
        )
        return StartingPoint(folder, state)
    again = folder is not None and not rewound
    rewind = f"; or leave them out: ptk train --resume {run.name} --set train.on_divergence=rewind" if again else ""
    raise DivergedError(
        f"Training diverged at step {error.step}: {error.reason}; {good}.",
        f"Its rows are in {rows_file}. Start again with half the rate, --learning-rate "
        f"{context.plan.rates.main / 2:.2g}{rewind}",
    ) from error


def _write_rows(context: TrainingContext, path: Path, rows: list[int]) -> None:
    """Save rows as jsonl, ids and text, for a look at what a diverged step held."""
    tokenizer = open_tokenizer(context.rows.tokenizer.file)
    try:
        with open_own(path, "w") as file:
            for row in dict.fromkeys(rows):
                ids = context.rows.train.rows.gather([row])[0].tolist()
                line = {"row": row, "text": tokenizer.decode(ids, skip_special_tokens=False), "input_ids": ids}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        context.progress.warn(f"{path} can't be written: {error.strerror}.")


def _final_values(result: TrainResult) -> dict[str, float]:
    values = {
        "validation_loss": result.validation_loss,
        "validation_bits_per_byte": result.validation_bits_per_byte,
    }
    return {key: value for key, value in values.items() if value is not None}
