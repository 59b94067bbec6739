"""What will a run be, take and need, said before its first step?"""

from __future__ import annotations

import math
import shutil
from typing import Any

from pretrain_cli.training.choices.plan import UTILISATION, Plan
from pretrain_cli.training.choices.recipe import MOST_PASSES
from pretrain_cli.training.context import Start
from pretrain_cli.training.keeping.checkpoints import bytes_needed


def announce(start: Start, model: Any, plan: Plan) -> None:
    """Say the model's size, the length of the run, the time and the disk; warn where text or disk won't do."""
    rows = start.prepared
    text_tokens = len(rows.train) * rows.sequence_length
    tokens = plan.expected_steps * plan.batch_tokens
    passes = tokens / text_tokens
    about = "" if plan.steps and not plan.seconds else "about "
    start.note(
        f"model {model.num_parameters() / 1e6:.1f}M parameters; {about}{plan.expected_steps} steps, "
        f"{tokens / 1e6:.3g}M tokens, {passes:.2g} passes over the text"
    )
    seconds = expected_seconds(start, model, plan)
    disk = disk_needed(start, model, plan)
    most = f", at most {_clock(plan.seconds)}" if plan.seconds and plan.steps else ""
    about = "" if plan.seconds and not plan.steps else "about "
    start.note(f"time {about}{_clock(seconds)}{most}; disk up to {disk / 1e6:.0f} MB")
    if plan.steps and passes > MOST_PASSES:
        start.progress.warn(
            f"{passes:.2g} passes over the same text: beyond {MOST_PASSES:g} they teach little (arXiv 2305.16264)."
        )
    free = shutil.disk_usage(start.run.path).free
    if free < disk:
        start.progress.warn(
            f"The disk has {free / 1e6:.0f} MB free, the run needs up to {disk / 1e6:.0f} MB: "
            "checkpoints are left out where they don't fit."
        )


def disk_needed(start: Start, model: Any, plan: Plan) -> int:
    """Bytes: the kept checkpoints and the one being written, the best one's weights, the model."""
    weight_bytes = next(model.parameters()).element_size()
    checkpoint = bytes_needed(model.num_parameters(), weight_bytes, plan.optimizer)
    return int(checkpoint * (start.config.train.keep + 1) + 2 * weight_bytes * model.num_parameters())


def expected_seconds(start: Start, model: Any, plan: Plan) -> float:
    """Seconds of the whole run: its budget, or what the machine's speed makes likely for its steps."""
    if plan.seconds and not plan.steps:
        return plan.seconds
    return min(plan.seconds or math.inf, plan.expected_steps * expected_step_seconds(start, model, plan))


def expected_step_seconds(start: Start, model: Any, plan: Plan) -> float:
    """Seconds of one step at the share of the matmul peak that training reaches."""
    return plan.batch_tokens * flops_per_token(model) / (start.peak_flops * UTILISATION)


def flops_per_token(model: Any) -> float:
    """Floating-point operations to train on a token: 6 for each weight that is multiplied (Kaplan et al. 2020)."""
    weights = int(model.num_parameters())
    if not model.config.tie_word_embeddings:
        weights -= int(model.get_input_embeddings().weight.numel())  # looked up, not multiplied
    return 6.0 * weights


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} minutes" if seconds < 6000 else f"{seconds / 3600:.3g} hours"
