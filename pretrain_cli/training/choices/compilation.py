"""Decides whether the model is worth compiling, and trains without where that fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from pretrain_cli.errors import first_line
from pretrain_cli.memory import is_out_of_memory
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.optional import fault_of
from pretrain_cli.training.choices.compile_memory import CompileCost, recall, use_compile_cache
from pretrain_cli.training.choices.kernels import c_compiler
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.processes.agreement import world_size
from pretrain_cli.training.processes.sharding import layers_of

PAYS = 1.1
"""What compiling gains over what it takes, at least: a run that ends before it was expected to must not lose by it."""


NOT_COMPILED = CompileCost(first_s=0.0, gain=1.0)
COMPILER: dict[str, Any] = {}
"""More of what torch.compile takes: tests have compilers of their own."""


@dataclass(frozen=True)
class Compilation:
    """Whether a run compiles its model, what that should cost and give, and the key that its figures are kept by.

    ``by_layer``: each layer by itself, as torchtitan does it, where gradients are summed or layers gathered and
    computed again in between.
    """

    on: bool
    cost: CompileCost = NOT_COMPILED
    key: str = ""
    by_layer: bool = False


def choose_compile(
    setting: bool | str,
    machine: Machine,
    plan: Plan,
    seconds: float,
    *,
    key: str = "",
    processes: int | None = None,
    compiler: bool | None = None,
) -> Choice[Compilation]:
    """Whether to compile the model's body: where the steps in ``seconds`` gain more than compiling takes.

    Args:
        setting: True, False or "auto".
        machine: what the run computes on.
        plan: of the run.
        seconds: that steps will take without it, about.
        key: names the model, see `compile_key`; empty where it was never compiled here.
        processes: of the run; None: as many as train together now.
        compiler: whether there is one; None: look for it here.
    """
    by_layer = (processes or world_size()) > 1 or plan.gradient_checkpointing
    key = f"{key}-by-layer" if key and by_layer else key
    cost = recall(key)
    if isinstance(setting, bool):
        return Choice(Compilation(setting, cost if setting else NOT_COMPILED, key, by_layer), ASKED)
    off = Compilation(on=False, key=key)
    if seconds * (1 - 1 / cost.gain) < PAYS * cost.first_s:
        gained = "it made this model's steps no faster" if cost.gain <= 1 else "the run is too short to pay for it"
        return Choice(off, gained)
    if by_layer and torch.device(machine.device).type == "cpu":
        return Choice(off, "not with several processes or gradient checkpointing on a CPU")
    if not (_compiler(machine) if compiler is None else compiler):
        return Choice(off, "no compiler for this device")
    less, first = f"{1 - 1 / cost.gain:.0%}", f"{cost.first_s:.0f} s"
    known = f"measured here before: steps take {less} less, the first one {first} more"
    return Choice(
        Compilation(True, cost, key, by_layer),
        known if cost.known else f"steps take about {less} less, the first one up to {first} more",
    )


def _compiler(machine: Machine) -> bool:
    kind = torch.device(machine.device).type
    if kind == "cuda":
        return not fault_of("triton") and c_compiler()
    return kind == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is not None


class CompiledBody:
    """A model's body for training steps, compiled at the first one; a compiler that fails costs a warning.

    Without gradients (validation, whose batches have other shapes) it runs as it is.

    Args:
        model: whose body is compiled.
        warn: told where the compiler fails.
        by_layer: compile each layer by itself, and call the body as it is.

    Attributes:
        failed: whether the compiler did.
    """

    def __init__(self, model: PreTrainedModel, warn: Callable[[str], None], by_layer: bool = False) -> None:
        use_compile_cache()
        self.failed = False
        self._body, self._warn = model.base_model, warn
        self._layers = list(layers_of(model)) if by_layer else []
        self._compiled: Callable[..., Any] = self._body
        for layer in self._layers:
            layer.compile(dynamic=False, **COMPILER)
        if not self._layers:
            self._compiled = torch.compile(self._body, dynamic=False, **COMPILER)

    def __call__(self, **inputs: Any) -> Any:
        if self.failed or not torch.is_grad_enabled():
            with torch.compiler.set_stance("force_eager") if self._layers else contextlib.nullcontext():
                return self._body(**inputs)
        try:
            with warnings.catch_warnings():  # of a layer's input, which is no weight
                warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
                return self._compiled(**inputs)
        except Exception as error:  # dynamo, inductor and the C++ compiler each have their own
            if is_out_of_memory(error) or is_out_of_memory(error.__cause__ or error):
                raise
            self.failed = True
            self._warn(f"The model can't be compiled ({first_line(error)[:120]}); it trains as it is.")
            for layer in self._layers:  # the backward pass may compute a layer again
                layer._compiled_call_impl = None
            self._layers = []
            return self._body(**inputs)
