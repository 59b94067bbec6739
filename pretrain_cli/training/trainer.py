"""Makes transformers' Trainer train on packed rows: rows in order, checkpoints complete or absent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from pretrain_cli.errors import MissingDependencyError
from pretrain_cli.model.pickles import reading_tensors
from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.keeping.contents import KeepingTrainer
from pretrain_cli.training.keeping.saving import Saver
from pretrain_cli.training.measuring.correction import Correction
from pretrain_cli.training.measuring.intervals import Intervals
from pretrain_cli.training.measuring.meter import Meter
from pretrain_cli.training.measuring.validation import Validator
from pretrain_cli.training.processes.agreement import totals
from pretrain_cli.training.processes.sharding import is_sharded
from pretrain_cli.training.rows.feed import Batch, Feed, make_loader
from pretrain_cli.training.step.divergence import IN_A_ROW, Diverged, Guard
from pretrain_cli.training.step.new_rows import NewRows
from pretrain_cli.training.step.numbers import numbers
from pretrain_cli.training.step.optimizers import make_optimizer, split_parameters
from pretrain_cli.training.step.rows_at_once import RowsAtOnce
from pretrain_cli.training.step.schedules import make_scheduler
from pretrain_cli.training.step.verifying import Verifier

LEAST_SCALE = 1.0
"""Of fp16's loss: a gradient that is infinite without one isn't the scale's fault."""


