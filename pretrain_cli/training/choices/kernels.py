"""Chooses a GPU's faster kernels, flash attention, Liger and fp8, from plain facts that need no GPU to be tested.

Nothing of this runs on a CPU. Each is one documented call of its library.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.model.devices import ASKED, Choice

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
    """The choices, each with its reason; a reason that is empty isn't worth a line."""

    attention: Choice[str]
    liger: Choice[bool]
    fp8: Choice[bool]

    @property
    def reasons(self) -> dict[str, str]:
        """Name → reason, of those worth a line."""
        named = {"attention": self.attention.reason, "liger": self.liger.reason, "fp8": self.fp8.reason}
        return {name: reason for name, reason in named.items() if reason}


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
    return Kernels(_attention(hardware, train), _liger(hardware, train, model_type), _fp8(hardware, train, parameters))


def _attention(hardware: Hardware, train: TrainConfig) -> Choice[str]:
    able = hardware.kind == "cuda" and hardware.capability >= AMPERE
    if train.attention == "flash" and not able:
        raise ConfigError("Flash attention needs an NVIDIA GPU of the Ampere generation or newer.", "Use auto.")
    if train.attention == "flash" and not hardware.flash_attention:
        raise MissingDependencyError("Flash attention needs the package flash-attn.", "pip install flash-attn")
    if train.attention in ("sdpa", "eager"):
        return Choice(train.attention, "")
    if able and hardware.flash_attention:
        return Choice("flash_attention_2", "flash")
    lacking = "flash-attn isn't installed" if able else "the GPU is older than Ampere"
    return Choice("sdpa", f"torch's own: {lacking}" if hardware.kind == "cuda" else "")


def _liger(hardware: Hardware, train: TrainConfig, model_type: str) -> Choice[bool]:
    known = model_type in LIGER_MODELS
    if train.liger is True and not hardware.liger:
        raise MissingDependencyError("Liger's kernels aren't installed.", "pip install 'pretrain-cli[gpu]'")
    if train.liger is True and (hardware.kind != "cuda" or not known):
        raise ConfigError(f"Liger's kernels need a GPU and know no '{model_type}' on '{hardware.kind}'.", "Use auto.")
    if train.liger is True and not hardware.compiler:
        raise ConfigError("Liger's kernels need a C compiler, and there is none.", "Install gcc, or use auto.")
    taken = train.liger is not False and hardware.kind == "cuda" and hardware.liger and known and hardware.compiler
    if hardware.kind != "cuda":
        return Choice(taken, "")
    lacking = f"it doesn't know '{model_type}'" if hardware.liger else "not installed (extra `gpu`)"
    lacking = lacking if hardware.compiler else "there is no C compiler (gcc) for its kernels"
    return Choice(taken, "on" if taken else "off: " + _why(train.liger, lacking))


def _fp8(hardware: Hardware, train: TrainConfig, parameters: float) -> Choice[bool]:
    able = hardware.kind == "cuda" and hardware.capability >= ADA
    if train.fp8 is True and not able:
        raise ConfigError("fp8 needs an NVIDIA GPU of the Ada or Hopper generation or newer.", "Use auto.")
    if train.fp8 is True and not hardware.torchao:
        raise MissingDependencyError("fp8 needs the package torchao.", "pip install torchao")
    large = parameters >= FP8_PAYS_PARAMETERS
    taken = train.fp8 is True or (train.fp8 == "auto" and able and hardware.torchao and large)
    if not able:
        return Choice(taken, "")
    lacking = "the model is smaller than 1B" if not large else "torchao isn't installed"
    return Choice(taken, "on" if taken else "off: " + _why(train.fp8, lacking))


def _why(setting: bool | str, reason: str) -> str:
    return reason if setting == "auto" else ASKED


def apply_kernels(model: PreTrainedModel, kernels: Kernels) -> None:
    """Attention and fp8 on the model itself; Liger's kernels are Trainer's to switch on."""
    if kernels.attention.value != "sdpa":
        model.set_attn_implementation(kernels.attention.value)
    if kernels.fp8.value:
        from torchao.float8 import convert_to_float8_training

        head = model.get_output_embeddings()

        def fits(module: nn.Module, name: str) -> bool:
            return isinstance(module, nn.Linear) and module is not head and _divides(module)

        convert_to_float8_training(model, module_filter_fn=fits)


def _divides(layer: nn.Linear) -> bool:
    return all(size % FP8_MULTIPLE == 0 for size in layer.weight.shape)


def liger_config(model_config: PreTrainedConfig) -> dict[str, bool]:
    """Which of Liger's kernels to use: not its loss, since ptk has its own, nor its MLP where it isn't SwiGLU."""
    gated = getattr(model_config, "hidden_act", "") in ("silu", "swish")
    return {
        "rope": True, "rms_norm": True, "swiglu": gated, "cross_entropy": False, "fused_linear_cross_entropy": False,
    }  # fmt: skip
