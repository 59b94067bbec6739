"""Counts steps, tokens and seconds, and makes the lines of metrics.jsonl."""

from __future__ import annotations

import statistics
import time
from collections import deque

import psutil
import torch

from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.measuring.busy import BusyWatch
from pretrain_cli.training.rows.order import epochs_at

REMEMBERED_STEPS, LEAST_REMEMBERED = 256, 10
"""Newest steps whose median is taken, and how few are too few."""


class Meter:
    """Seconds and tokens of the steps; validating, saving and drawing are not part of them.

    Speed counts tokens of text. ``tokens`` and the use of the hardware count padding too, which costs as much.

    Args:
        attempt: its state is counted up.
        device: whose memory is read.
    """

    def __init__(self, attempt: Attempt, device: torch.device) -> None:
        self.attempt, self.device = attempt, device
        self.step_seconds = 0.0
        self._steps = 0
        self.learning_rate = self.grad_norm = 0.0
        self._busy = BusyWatch(torch.get_num_threads() if device.type == "cpu" else 1, attempt.context.progress.warn)
        self._mark = time.monotonic()
        self._line_seconds = 0.0
        self._line_steps = 0
        self._first_s = 0.0
        self._later_s: deque[float] = deque(maxlen=REMEMBERED_STEPS)

    def restart(self) -> None:
        """The next step begins now."""
        self._mark = time.monotonic()

    def count(self, step: int) -> None:
        """Step number ``step`` has ended."""
        state = self.attempt.state
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self._line_seconds += seconds
        state.stepping_s += seconds
        self._line_steps += 1
        self._busy.look(seconds)
        # The slower of the newest steps: a run has to end inside its budget. The first one also compiles or warms up,
        # and no other will take as long.
        self._steps += 1
        if self._steps == 1:
            self._first_s = seconds
            self.step_seconds = min(seconds, self.attempt.context.plan.step_seconds)
        else:
            self._later_s.append(seconds)
            self.step_seconds = seconds if self._steps == 2 else max(seconds, 0.9 * self.step_seconds)
        state.step = step
        state.tokens += self.attempt.context.plan.batch_tokens
        state.elapsed_s = self.attempt.clock.elapsed_s

    def compiling(self) -> tuple[float, float] | None:
        """Seconds that this start's first step took longer than the later ones, and those of a later one.

        None after few steps.
        """
        if len(self._later_s) < LEAST_REMEMBERED:
            return None
        later = statistics.median(self._later_s)
        return max(0.0, self._first_s - later), later

    def line(self) -> dict[str, float]:
        """The line of metrics.jsonl for the steps since the last one."""
        context, state = self.attempt.context, self.attempt.state
        loss = state.loss_sum / state.loss_steps if state.loss_steps else float("nan")
        state.loss_sum, state.loss_steps = 0.0, 0
        places_per_second = self._line_steps * context.plan.batch_tokens / max(1e-9, self._line_seconds)
        self._line_seconds, self._line_steps = 0.0, 0
        if state.first_loss is None:
            state.first_loss = loss
        state.last_loss = loss
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "epoch": round(epochs_at(state.step, context.batch_rows, len(context.rows.train)), 6),
            "loss": loss,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "tokens_per_second": round(places_per_second * context.rows.fill, 1),
            "elapsed_s": round(self.attempt.clock.elapsed_s, 3),
        }
        if context.peak_flops:
            of_measured = round(places_per_second * context.flops_per_token / context.peak_flops, 4)
            if context.sheet_flops:
                line["mfu"] = round(places_per_second * context.published_flops / context.sheet_flops, 4)
                line["matmul_share"] = of_measured
            else:
                line["mfu"] = of_measured
        line["memory_mb"] = round(memory_bytes(self.device) / 1e6, 1)
        if state.skipped:
            line["skipped_steps"] = state.skipped
        return line


def memory_bytes(device: torch.device) -> int:
    """Memory that this process holds: on the GPU, or resident."""
    if device.type in ("cuda", "xpu"):
        return int(torch.get_device_module(device).max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
