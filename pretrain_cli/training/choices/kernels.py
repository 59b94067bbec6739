"""Which of a GPU's faster ways to compute are taken: flash attention, Liger's kernels, fp8; and why?

Nothing of this runs on a CPU. Each way is one documented call of its library; the choice is made from plain facts, so
that it can be tested without the hardware.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import torch

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, MissingDependencyError

AMPERE, ADA = (8, 0), (8, 9)
FP8_PAYS_PARAMETERS = 1e9
"""Products smaller than those of a 1B model lose more to scaling than fp8 gains (torchao's float8 documentation)."""
LIGER_MODELS = ("llama", "mistral", "mixtral", "gemma", "gemma2", "qwen2", "qwen3", "phi3", "olmo2", "granite")
FP8_MULTIPLE = 16


@dataclass(frozen=True)
class Hardware:
    """What the choices follow from: a device's kind and CUDA capability, and which libraries are installed.

    ``compiler``: whether there is a C compiler, with which Triton builds what starts its kernels.
    """

    kind: str = "cpu"
    capability: tuple[int, int] = (0, 0)
    flash_attention: bool = False
    liger: bool = False
    torchao: bool = False
    compiler: bool = True


@dataclass(frozen=True)
class Kernels:
    """The choices; ``reasons`` holds those worth a line."""

    attention: str = "sdpa"
    liger: bool = False
    fp8: bool = False
    reasons: dict[str, str] = field(default_factory=dict)


def hardware_of(device: str) -> Hardware:
    """The facts of ``device`` here."""
    kind = torch.device(device).type
    return Hardware(
        kind=kind,
        capability=torch.cuda.get_device_capability() if kind == "cuda" else (0, 0),
        flash_attention=importlib.util.find_spec("flash_attn") is not None,
        liger=importlib.util.find_spec("liger_kernel") is not None,
        torchao=importlib.util.find_spec("torchao") is not None,
        compiler=c_compiler(),
    )


def c_compiler() -> bool:
    """Whether Triton finds a C compiler, as it looks for one: CC, gcc or clang. Slim images have none."""
    return bool(os.environ.get("CC")) or any(shutil.which(name) for name in ("gcc", "clang"))


def choose_kernels(hardware: Hardware, train: TrainConfig, model_type: str, parameters: float) -> Kernels:
    """Choose what ``train`` leaves at auto.

    Args:
        hardware: see `hardware_of`.
        train: what is asked for.
        model_type: transformers' name of the architecture.
        parameters: of the model.

    Raises:
        ConfigError: something is asked for that this device can't do.
        MissingDependencyError: something is asked for whose library isn't installed.
    """
    reasons: dict[str, str] = {}
    attention = _attention(hardware, train, reasons)
    liger = _liger(hardware, train, model_type, reasons)
    return Kernels(attention, liger, _fp8(hardware, train, parameters, reasons), reasons)


def _attention(hardware: Hardware, train: TrainConfig, reasons: dict[str, str]) -> str:
    able = hardware.kind == "cuda" and hardware.capability >= AMPERE
    if train.attention == "flash" and not able:
        raise ConfigError("Flash attention needs an NVIDIA GPU of the Ampere generation or newer.", "Use auto.")
    if train.attention == "flash" and not hardware.flash_attention:
        raise MissingDependencyError("Flash attention needs the package flash-attn.", "pip install flash-attn")
    if train.attention in ("sdpa", "eager"):
        return train.attention
    taken = able and hardware.flash_attention
    if hardware.kind == "cuda":
        lacking = "flash-attn isn't installed" if able else "the GPU is older than Ampere"
        reasons["attention"] = "flash" if taken else f"torch's own: {lacking}"
    return "flash_attention_2" if taken else "sdpa"


def _liger(hardware: Hardware, train: TrainConfig, model_type: str, reasons: dict[str, str]) -> bool:
    known = model_type in LIGER_MODELS
    if train.liger is True and not hardware.liger:
        raise MissingDependencyError("Liger's kernels aren't installed.", "pip install 'pretrain-cli[gpu]'")
    if train.liger is True and (hardware.kind != "cuda" or not known):
        raise ConfigError(f"Liger's kernels need a GPU and know no '{model_type}' on '{hardware.kind}'.", "Use auto.")
    if train.liger is True and not hardware.compiler:
        raise ConfigError("Liger's kernels need a C compiler, and there is none.", "Install gcc, or use auto.")
    taken = train.liger is not False and hardware.kind == "cuda" and hardware.liger and known and hardware.compiler
    if hardware.kind == "cuda":
        lacking = f"it doesn't know '{model_type}'" if hardware.liger else "not installed (extra `gpu`)"
        lacking = lacking if hardware.compiler else "there is no C compiler (gcc) for its kernels"
        reasons["liger"] = "on" if taken else "off: " + _why(train.liger, lacking)
    return taken


def _fp8(hardware: Hardware, train: TrainConfig, parameters: float, reasons: dict[str, str]) -> bool:
    able = hardware.kind == "cuda" and hardware.capability >= ADA
    if train.fp8 is True and not able:
        raise ConfigError("fp8 needs an NVIDIA GPU of the Ada or Hopper generation or newer.", "Use auto.")
    if train.fp8 is True and not hardware.torchao:
        raise MissingDependencyError("fp8 needs the package torchao.", "pip install torchao")
    large = parameters >= FP8_PAYS_PARAMETERS
    taken = train.fp8 is True or (train.fp8 == "auto" and able and hardware.torchao and large)
    if able:
        lacking = "the model is smaller than 1B" if not large else "torchao isn't installed"
        reasons["fp8"] = "on" if taken else "off: " + _why(train.fp8, lacking)
    return taken


def _why(setting: bool | str, reason: str) -> str:
    return reason if setting == "auto" else "as asked"


def apply_kernels(model: Any, kernels: Kernels) -> None:
    """Attention and fp8 on the model itself; Liger's kernels are Trainer's to switch on."""
    if kernels.attention != "sdpa":
        model.set_attn_implementation(kernels.attention)
    if kernels.fp8:
        from torchao.float8 import convert_to_float8_training

        head = model.get_output_embeddings()

        def fits(module: Any, name: str) -> bool:
            return module is not head and all(size % FP8_MULTIPLE == 0 for size in module.weight.shape)

        convert_to_float8_training(model, module_filter_fn=fits)


def liger_config(model_config: Any) -> dict[str, bool]:
    """Which of Liger's kernels to use: not its loss, since ptk has its own, nor its MLP where it isn't SwiGLU."""
    gated = getattr(model_config, "hidden_act", "") in ("silu", "swish")
    return {
        "rope": True, "rms_norm": True, "swiglu": gated, "cross_entropy": False, "fused_linear_cross_entropy": False,
    }  # fmt: skip
