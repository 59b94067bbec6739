"""Makes transformers' Trainer train on packed rows: rows in order, checkpoints complete or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME

from pretrain_cli.errors import MissingDependencyError
from pretrain_cli.model.pickles import reading_tensors
from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.keeping.saving import Saver
from pretrain_cli.training.measuring.correction import Correction
from pretrain_cli.training.measuring.forecast import checkpoint_bytes
from pretrain_cli.training.measuring.intervals import Intervals
from pretrain_cli.training.measuring.meter import Meter
from pretrain_cli.training.measuring.validation import Validator
from pretrain_cli.training.processes.agreement import totals
from pretrain_cli.training.processes.sharding import SHARDS, is_sharded, load_any, save_shards
from pretrain_cli.training.rows.feed import Batch, Feed, make_loader
from pretrain_cli.training.step.divergence import IN_A_ROW, Diverged, Guard
from pretrain_cli.training.step.optimizers import make_optimizer, split_parameters
from pretrain_cli.training.step.schedules import make_scheduler


class PackedTrainer(Trainer):  # type: ignore[misc]
    """Trainer on packed rows. Decides itself what is logged, validated and saved, and when."""

    def __init__(self, attempt: Attempt, **keywords: Any) -> None:
        self.optimizer: Any
        self.lr_scheduler: Any
        context = attempt.context
        super().__init__(train_dataset=context.rows.train, **keywords)
        self.attempt = attempt
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True
        self.feed = Feed(
            context.rows.train,
            attempt.order,
            context.workers,
            self.args.dataloader_pin_memory,
            context.progress.warn,
        )
        self.guard = Guard(attempt.state.recent_losses)
        self.meter = Meter(attempt, self.args.device)
        self.correction = Correction(attempt)
        self.validator = Validator(attempt, self.args.device, self.meter)
        size = checkpoint_bytes(self.model.num_parameters(), context.weight_bytes, context.plan.optimizer)
        self.saver = Saver(attempt, self._write_checkpoint, size)
        self.intervals = Intervals(attempt, self.meter, self.validator, self.saver)
        self.stopped_by = ""
        self._save_asked = False
        self._resume_rng: str | None = None
        self._step_loss: torch.Tensor | None = None
        self._handled = -1

    # What goes in

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Only its length is used: `Feed` makes the batches, and can do so after a worker's death."""
        return make_loader(self.attempt.context.rows.train, self.attempt.order, 0, pin_memory=False)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Batch], Any]:
        """The next step's micro-batches, and the number of tokens scored in them over all processes."""
        if self.attempt.state.owes_validation:
            self.validator.make_up(self.model_wrapped)
        batches = self.feed.take(num_batches)
        if self._resume_rng is not None:
            with reading_tensors(Path(self._resume_rng)):
                super()._load_rng_state(self._resume_rng)
            self._resume_rng = None
        return batches, self._get_num_items_in_batch(batches, device)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # After the loader has drawn its seeds, as in a run that was never stopped.
        self._resume_rng = checkpoint

    # How weights move

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW or Muon with AdamW; other names are Trainer's own."""
        plan, train = self.attempt.context.plan, self.attempt.context.config.train
        if self.optimizer is None and plan.optimizer in ("adamw", "muon"):
            self.optimizer = make_optimizer(
                model or self.model,
                plan.optimizer,
                train,
                plan.rates,
                torch.bfloat16 if self.args.bf16 or self.model.dtype == torch.bfloat16 else torch.float32,
                self.args.adam_epsilon,
            )
        try:
            return super().create_optimizer(model)
        except ImportError as error:
            raise MissingDependencyError(
                f"The optimizer '{plan.optimizer}' needs a package that isn't installed: {error}",
                "Install it, or set train.optimizer to adamw or muon.",
            ) from error

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay of Trainer's own optimizers: on matrices only, as with ours; Trainer takes embeddings too."""
        matrices = {id(parameter) for parameter in split_parameters(model).matrices}
        return [name for name, parameter in model.named_parameters() if id(parameter) in matrices]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A schedule over the share of the run that is done: steps, or the clock."""
        if self.lr_scheduler is None:
            plan = self.attempt.context.plan
            self.lr_scheduler = make_scheduler(
                optimizer or self.optimizer,
                plan.schedule,
                plan.warmup_steps,
                self.done_share,
                self.attempt.context.config.train.min_learning_rate_ratio,
                min(0.5, plan.warmup_steps / (plan.steps or plan.expected_steps)),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def done_share(self, step: int) -> float:
        """Share of the run that is done after ``step`` steps, 0 to 1."""
        steps = self.attempt.context.plan.steps
        return max(step / steps if steps else 0.0, self.attempt.clock.share())

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def floating_point_ops(self, inputs: Batch) -> int:
        """0: Trainer's count costs 0.4 ms a step; the metrics have their own."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Runs right before the optimizer: a step that isn't finite is left out here."""
        norm = super()._get_grad_norm(model, grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.meter.grad_norm = float(norm) if norm is not None else 0.0
        assert self._step_loss is not None
        loss = self._agree_on_step(float(self._step_loss))
        self._step_loss = None
        verdict = self.guard.look(loss, self.meter.grad_norm)
        state = self.attempt.state
        if verdict == "skip":
            state.skipped += 1
            self.attempt.context.progress.warn(
                f"Step {state.step + 1} is left out: its loss or gradient isn't finite ({state.skipped} so far)."
            )
            model.zero_grad(set_to_none=True)
        elif verdict != "fine":
            raise Diverged(verdict, state.step + 1, self._recent_rows())
        else:
            state.loss_sum += loss
            state.loss_steps += 1
        return norm

    def _agree_on_step(self, loss: float) -> float:
        """The step's loss over all processes; on the way, whether any was told to stop, and rank 0's clock."""
        context, clock = self.attempt.context, self.attempt.clock
        asked = context.stop.take_save()
        if context.world_size == 1:
            self._save_asked |= asked
            return loss
        own = clock.own_share() if context.rank == 0 else 0.0
        total, stops, share, saves = totals(loss, float(context.stop.requested is not None), own, float(asked))
        self._save_asked |= saves > 0
        context.stop.agreed, clock.agreed_share = stops > 0, share
        return total / context.world_size

    def _recent_rows(self) -> list[int]:
        last = self.attempt.state.step + 1
        steps = range(max(1, last - IN_A_ROW + 1), last + 1)
        accumulation = self.attempt.context.plan.accumulation
        return [row for step in steps for row in self.attempt.order.step(step, accumulation)]

    # What happens after a step

    def _maybe_log_save_evaluate(self, *_: Any, **keywords: Any) -> None:
        """Count the step, then write, validate, save and stop as the plan says."""
        context, state = self.attempt.context, self.attempt.state
        if self.state.global_step == self._handled:  # Trainer asks once more after its loop
            return
        self._handled = self.state.global_step
        self.meter.count(self.state.global_step)
        self.correction.look()
        self.stopped_by = self.intervals.why_end()
        line: dict[str, float] = {}
        best = False
        if self.stopped_by or state.step % context.plan.logging_every == 0:
            rate = keywords.get("learning_rate")
            self.meter.learning_rate = rate if rate is not None else self._get_learning_rate()
            line = self.meter.line()
        if self.intervals.due("eval") and self.stopped_by in ("", "signal"):
            measured = not self.stopped_by and self.validator.measure(self.model_wrapped, line)
            state.owes_validation = not measured
            best = measured and state.best_step == state.step
            self.stopped_by = self.intervals.why_end()
        if line:
            self._write(line)
        if self.stopped_by or self.intervals.due("save") or self._save_asked:
            self._save_asked = False
            self._save_checkpoint(self.model, None)
        elif best and self.guard.calm and context.config.train.early_stopping:
            self.saver.save(model_only=True)
        self._show_progress()
        self.control.should_training_stop |= bool(self.stopped_by)
        self.meter.restart()

    def _show_progress(self) -> None:
        plan, progress, state = self.attempt.context.plan, self.attempt.context.progress, self.attempt.state
        elapsed = self.attempt.clock.elapsed_s
        if plan.by_clock:
            progress.advance(elapsed, steps=state.step, eta_s=(plan.seconds or 0) - elapsed)
            return
        facts: dict[str, float] = {"eta_s": self.meter.step_seconds * ((plan.steps or 0) - state.step)}
        if plan.seconds:
            facts = {"eta_s": min(facts["eta_s"], plan.seconds - elapsed), "budget_s": plan.seconds}
        progress.advance(state.step, elapsed_s=elapsed, **facts)

    def _write(self, line: dict[str, float]) -> None:
        self.attempt.metrics.write(line)
        for report in self.attempt.reports:
            report(self.attempt.state.step, line)
        self._feed_trackers(line)

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save this step, unless the run seems about to diverge: only a good step is worth keeping."""
        if self.guard.calm:
            self.saver.save()

    def _write_checkpoint(self, folder: Path) -> None:
        """Every process is here, and writes what is its own: its random state, and its shard of the model."""
        if is_sharded(self.model):
            save_shards(folder, self.model, self.optimizer.optimizer)
            if self.args.should_save:
                torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
        else:
            self.save_model(str(folder), _internal_call=True)
            self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        if not self.args.should_save:
            return
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
        self._save_scaler(str(folder))
        # Without the callbacks' state: a control that said "stop" would stop the resumed run at once.
        TrainerState(
            train_batch_size=self.state.train_batch_size,
            global_step=self.state.global_step,
            epoch=self.state.epoch,
            max_steps=self.state.max_steps,
            num_train_epochs=1,
        ).save_to_json(str(folder / TRAINER_STATE_NAME))
        self.attempt.state.elapsed_s = self.attempt.clock.elapsed_s
        self.attempt.state.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self._sharded_at(resume_from_checkpoint):
            with reading_tensors(Path(resume_from_checkpoint)):
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def take_back(self, folder: Path) -> None:
        """The weights of checkpoint ``folder``, which may hold its model only."""
        if self._sharded_at(str(folder)):
            load_any(folder, self.model, self.optimizer.optimizer)
        else:
            self._load_from_checkpoint(str(folder))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The optimizer's state; with a sharded model, or of one, the weights as well."""
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        with reading_tensors(Path(checkpoint)):
            if not self._sharded_at(checkpoint):
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            load_any(Path(checkpoint), self.model, self.optimizer.optimizer)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """The loss scale of fp16."""
        with reading_tensors(Path(checkpoint)) if checkpoint is not None else contextlib.nullcontext():
            super()._load_scaler(checkpoint)

    def _sharded_at(self, checkpoint: str) -> bool:
        return is_sharded(self.model) or (Path(checkpoint) / SHARDS).is_dir()

    @contextlib.contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Gradients of a sharded model are summed with the last micro-batch only."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Nothing: `_write` reports each line once."""

    def _feed_trackers(self, line: dict[str, float]) -> None:
        """Give a line to the trackers that Trainer itself drives (TensorBoard, Trackio, MLflow)."""
        values = {key: value for key, value in line.items() if key != "step"}
        self.callback_handler.on_log(self.args, self.state, self.control, values)
