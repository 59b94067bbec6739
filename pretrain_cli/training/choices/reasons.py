"""Says who decided what a run's settings leave no choice about: the command, a preset, a file, or the run's start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pretrain_cli.config.load import PREFIX
from pretrain_cli.model.devices import ASKED
from pretrain_cli.run_record import RunRecord

KEYS = {
    "device": ("train.device",),
    "threads": ("train.threads",),
    "precision": ("train.precision",),
    "size": ("model.size",),
    "method": ("train.method",),
    "batch": ("train.batch_tokens", "train.micro_batch", "train.gradient_accumulation"),
    "optimizer": ("train.optimizer",),
    "learning rate": ("train.learning_rate",),
    "schedule": ("train.schedule",),
    "liger": ("train.liger",),
    "fp8": ("train.fp8",),
    "compile": ("train.compile",),
    "workers": ("train.workers",),
}
"""A choice's name → the settings that decide it."""


@dataclass(frozen=True)
class Reasons:
    """Who set what.

    Attributes:
        origins: dotted key → its layer, as in `Resolved`; empty for a script, which asks for all that it sets.
        earlier: run.json of the run that is resumed: its choices stand, with their reasons.
    """

    origins: Mapping[str, str] = field(default_factory=dict)
    earlier: RunRecord | None = None

    def told(self, name: str, told: str) -> str:
        """``told``, "value: reason", with who asked where the reason is that it was asked for."""
        value, _, reason = told.rpartition(": ")
        return told if reason != ASKED else f"{value}: {self._who(name)}"

    def _who(self, name: str) -> str:
        layers = [self.origins[key] for key in KEYS.get(name, ()) if self.origins.get(key, "default") != "default"]
        if layers:
            return _by(layers[0])
        return ASKED if self.earlier is None else self._before(name)

    def _before(self, name: str) -> str:
        assert self.earlier is not None
        line = next((line for line in self.earlier.choices if line.startswith(f"{name} ")), "")
        return line.partition(": ")[2] or "as before the resume"


def _by(layer: str) -> str:
    if layer.startswith("--") or layer.endswith("="):
        return ASKED
    if layer.startswith("preset "):
        return f"from {layer}"
    return f"set by {layer}" if layer.startswith(PREFIX) else f"set in {layer}"
