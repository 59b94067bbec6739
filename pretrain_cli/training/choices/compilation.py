"""Decides whether the model is worth compiling, and trains without where that fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from pretrain_cli.errors import first_line
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.training.choices.kernels import c_compiler
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.processes.agreement import world_size

PAYS_AFTER_S = 120.0
"""Compiling took 9 to 32 s on two cores and made steps 1.25 to 1.37 times as fast: even after about a minute."""


def choose_compile(
    setting: bool | str,
    machine: Machine,
    plan: Plan,
    seconds: float,
    *,
    processes: int | None = None,
    compiler: bool | None = None,
) -> Choice[bool]:
    """Whether to compile the model's body.

    Args:
        setting: True, False or "auto".
        machine: what the run computes on.
        plan: of the run.
        seconds: that the run will take, about.
        processes: of the run; None: as many as train together now.
        compiler: whether there is one; None: look for it here.
    """
    if isinstance(setting, bool):
        return Choice(setting, ASKED)
    if seconds < PAYS_AFTER_S:
        return Choice(False, "the run is too short to pay for it")
    if (processes or world_size()) > 1 or plan.gradient_checkpointing:
        return Choice(False, "not with several processes or gradient checkpointing")
    if not (_compiler(machine) if compiler is None else compiler):
        return Choice(False, "no compiler for this device")
    return Choice(True, "steps take about a quarter less, the first one some 10 to 30 s more")


def _compiler(machine: Machine) -> bool:
    kind = torch.device(machine.device).type
    if kind == "cuda":
        return importlib.util.find_spec("triton") is not None and c_compiler()
    return kind == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is not None


def compiled_body(model: PreTrainedModel, warn: Callable[[str], None]) -> Callable[..., Any]:
    """The model's body for training steps, compiled at the first one; a compiler that fails costs a warning.

    Without gradients (validation, whose batches have other shapes) it runs as it is.
    """
    body = model.base_model
    compiled: Callable[..., Any] = torch.compile(body, dynamic=False)
    failed = False

    def run(**inputs: Any) -> Any:
        nonlocal failed
        if failed or not torch.is_grad_enabled():
            return body(**inputs)
        try:
            return compiled(**inputs)
        except Exception as error:  # dynamo, inductor and the C++ compiler each have their own
            failed = True
            reason = first_line(error)
            warn(f"The model can't be compiled ({reason[:120]}); it trains as it is.")
            return body(**inputs)

    return run