class PackedTrainer(KeepingTrainer):
    """Trainer on packed rows. Decides itself what is logged, validated and saved, and when."""

    def __init__(self, attempt: Attempt, **keywords: Any) -> None:
        context = attempt.context
        super().__init__(train_dataset=context.rows.train, **keywords)
        self.attempt = attempt
        self.model_accepts_loss_kwargs = True
        if self.accelerator.ddp_handler is not None:  # gradients are held once: they lie in what DDP sends
            self.accelerator.ddp_handler.gradient_as_bucket_view = True
        self._loss_shifts_labels = True
        self.feed = Feed(
            context.rows.train,
            attempt.order,
            context.workers,
            self.args.dataloader_pin_memory,
            context.progress.warn,
        )
        self.guard = Guard(attempt.state.recent_losses)
        self.verifier = Verifier(self._verified_every(), context.progress, self.args.device)
        self.meter = Meter(attempt, self.args.device)
        self.correction = Correction(attempt)
        alone = context.world_size == 1
        self.at_once = RowsAtOnce(context.plan.micro_batch, self.args.device, context.progress.warn, alone)
        self.validator = Validator(attempt, self.args.device, self.meter, self.at_once)
        self.saver = Saver(attempt, self.begin_checkpoint, context.checkpoint_bytes, self.copied_bytes())
        self.intervals = Intervals(attempt, self.meter, self.validator, self.saver)
        self.stopped_by = ""
        self._save_asked = False
        self._resume_rng: str | None = None
        self._step_loss: torch.Tensor | None = None
        self._text_loss: torch.Tensor | None = None
        self._handled = -1
        self._computed: list[Batch] = []
        self._batches = 0  # of a step
        self._scale_told = False

    # What goes in

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Only its length is used: `Feed` makes the batches, and can do so after a worker's death."""
        return make_loader(self.attempt.context.rows.train, self.attempt.order, 0, pin_memory=False)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Batch], Any]:
        """The next step's micro-batches, and the number of tokens scored in them over all processes."""
        if self.attempt.state.owes_validation:
            self.validator.make_up(self.model_wrapped)
        batches = self.feed.take(num_batches)
        self._computed, self._batches = [], len(batches)
        if self._resume_rng is not None:
            with reading_tensors(Path(self._resume_rng)):
                super()._load_rng_state(self._resume_rng)
            self._resume_rng = None
        self.verifier.begin()
        return batches, self._get_num_items_in_batch(batches, device)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # After the loader has drawn its seeds, as in a run that was never stopped.
        self._resume_rng = checkpoint

    def _prepare_input(self, data: Any) -> Any:
        """The same on the device. What is in pinned memory, as the loader's batches are, is copied without a wait."""
        if isinstance(data, torch.Tensor) and data.is_pinned():
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

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
                self.attempt.context.world_size,
            )
        try:
            made = super().create_optimizer(model)
        except ImportError as error:
            raise MissingDependencyError(
                f"The optimizer '{plan.optimizer}' needs a package that isn't installed: {error}",
                "Install it, or set train.optimizer to adamw or muon.",
            ) from error
        new, rate = self.attempt.context.rows.new_tokens, train.new_token_rate
        if new and (rate != 1 or train.new_tokens_first):
            NewRows(model or self.model, new.start, rate, self._new_tokens_come_first).attach(self.optimizer)
        return made

    def _new_tokens_come_first(self) -> bool:
        return self.done_share(self.attempt.state.step) < self.attempt.context.config.train.new_tokens_first

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

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """What is minimized; with teachers, the text's share of it is kept for the metrics."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.attempt.context.teachers is not None:
            processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            self._text_loss = outputs["text_loss"] * processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch; where the memory runs out, of the step so far in smaller pieces."""
        self._computed.append(inputs)
        due = [inputs]

        def compute() -> torch.Tensor:
            nonlocal due
            now, due = due, self._computed
            if now is self._computed:  # a second try: gradients of this step may be there in part
                model.zero_grad()
                self._step_loss = None
            return [self._backward(model, batch, num_items_in_batch) for batch in now][-1]

        found = self.at_once.fitting(compute)
        if self.verifier.every and len(self._computed) == self._batches:
            self._verify(model, num_items_in_batch)
        return found

    def _verified_every(self) -> int:
        every = self.attempt.context.config.train.verify_steps
        if every and self.is_deepspeed_enabled:
            self.attempt.context.progress.note("No step is verified: DeepSpeed holds the gradients.")
            return 0
        return every

    def _verify(self, model: nn.Module, num_items_in_batch: Any) -> None:
        """Compute the step again where that is due: all gradients are there, and nothing has changed them yet."""

        def loss() -> torch.Tensor:
            assert self._step_loss is not None
            return self._step_loss

        def again() -> None:
            model.zero_grad()
            self._step_loss = None
            for number, batch in enumerate(self._computed, 1):
                put_off = number < self._batches and not is_sharded(self.model)
                with self.accelerator.no_sync(model=model) if put_off else contextlib.nullcontext():
                    self._backward(model, batch, num_items_in_batch)

        step = self.attempt.state.step + 1
        if self.verifier.due(step, lambda: self.guard.suspects(float(loss()))):
            self.verifier.check(step, model, loss, again)

    def _backward(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any) -> torch.Tensor:
        """Forward and backward of one micro-batch, a piece at a time; its share of the step's loss."""
        whole: torch.Tensor | None = None
        for piece in self.at_once.of(inputs):
            loss: torch.Tensor = super().training_step(model, piece, num_items_in_batch)
            told = loss if self._text_loss is None else self._text_loss
            self._step_loss = told if self._step_loss is None else self._step_loss + told
            whole = loss if whole is None else whole + loss
        assert whole is not None
        return whole

    def floating_point_ops(self, inputs: Batch) -> int:
        """0: Trainer's count costs 0.4 ms a step; the metrics have their own."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Runs right before the optimizer: a step that isn't finite is left out here."""
        norm = super()._get_grad_norm(model, grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        assert self._step_loss is not None
        # The only place where a step waits for the GPU: nothing else asks for a value before the optimizer moves.
        self.meter.grad_norm, own = numbers(norm if norm is not None else 0.0, self._step_loss)
        loss = self._agree_on_step(own)
        self._step_loss = None
        state = self.attempt.state
        if self._scale_is_too_large(loss):
            return norm
        verdict = self.guard.look(loss, self.meter.grad_norm)
        if verdict == "skip":
            state.skipped += 1
            self.attempt.context.progress.warn(
                f"Step {state.step + 1} is left out: its loss or gradient isn't finite ({state.skipped} so far)."
            )
            if self.accelerator.scaler is None:  # which leaves it out itself, and has to see why
                model.zero_grad(set_to_none=True)
        elif verdict != "fine":
            raise Diverged(verdict, state.step + 1, self._recent_rows())
        else:
            state.loss_sum += loss
            state.loss_steps += 1
        return norm

    def _scale_is_too_large(self, loss: float) -> bool:
        """Whether only fp16's loss scale made the gradient infinite: it is halved, and the step left out.

        Every run in fp16 begins so, until the scale fits; it is no divergence.
        """
        scaler = self.accelerator.scaler
        if scaler is None or not math.isfinite(loss) or math.isfinite(self.meter.grad_norm):
            return False
        if scaler.get_scale() <= LEAST_SCALE:
            return False
        if not self._scale_told:
            self._scale_told = True
            self.attempt.context.progress.note(
                "fp16: a step is left out whenever the scale of the loss is too large for it, as in the first ones."
            )
        self.meter.grad_norm = 0.0  # not known
        self.attempt.state.loss_sum += loss
        self.attempt.state.loss_steps += 1
        return True

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
        self.saver.look()
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

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save this step, unless the run seems about to diverge: only a good step is worth keeping."""
        if self.guard.calm:
            self.saver.save(at_end=bool(self.stopped_by))
        elif self.stopped_by:
            self.saver.wait()

    @contextlib.contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Nothing is put off: each micro-batch's gradients are shared out, since held whole they take all memory."""
        yield

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Nothing: `_write` reports each line once."""

    def _feed_trackers(self, line: dict[str, float]) -> None:
        """Give a line to the trackers that Trainer itself drives (TensorBoard, Trackio, MLflow)."""
        values = {key: value for key, value in line.items() if key != "step"}
        self.callback_handler.on_log(self.args, self.state, self.control, values)
