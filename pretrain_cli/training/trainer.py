"""What does transformers' Trainer do differently here: rows in order, loss in chunks, checkpoints that are whole?"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.config.model import Config
from pretrain_cli.data.batches import PackedDataset
from pretrain_cli.progress import Progress
from pretrain_cli.training.checkpoints import bytes_needed, rotate, staged
from pretrain_cli.training.clock import FORWARD_SHARE, VALIDATION_SHARE, WRITE_BYTES_PER_SECOND, RunClock
from pretrain_cli.training.divergence import Diverged, Guard
from pretrain_cli.training.feed import Feed, make_loader
from pretrain_cli.training.optimizers import make_optimizer
from pretrain_cli.training.order import RowOrder, epochs_at
from pretrain_cli.training.plan import Plan
from pretrain_cli.training.record import Metrics
from pretrain_cli.training.schedules import make_scheduler
from pretrain_cli.training.signals import StopRequests
from pretrain_cli.training.state import RunState
from pretrain_cli.training.validation import Validation, validate

LEAST_INTERVAL = 20.0
"""A checkpoint or validation that nobody asked for waits until this many times its cost has passed: 5 % of the time."""
FINAL_VALIDATION = 10
"""The validation at the end takes this many times ``train.eval_rows``."""


@dataclass
class Job:
    """Everything that one start of a run works with.

    ``report`` receives each line of metrics (tracking, the screen); ``sample`` writes texts during training.
    """

    config: Config
    plan: Plan
    run: RunFolder
    progress: Progress
    train_rows: PackedDataset
    validation_rows: PackedDataset | None
    order: RowOrder
    workers: int
    clock: RunClock
    state: RunState
    metrics: Metrics
    stop: StopRequests
    tokens_per_byte: float | None
    flops_per_token: float
    peak_flops: float
    report: list[Callable[[int, dict[str, float]], None]] = field(default_factory=list)
    sample: Callable[[int], None] | None = None
    rank: int = 0
    world_size: int = 1

    @property
    def batch_rows(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.plan.batch_rows_per_process * self.world_size


class PackedTrainer(Trainer):  # type: ignore[misc]
    """Trainer on packed rows. Decides itself what is logged, validated and saved, and when."""

    def __init__(self, job: Job, **keywords: Any) -> None:
        self.optimizer: Any
        self.lr_scheduler: Any
        super().__init__(train_dataset=job.train_rows, **keywords)
        self.job = job
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True
        self.feed = Feed(job.train_rows, job.order, job.workers, self.args.dataloader_pin_memory, job.progress.warn)
        self.guard = Guard(job.state.recent_losses)
        self.step_seconds = 0.0
        self.save_seconds = 0.0
        self.validation_seconds_per_row = 0.0
        self._resume_rng: str | None = None
        self._step_loss: torch.Tensor | None = None
        self._grad_norm = 0.0
        self._mark = time.monotonic()
        self._line_seconds = 0.0
        self._line_steps = 0
        self._handled = -1
        self._tenths = {"save": self._tenth(), "eval": self._tenth()}
        self._done_at = dict.fromkeys(("save", "eval"), time.monotonic())
        self._saved_step = job.state.step
        self._validated_step = -1
        self._saving_paused = False
        self.stopped_by = ""

    # What goes in

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Only its length is used: `Feed` makes the batches, and can do so after a worker's death."""
        return make_loader(self.job.train_rows, self.job.order, 0, pin_memory=False)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The next step's micro-batches, and the number of tokens scored in them over all processes."""
        if self.job.state.owes_validation:
            self._make_up_validation()
        batches = self.feed.take(num_batches)
        if self._resume_rng is not None:
            super()._load_rng_state(self._resume_rng)
            self._resume_rng = None
        return batches, self._get_num_items_in_batch(batches, device)

    def _make_up_validation(self) -> None:
        line: dict[str, float] = {"step": self.job.state.step}
        self.job.state.owes_validation = not self._validate_now(line)
        self.job.metrics.amend(line)
        self._mark = time.monotonic()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # After the loader has drawn its seeds, as in a run that was never stopped.
        self._resume_rng = checkpoint

    # How weights move

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW or Muon with AdamW; other names are Trainer's own."""
        plan = self.job.plan
        if self.optimizer is None and plan.optimizer in ("adamw", "muon"):
            self.optimizer = make_optimizer(
                model or self.model,
                plan.optimizer,
                self.job.config.train,
                plan.learning_rate,
                plan.matrix_learning_rate,
                torch.bfloat16 if self.args.bf16 or self.model.dtype == torch.bfloat16 else torch.float32,
            )
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A schedule over the share of the run that is done: steps, or the clock."""
        if self.lr_scheduler is None:
            train = self.job.config.train
            self.lr_scheduler = make_scheduler(
                optimizer or self.optimizer,
                self.job.plan.schedule,
                self.job.plan.warmup_steps,
                self.done_share,
                train.min_learning_rate_ratio,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def done_share(self, step: int) -> float:
        """Share of the run that is done after ``step`` steps, 0 to 1."""
        by_steps = step / self.job.plan.steps if self.job.plan.steps else 0.0
        return max(by_steps, self.job.clock.share())

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """0: Trainer's count costs 0.4 ms a step; the metrics have their own."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Runs right before the optimizer: a step that isn't finite is left out here."""
        norm = super()._get_grad_norm(model, grad_norm)
        self._grad_norm = float(norm) if norm is not None else 0.0
        loss = self._mean_step_loss()
        self._step_loss = None
        verdict = self.guard.look(loss, self._grad_norm)
        state = self.job.state
        if verdict == "skip":
            state.skipped += 1
            self.job.progress.warn(
                f"Step {state.step + 1} is left out: its loss or gradient isn't finite ({state.skipped} so far)."
            )
            model.zero_grad(set_to_none=True)
        elif verdict != "fine":
            raise Diverged(verdict, state.step + 1, self._recent_rows())
        else:
            state.loss_sum += loss
            state.loss_steps += 1
        return norm

    def _mean_step_loss(self) -> float:
        assert self._step_loss is not None
        loss = self._step_loss.detach()
        if self.job.world_size > 1:
            loss = loss.clone()
            torch.distributed.all_reduce(loss)
            loss /= self.job.world_size
        return float(loss)

    def _recent_rows(self) -> list[int]:
        from pretrain_cli.training.divergence import IN_A_ROW

        last = self.job.state.step + 1
        steps = range(max(1, last - IN_A_ROW + 1), last + 1)
        return [row for step in steps for row in self.job.order.step(step, self.job.plan.accumulation)]

    # What happens after a step

    def _maybe_log_save_evaluate(self, *_: Any, **keywords: Any) -> None:
        """Count the step, then write, validate, save and stop as the plan says."""
        job, state = self.job, self.job.state
        if self.state.global_step == self._handled:  # Trainer asks once more after its loop
            return
        self._handled = self.state.global_step
        self._count()
        plan, ends = job.plan, self._must_end()
        line: dict[str, float] = {}
        if ends or state.step % plan.logging_every == 0:
            line = self._line(keywords.get("learning_rate"))
        if self._due("eval", plan.eval_every) and self.stopped_by in ("", "signal"):
            state.owes_validation = not (self.stopped_by == "" and self._validate_now(line))
            ends = self._must_end()
        if line:
            self._write(line)
        if ends or self._due("save", plan.save_every):
            self._save_checkpoint(self.model, None)
        job.progress.advance(
            job.clock.elapsed_s if plan.seconds and not plan.steps else state.step,
            loss=state.last_loss or 0.0,
            **({"eta_s": self.step_seconds * (plan.steps - state.step)} if plan.steps and not plan.seconds else {}),
        )
        if ends:
            self.control.should_training_stop = True
        self._mark = time.monotonic()

    def _count(self) -> None:
        job, state = self.job, self.job.state
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self._line_seconds += seconds
        state.stepping_s += seconds
        self._line_steps += 1
        # The slower of the newest steps: a run has to end inside its budget.
        self.step_seconds = seconds if not self.step_seconds else max(seconds, 0.9 * self.step_seconds)
        state.step = self.state.global_step
        state.tokens += job.plan.batch_tokens
        state.elapsed_s = job.clock.elapsed_s
        if job.clock.budget_s is not None:
            job.clock.reserve(self._final_validation_seconds(), self._saving_estimate())

    def _must_end(self) -> bool:
        job = self.job
        if job.stop.requested is not None:
            self.stopped_by = "signal"
        elif job.plan.steps and job.state.step >= job.plan.steps:
            self.stopped_by = "steps"
        elif job.clock.budget_s is not None and self._agree(job.clock.over(self.step_seconds)):
            self.stopped_by = "time"
        elif (patience := job.config.train.early_stopping) and job.state.evaluations_without_gain >= patience:
            self.stopped_by = "early stopping"
        return bool(self.stopped_by)

    def _agree(self, mine: bool) -> bool:
        """Rank 0's clock decides for all."""
        if self.job.world_size == 1:
            return mine
        flag = torch.tensor(int(mine), device=self.args.device)
        torch.distributed.broadcast(flag, 0)
        return bool(flag)

    def _tenth(self) -> int:
        return int(10 * self.job.clock.share())

    def _due(self, what: str, every: int | None) -> bool:
        setting = getattr(self.job.config.train, f"{what}_steps")
        if every is None:
            tenth, before = self._tenth(), self._tenths[what]
            self._tenths[what] = tenth
            due = tenth > before
        else:
            due = every > 0 and self.job.state.step % every == 0
        if setting != "auto" or (what == "eval" and self.job.config.train.early_stopping):
            return due
        return self._agree(due and self._worth(what))

    def _worth(self, what: str) -> bool:
        """Whether what nobody asked for costs little against the time since it was last done."""
        cost = self._saving_estimate() / 2 if what == "save" else self._validation_rows() * self._row_seconds()
        now = time.monotonic()
        worth = now - self._done_at[what] >= LEAST_INTERVAL * cost
        if worth:
            self._done_at[what] = now
        return worth

    def _line(self, learning_rate: float | None) -> dict[str, float]:
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
            "learning_rate": learning_rate if learning_rate is not None else self._get_learning_rate(),
            "grad_norm": self._grad_norm,
            "tokens_per_second": round(per_second, 1),
            "elapsed_s": round(job.clock.elapsed_s, 3),
        }
        if job.peak_flops:
            line["mfu"] = round(per_second * job.flops_per_token / job.peak_flops, 4)
        line["memory_mb"] = round(memory_bytes(self.args.device) / 1e6, 1)
        if state.skipped:
            line["skipped_steps"] = state.skipped
        return line

    def _write(self, line: dict[str, float]) -> None:
        self.job.metrics.write(line)
        for report in self.job.report:
            report(self.job.state.step, line)

    # Validation

    def run_validation(self, rows: int) -> Validation | None:
        """Loss on ``rows`` held-out rows; None where there are none, or a signal came."""
        job = self.job
        if job.validation_rows is None:
            return None
        began = time.monotonic()
        found = validate(
            self.model_wrapped,
            job.validation_rows,
            rows=rows,
            batch_rows=job.plan.micro_batch,
            device=self.args.device,
            tokens_per_byte=job.tokens_per_byte,
            rank=job.rank,
            world_size=job.world_size,
            stop=lambda: job.stop.requested is not None,
        )
        if found is not None:
            self.validation_seconds_per_row = (time.monotonic() - began) / max(1, found.rows)
        return found

    def final_rows(self) -> int:
        """Rows of the validation at the end; in a timed run no more than fit its share of the budget."""
        wanted = FINAL_VALIDATION * self.job.config.train.eval_rows
        budget, per_row = self.job.clock.budget_s, self._row_seconds()
        if budget is not None and per_row > 0:
            wanted = min(wanted, max(1, int(VALIDATION_SHARE * budget / per_row)))
        return wanted

    def _validation_rows(self) -> int:
        """Rows of a validation during training."""
        held_out = len(self.job.validation_rows) if self.job.validation_rows is not None else 0
        return min(self.job.config.train.eval_rows, self.final_rows(), held_out)

    def _row_seconds(self) -> float:
        guess = FORWARD_SHARE * self.step_seconds / self.job.batch_rows
        return self.validation_seconds_per_row or guess

    def _final_validation_seconds(self) -> float:
        if self.job.validation_rows is None:
            return 0.0
        return min(self.final_rows(), len(self.job.validation_rows)) * self._row_seconds()

    def _validate_now(self, line: dict[str, float]) -> bool:
        job, state = self.job, self.job.state
        found = self.run_validation(self._validation_rows())
        if found is None:
            return job.validation_rows is None
        self._validated_step = state.step
        line.setdefault("step", state.step)
        line["validation_loss"] = found.loss
        if found.bits_per_byte is not None:
            line["validation_bits_per_byte"] = found.bits_per_byte
        state.validation_loss = found.loss
        if state.best_loss is None or found.loss < state.best_loss:
            state.best_loss, state.best_step, state.evaluations_without_gain = found.loss, state.step, 0
        else:
            state.evaluations_without_gain += 1
        if job.sample is not None:
            job.sample(state.step)
        return True

    # Checkpoints

    def _saving_estimate(self) -> float:
        """Seconds for the last checkpoint and the model."""
        if self.save_seconds:
            return 2 * self.save_seconds
        return 1.0 + 2 * self._checkpoint_bytes() / WRITE_BYTES_PER_SECOND

    def _checkpoint_bytes(self) -> int:
        parameter = next(self.model.parameters())
        return bytes_needed(self.model.num_parameters(), parameter.element_size(), self.job.plan.optimizer)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Stage, fsync, verify by hashes, rename; a full disk pauses saving and never ends the run."""
        job, state = self.job, self.job.state
        if self._saved_step == state.step or not self.guard.calm:
            return
        began = time.monotonic()
        job.metrics.sync()
        if job.rank == 0 and self._disk_has_room():
            try:
                with staged(job.run, state.step) as folder:
                    self._write_checkpoint(folder)
                rotate(job.run, job.config.train.keep, state.best_step, job.progress.warn)
                self._saved_step = state.step
                self._saving_paused = False
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError without errno
                self._saving_failed(error)
            except Exception as error:  # safetensors has an error type of its own
                if type(error).__name__ != "SafetensorError":
                    raise
                self._saving_failed(error)
        if job.world_size > 1:
            torch.distributed.barrier()
        self.save_seconds = time.monotonic() - began

    def _write_checkpoint(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        # Without the callbacks' state: a control that said "stop" would stop the resumed run at once.
        TrainerState(
            train_batch_size=self.state.train_batch_size,
            global_step=self.state.global_step,
            epoch=self.state.epoch,
            max_steps=self.state.max_steps,
            num_train_epochs=1,
        ).save_to_json(str(folder / TRAINER_STATE_NAME))
        self.job.state.elapsed_s = self.job.clock.elapsed_s
        self.job.state.save(folder)

    def _disk_has_room(self) -> bool:
        needed = 1.1 * self._checkpoint_bytes()
        free = shutil.disk_usage(self.job.run.path).free
        if free >= needed:
            return True
        self._saving_failed(OSError(28, f"{free / 1e6:.0f} MB are free, a checkpoint takes {needed / 1e6:.0f} MB"))
        return False

    def _saving_failed(self, error: BaseException) -> None:
        steps = self.job.run.checkpoint_steps()
        last = (
            f"the last good checkpoint is {self.job.run.checkpoint(steps[-1]).name}" if steps else "there is none yet"
        )
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        self.job.progress.warn(
            f"NO CHECKPOINT at step {self.job.state.step}: {reason}. Training goes on; {last}. Free some disk space."
        )
        self._saving_paused = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Nothing: `_write` reports each line once."""

    def feed_trackers(self, step: int, line: dict[str, float]) -> None:
        """Give a line to the trackers that Trainer itself drives (TensorBoard, Trackio, MLflow)."""
        values = {key: value for key, value in line.items() if key != "step"}
        self.callback_handler.on_log(self.args, self.state, self.control, values)


def memory_bytes(device: torch.device) -> int:
    """Memory that this process holds: on the GPU, or resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def write_rows(path: Path, dataset: PackedDataset, rows: list[int]) -> None:
    """Save rows of ids as jsonl, for a look at what a diverged step held."""
    with open(path, "w", encoding="utf-8") as file:
        for row in dict.fromkeys(rows):
            ids = dataset.rows.gather([row])[0].tolist()
            file.write(json.dumps({"row": row, "input_ids": ids}) + "\n")
