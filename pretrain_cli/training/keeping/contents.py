"""Writes and reads what Trainer's part of a checkpoint is: weights, moments, schedule and random states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from pretrain_cli.artifacts import SHARDS
from pretrain_cli.errors import ModelError
from pretrain_cli.model.adapters import has_adapter, load_adapter, save_adapter
from pretrain_cli.model.pickles import reading_tensors
from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.keeping.background import Copy
from pretrain_cli.training.processes.sharding import is_sharded, load_any, save_shards, state_of


class KeepingTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose checkpoints are written from a copy, and read in any layout."""

    attempt: Attempt
    optimizer: Any
    lr_scheduler: Any

    def copied_bytes(self) -> float | None:
        """Bytes of this process's copy of a checkpoint; None where only a library knows what is in it."""
        context = self.attempt.context
        if self._written_by_library or context.plan.optimizer not in ("adamw", "muon"):
            return None
        if is_sharded(self.model):
            return context.checkpoint_bytes / context.world_size
        return float(context.checkpoint_bytes) if self.args.should_save else 0.0

    @property
    def _written_by_library(self) -> bool:
        return bool(self.is_deepspeed_enabled) or has_adapter(self.model)

    def begin_checkpoint(self, folder: Path, copy: Copy) -> Callable[[], None]:
        """Every process is here, and writes what is its own: its random state at once, then its weights and moments.

        Args:
            folder: of the checkpoint.
            copy: makes of weights and moments what later steps don't change.

        Returns:
            What writes them.
        """
        self._save_rng_state(str(folder))
        if self.args.should_save:
            self._save_counters(folder)
        if is_sharded(self.model):
            shards = copy(state_of(self.model, self.optimizer.optimizer))
            return lambda: save_shards(folder, shards)
        if self._written_by_library:
            return lambda: self._write_by_library(folder)
        if not self.args.should_save:
            return lambda: None
        state = copy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})

        def write() -> None:
            self._save(str(folder), state_dict=state["model"])
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
            torch.save(state["optimizer"], folder / OPTIMIZER_NAME)

        return write

    def _write_by_library(self, folder: Path) -> None:
        """Weights and moments as Trainer, DeepSpeed or PEFT writes them."""
        if not has_adapter(self.model):
            self.save_model(str(folder), _internal_call=True)
        elif self.args.should_save:
            save_adapter(self.model, folder)
        self._save_optimizer_and_scheduler(str(folder))
        (folder / "training_args.bin").unlink(missing_ok=True)

    def _save_counters(self, folder: Path) -> None:
        """Schedule, loss scale and counters: a few kB."""
        if not self._written_by_library:
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
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
        if has_adapter(self.model):
            load_adapter(self.model, Path(resume_from_checkpoint))
        elif not self._sharded_at(resume_from_checkpoint):
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
                _check_still_there(Path(checkpoint))
                return
            load_any(Path(checkpoint), self.model, self.optimizer.optimizer)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """The loss scale of fp16."""
        with reading_tensors(Path(checkpoint)) if checkpoint is not None else contextlib.nullcontext():
            super()._load_scaler(checkpoint)

    def _sharded_at(self, checkpoint: str) -> bool:
        return is_sharded(self.model) or (Path(checkpoint) / SHARDS).is_dir()


def _check_still_there(checkpoint: Path) -> None:
    """Check that a checkpoint didn't vanish while it was read: Trainer takes a missing file for a beginning.

    Raises:
        ModelError: it did.
    """
    if not (checkpoint / TRAINER_STATE_NAME).is_file():
        raise ModelError(f"{checkpoint} vanished while it was read.", "Restore or mount it, and run the command again.")
