"""Chooses how a base is trained: all its weights, LoRA's matrices, or those beside a base in 4 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.formatting import byte_size
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.optional import to_install

RANK, SMALL_RANK = 64, 16
"""The rank that learned more in a first trial (1.432 bits per byte against 1.441), and one for short memory."""
EXTRA = to_install(extra="lora")


@dataclass(frozen=True)
class Method:
    """How a base is trained: "full", "lora" or "qlora"; the rank of LoRA's matrices, 0 for "full"."""

    name: str
    rank: int = 0

    @property
    def adapter(self) -> bool:
        """Whether only LoRA's matrices are trained."""
        return self.name != "full"

    @property
    def four_bit(self) -> bool:
        """Whether the base is held in 4 bits."""
        return self.name == "qlora"

    def __str__(self) -> str:
        return f"{self.name} of rank {self.rank}" if self.adapter else self.name


FULL = Method("full")


def candidates(train: TrainConfig) -> list[Method]:
    """The methods that ``train`` leaves open, the one that learns most first."""
    ranks = [train.lora_rank] if isinstance(train.lora_rank, int) else [RANK, SMALL_RANK]
    named = [FULL, *(Method(name, rank) for name in ("lora", "qlora") for rank in ranks)]
    return [method for method in named if train.method in ("auto", method.name)]


def choose_method(
    train: TrainConfig, least_bytes: Callable[[Method], float], available: float, lacking: str = ""
) -> Choice[Method]:
    """The first of the methods left open that fits the memory, with the reason.

    Args:
        train: what is asked for.
        least_bytes: what training by a method takes with one row at once and activations computed again.
        available: bytes on one device.
        lacking: packages that LoRA needs and that aren't installed: then all weights are trained.
    """
    methods = candidates(train)
    if len(methods) == 1:
        return Choice(methods[0], ASKED)
    sizes = [(method, least_bytes(method)) for method in methods]
    fitting, size = next((entry for entry in sizes if entry[1] <= available), sizes[-1])
    if train.method != "auto":
        return Choice(fitting, ASKED)
    if not fitting.adapter:
        return Choice(FULL, "all weights fit the memory")
    short = f"full training takes at least {byte_size(sizes[0][1])} of {byte_size(available)}"
    if lacking:
        return Choice(FULL, f"{short}; {fitting.name} would take {byte_size(size)}, but needs {lacking} ({EXTRA})")
    this = "this fits" if size <= available else f"nothing fits, and this takes least, {byte_size(size)}"
    return Choice(fitting, f"{short}; {this}")


def check_method(config: Config, deepspeed: bool, lacking: str) -> None:
    """Refuse LoRA where it can't be trained.

    Args:
        config: resolved.
        deepspeed: whether DeepSpeed holds the weights.
        lacking: the packages that it needs and that aren't installed, in words.

    Raises:
        ConfigError: there is no base, it is reshaped, or it is split over devices.
        MissingDependencyError: a package isn't installed.
    """
    method, model, train = config.train.method, config.model, config.train
    if method not in ("lora", "qlora"):
        return
    if not model.base:
        raise ConfigError(
            f"train.method = '{method}' trains small matrices beside a base, but there is none.",
            "Name a base when preparing: ptk prepare … --base MODEL; or leave train.method at auto.",
        )
    if model.init != "base":
        raise ConfigError(
            f"train.method = '{method}' keeps the base as it is, but model.init = '{model.init}' changes it.",
            "Use --method full, or leave model.init at base.",
        )
    if train.shard_model or deepspeed:
        raise ConfigError(
            f"train.method = '{method}' doesn't work with a model that is split over devices.",
            "Use --method full, or leave out --shard-model and DeepSpeed: each process then holds the whole base.",
        )
    if lacking:
        raise MissingDependencyError(f"train.method = '{method}' needs {lacking}.", f"Install it: {EXTRA}")
