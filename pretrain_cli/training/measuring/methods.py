"""Weighs the ways to train a base against the memory: the same arithmetic for `ptk plan` and for training itself."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.config.model import Config
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.model.load import random_model
from pretrain_cli.model.probes import FAILURES
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.method import FULL, Method, check_method, choose_method
from pretrain_cli.training.choices.plan import choose_optimizer
from pretrain_cli.training.measuring.beside import Adapt, beside
from pretrain_cli.training.measuring.estimate import Counts, Setup, count_model, count_weights, memory_needed
from pretrain_cli.training.measuring.peaks import BasePeaks, counted_precision

LAYER_BYTES = 340.0
"""Bytes a token and hidden dimension hold in one layer, at most: four times what Llama's shape does. What fits with it
fits, and needs no closer look."""
PACKAGES = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}


@dataclass(frozen=True)
class BaseWork:
    """A base and what it is trained on, as far as memory follows from it.

    Attributes:
        config: what is asked for.
        model_config: transformers' config of the base, reshaped.
        sequence_length, masked: of the rows.
        precision: see `train.precision`.
        facts: of the machine.
        elsewhere: it is planned for another machine, which is taken to have what LoRA needs.
    """

    config: Config
    model_config: PreTrainedConfig
    sequence_length: int
    masked: bool
    precision: str
    facts: Facts
    elsewhere: bool = False
    _known: dict[tuple[Method, bool], Counts] = field(default_factory=dict, compare=False)

    def choose(self) -> Choice[Method]:
        """How the base is trained, with the reason; empty where nothing was to be chosen.

        Raises:
            ConfigError: LoRA is asked for where it can't be trained.
            MissingDependencyError: a package that it needs isn't installed.
        """
        train = self.config.train
        check_method(self.config, self.facts.deepspeed, "" if self.elsewhere else lacking(train.method))
        if train.method == "full":
            return Choice(FULL, ASKED)
        if train.method == "auto" and not self.open_to_lora:
            return Choice(FULL, "")
        missing = lacking("qlora") if train.method == "auto" and not self.elsewhere else ""
        return choose_method(train, self.least_bytes, self.facts.memory_bytes, missing)

    def settle(self) -> tuple[Choice[Method], Facts]:
        """How the base is trained, and the facts for its plan.

        A base that can't be counted without its weights is trained whole, as long as nothing else is asked for.

        Raises:
            ConfigError, MissingDependencyError: as `choose`.
        """
        try:
            method = self.choose()
            return method, self.with_method(method.value)
        except FAILURES:
            if self.config.train.method in ("lora", "qlora"):
                raise
            return Choice(FULL, ""), self.facts

    @property
    def open_to_lora(self) -> bool:
        """Whether LoRA could be chosen: the base stays as it is, whole, and Muon isn't asked for."""
        train = self.config.train
        split = train.shard_model or self.facts.deepspeed
        return self.config.model.init == "base" and not split and train.optimizer != "muon"

    def of_base(self) -> Facts:
        """The facts with the base's shape, as its config has it."""
        counts = self.counts(FULL, activations=False)
        return replace(
            self.facts, base_parameters=counts.parameters, base_hidden=counts.hidden, base_layers=counts.layers
        )

    def counts(self, method: Method, activations: bool = True) -> Counts:
        """The model in numbers, trained by ``method``."""
        key = (method if method.name != "qlora" else Method("lora", method.rank), activations)
        if key not in self._known:
            train = self.config.train
            adapt: Adapt | None = beside(method.rank, train.lora_targets, train.dora) if method.adapter else None
            if activations:
                precision = self.precision if method.adapter else counted_precision(self.least_setup(method))
                found = count_model(self.model_config, build, self.sequence_length, self.masked, precision, adapt)
            else:
                found = count_weights(self.model_config, build, adapt)
            self._known[key] = found
        return self._known[key]

    def short_optimizer(self, method: Method) -> str:
        """What takes AdamW's place where training by ``method`` doesn't fit with it; empty where it does, or is asked.

        AdamW in 8 bits (Dettmers et al. 2021, arXiv 2110.02861), its moments moved to the CPU where a GPU is short;
        then Adafactor (Shazeer and Stern 2018, arXiv 1804.04235), which keeps sums of rows and columns.
        """
        room = self.facts.memory_bytes
        if self.config.train.optimizer != "auto" or self.least_bytes(method) <= room:
            return ""
        small = "adamw_8bit" if self.facts.on_cpu else "paged_adamw_8bit"
        names = [small, "adafactor"] if self.elsewhere or not missing_packages("bitsandbytes") else ["adafactor"]
        return next((name for name in names if self.least_bytes(method, name) <= room), "")

    def least_setup(self, method: Method, optimizer: str = "") -> Setup:
        """Training by ``method`` with one row at once, activations computed again."""
        train = self.config.train
        facts = replace(
            self.facts,
            method=method,
            base_parameters=self.facts.base_parameters or 1,
            short_optimizer=optimizer,
        )
        return Setup(
            micro_batch=1,
            accumulation=2,
            sequence_length=self.sequence_length,
            optimizer=choose_optimizer(facts, train).value,
            precision=self.precision,
            gradient_checkpointing=train.gradient_checkpointing is not False,
            chunked_loss=train.chunked_loss is not False,
            processes=facts.world_size,
            sharded=train.shard_model and facts.world_size > 1,
            on_cpu=facts.on_cpu,
            method=method,
        )

    def least_bytes(self, method: Method, optimizer: str = "") -> float:
        """The peak of the smallest training by ``method``, with AdamW or what takes its place."""
        setup = self.least_setup(method, optimizer)
        if setup.gradient_checkpointing:
            rough = self.counts(method, activations=False)
            layer = LAYER_BYTES * self.sequence_length * rough.hidden
            most = memory_needed(replace(rough, layer_per_row=layer), setup).peak
            if most <= self.facts.memory_bytes:
                return most
        return memory_needed(self.counts(method), setup).peak

    def with_method(self, method: Method) -> Facts:
        """The facts from which a plan for ``method`` follows."""
        counts = self.counts(method, activations=False)
        small = self.short_optimizer(method)
        setup = self.least_setup(method, small)
        memory = memory_needed(counts, setup)
        return replace(
            self.facts,
            peaks=None if self.facts.on_cpu else BasePeaks(self.counts(method), setup),
            method=method,
            trained_parameters=counts.trained,
            held_bytes=memory.weights + memory.gradients + memory.optimizer,
            short_optimizer=small,
        )


def one_of_each(methods: Sequence[Method], work: BaseWork, planned: Method) -> list[Method]:
    """The planned method, and of each other name the one whose rank fits, or else the smallest."""
    chosen: dict[str, Method] = {}
    for method in methods:
        known = chosen.get(method.name)
        if known is None or work.least_bytes(known) > work.facts.memory_bytes:
            chosen[method.name] = method
    return list((chosen | {planned.name: planned}).values())


def build(model_config: PreTrainedConfig) -> PreTrainedModel:
    """A model of that config with random weights."""
    return random_model(model_config, model_config.name_or_path)


def missing_packages(*names: str) -> list[str]:
    """Those of the packages that aren't installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


@functools.cache
def lacking(method: str) -> str:
    """The packages that ``method`` needs and that aren't installed, in words; empty where there are none."""
    missing = missing_packages(*PACKAGES.get(method, ()))
    return f"the package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}" if missing else ""


def told(choice: Choice[Method]) -> str:
    """The line that says what was chosen; empty where the user's word or nothing decided it for full training."""
    if not choice.reason or (choice.reason == ASKED and not choice.value.adapter):
        return ""
    return f"{choice.value}: {choice.reason}"
