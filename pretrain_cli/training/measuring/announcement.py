"""Says before the first step what a run will be, take and need."""

from __future__ import annotations

import math
import shutil

from pretrain_cli.formatting import byte_size, count, count_of, duration, exact
from pretrain_cli.training.choices.recipe import MOST_PASSES
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.measuring.forecast import disk_bytes


def announce(context: TrainingContext) -> None:
    """Say the model's size, and the run's length, time and disk; warn where the text or the disk is too small."""
    plan, progress, note = context.plan, context.progress, context.choices.note
    tokens = plan.expected_steps * plan.batch_tokens
    passes = tokens / context.rows.text_tokens
    about = "" if plan.steps and not plan.seconds else "about "
    steps = count_of(plan.expected_steps, "step")
    trained = int(context.model.num_parameters(only_trainable=True))
    moving = f", {count(trained)} of them trained" if plan.method.adapter else ""
    note(
        f"model {count_of(context.model.num_parameters(), 'parameter')}{moving}; {about}{steps}, "
        f"{count_of(tokens, 'token')}, {_passes(passes)} over the text"
    )
    adapter = 4 * trained if plan.method.adapter else 0
    disk = disk_bytes(context.checkpoint_bytes, context.model_bytes, context.config.train.keep, adapter)
    most = f", at most {duration(plan.seconds)}" if plan.seconds and plan.steps else ""
    about = "" if plan.seconds and not plan.steps else "about "
    seconds = min(context.duration.seconds, plan.seconds or math.inf)
    note(f"time {about}{duration(max(1.0, seconds))}{most}; disk up to {byte_size(disk)}")
    if plan.steps and passes > MOST_PASSES and context.teachers is None and not plan.ensemble:
        progress.warn(
            f"The run makes {_passes(passes)} over the text: beyond {MOST_PASSES:g} they teach little "
            "(arXiv 2305.16264)."
        )
    free = shutil.disk_usage(context.run.path).free
    if free < disk:
        progress.warn(
            f"The disk has {byte_size(free)} free, and the run needs up to {byte_size(disk)}: checkpoints that "
            "don't fit are left out."
        )


def _passes(number: float) -> str:
    told = f"{number:.2g}" if number < 99.5 else exact(number)
    return f"{told} {'pass' if told == '1' else 'passes'}"
