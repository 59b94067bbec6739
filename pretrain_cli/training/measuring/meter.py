"""How fast does a run train, and what stands in a line of its metrics?"""

from __future__ import annotations

import time

import psutil
import torch

from pretrain_cli.training.job import Job
from pretrain_cli.training.measuring.busy import BusyWatch
from pretrain_cli.training.rows.order import epochs_at


class Meter:
    """Seconds and tokens of the steps; validating, saving and drawing are not part of them.

    Args:
        job: its state is counted up.
        device: whose memory is read.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device
        self.step_seconds = 0.0
        self._steps = 0
        self.learning_rate = self.grad_norm = 0.0
        self._busy = BusyWatch(torch.get_num_threads() if device.type == "cpu" else 1, job.progress.warn)
        self._mark = time.monotonic()
        self._line_seconds = 0.0
        self._line_steps = 0

    def restart(self) -> None:
        """The next step begins now."""
        self._mark = time.monotonic()

    def count(self, step: int) -> None:
        """Step number ``step`` has ended."""
        job, state = self.job, self.job.state
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self._line_seconds += seconds
        state.stepping_s += seconds
        self._line_steps += 1
        self._busy.look(seconds)
        # The slower of the newest steps: a run has to end inside its budget. The first one also compiles or warms up.
        self._steps += 1
        self.step_seconds = seconds if self._steps <= 2 else max(seconds, 0.9 * self.step_seconds)
        state.step = step
        state.tokens += job.plan.batch_tokens
        state.elapsed_s = job.clock.elapsed_s

    def line(self) -> dict[str, float]:
        """The line of metrics.jsonl for the steps since the last one."""
        job, state = self.job, self.job.state
        loss = state.loss_sum / state.loss_steps if state.loss_steps else float("nan")
        state.loss_sum, state.loss_steps = 0.0, 0
        per_second = self._line_steps * job.plan.batch_tokens / max(1e-9, self._line_seconds)
        self._line_seconds, self._line_steps = 0.0, 0
        if state.first_loss is None:
            state.first_loss = loss
        state.last_loss = loss
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "epoch": round(epochs_at(state.step, job.batch_rows, len(job.train_rows)), 6),
            "loss": loss,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "tokens_per_second": round(per_second, 1),
            "elapsed_s": round(job.clock.elapsed_s, 3),
        }
        if job.peak_flops:
            line["mfu"] = round(per_second * job.flops_per_token / job.peak_flops, 4)
        line["memory_mb"] = round(memory_bytes(self.device) / 1e6, 1)
        if state.skipped:
            line["skipped_steps"] = state.skipped
        return line


def memory_bytes(device: torch.device) -> int:
    """Memory that this process holds: on the GPU, or resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
