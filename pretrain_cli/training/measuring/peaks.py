"""Says what one GPU holds at most while it trains: the arithmetic of `ptk plan`, for training's own choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from transformers import PreTrainedConfig

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.model.sizes import Shape
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import choose_optimizer
from pretrain_cli.training.measuring.estimate import (
    SHARDED_BF16,
    Build,
    Counts,
    Setup,
    count_model,
    memory_needed,
    ways_to_fit,
)


@dataclass(frozen=True)
class BasePeaks:
    """Of one model, which is counted already.

    Attributes:
        counts: the model in numbers.
        setup: how it is trained; the rows at once, and what follows from them, are replaced.
    """

    counts: Counts
    setup: Setup

    def bytes_of(self, shape: Shape | None, rows: int, accumulation: int, checkpointing: bool) -> float:
        """Bytes at the peak."""
        return memory_needed(self.counts, self._setup(rows, accumulation, checkpointing)).peak

    def ways(self, shape: Shape | None, rows: int, checkpointing: bool, available: float) -> list[str]:
        """Changes with which it would fit."""
        return ways_to_fit(self.counts, self._setup(rows, 2, checkpointing), available)

    def _setup(self, rows: int, accumulation: int, checkpointing: bool) -> Setup:
        return replace(self.setup, micro_batch=rows, accumulation=accumulation, gradient_checkpointing=checkpointing)


@dataclass(frozen=True)
class ScratchPeaks:
    """Of models from scratch, each counted when its shape comes up.

    Attributes:
        config_of: transformers' config of a shape.
        build: makes a model from one.
        masked: a mask is held for the rows.
        setup: see `BasePeaks`.
    """

    config_of: Callable[[Shape], PreTrainedConfig]
    build: Build
    masked: bool
    setup: Setup
    _known: dict[Shape, BasePeaks] = field(default_factory=dict, compare=False)

    def bytes_of(self, shape: Shape | None, rows: int, accumulation: int, checkpointing: bool) -> float:
        """Bytes at the peak of a model of ``shape``."""
        return self._of(shape).bytes_of(shape, rows, accumulation, checkpointing)

    def ways(self, shape: Shape | None, rows: int, checkpointing: bool, available: float) -> list[str]:
        """Changes with which it would fit."""
        return self._of(shape).ways(shape, rows, checkpointing, available)

    def _of(self, shape: Shape | None) -> BasePeaks:
        assert shape is not None
        if shape not in self._known:
            length = self.setup.sequence_length
            counts = count_model(self.config_of(shape), self.build, length, self.masked, counted_precision(self.setup))
            self._known[shape] = BasePeaks(counts, self.setup)
        return self._known[shape]


def scratch_peaks(
    train: TrainConfig,
    facts: Facts,
    *,
    sequence_length: int,
    precision: str,
    masked: bool,
    config_of: Callable[[Shape], PreTrainedConfig],
    build: Build,
) -> ScratchPeaks | None:
    """What a GPU would hold of models from scratch; None on a CPU."""
    if facts.on_cpu:
        return None
    setup = Setup(
        micro_batch=1,
        accumulation=1,
        sequence_length=sequence_length,
        optimizer=choose_optimizer(facts, train).value,
        precision=precision,
        gradient_checkpointing=False,
        chunked_loss=train.chunked_loss is not False,
        processes=facts.world_size,
        sharded=train.shard_model and facts.world_size > 1,
        on_cpu=False,
    )
    return ScratchPeaks(config_of, build, masked, setup)


def counted_precision(setup: Setup) -> str:
    """In what activations are counted: see `count_model`."""
    return SHARDED_BF16 if setup.sharded and setup.precision == "bf16" else setup.precision
