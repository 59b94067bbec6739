"""Says before the first step what a run will be, take and need."""

from __future__ import annotations

import math
import shutil

from pretrain_cli.training.choices.recipe import MOST_PASSES
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.measuring.forecast import disk_bytes


def announce(context: TrainingContext) -> None:
    """Say the model's size, and the run's length, time and disk; warn where the text or the disk is too small."""
    plan, progress, note = context.plan, context.progress, context.choices.note
    tokens = plan.expected_steps * plan.batch_tokens
    passes = tokens / context.rows.text_tokens
    about = "" if plan.steps and not plan.seconds else "about "
    note(
        f"model {context.model.num_parameters() / 1e6:.1f}M parameters; {about}{plan.expected_steps:,} steps, "
        f"{tokens / 1e6:.3g}M tokens, {passes:.2g} passes over the text"
    )
    disk = disk_bytes(context.model.num_parameters(), context.weight_bytes, plan.optimizer, context.config.train.keep)
    most = f", at most {_clock(plan.seconds)}" if plan.seconds and plan.steps else ""
    about = "" if plan.seconds and not plan.steps else "about "
    seconds = min(context.duration.seconds, plan.seconds or math.inf)
    note(f"time {about}{_clock(seconds)}{most}; disk up to {disk / 1e6:,.0f} MB")
    if plan.steps and passes > MOST_PASSES:
        progress.warn(
            f"The run makes {passes:.2g} passes over the text: beyond {MOST_PASSES:g} they teach little "
            "(arXiv 2305.16264)."
        )
    free = shutil.disk_usage(context.run.path).free
    if free < disk:
        progress.warn(
            f"The disk has {free / 1e6:,.0f} MB free, and the run needs up to {disk / 1e6:,.0f} MB: checkpoints that "
            "don't fit are left out."
        )


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} minutes" if seconds < 6000 else f"{seconds / 3600:.3g} hours"
