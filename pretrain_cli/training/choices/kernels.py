"""Chooses a GPU's faster kernels, flash attention, Liger and fp8, from plain facts that need no GPU to be tested.

Nothing of this runs on a CPU. Each is one documented call of its library.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.model.varlen import NAME as VARLEN
from pretrain_cli.model.varlen import register
from pretrain_cli.optional import fault_of, to_install

AMPERE, ADA = (8, 0), (8, 9)
FP8_PAYS_PARAMETERS = 1e9
"""Products smaller than those of a 1B model lose more to scaling than fp8 gains (torchao's float8 documentation)."""
LIGER_MODELS = ("llama", "mistral", "mixtral", "gemma", "gemma2", "qwen2", "qwen3", "phi3", "olmo2", "granite")
FP8_MULTIPLE = 16
FLASH = "flash_attention_2"
"""transformers' name of the package flash-attn."""


@dataclass(frozen=True)
class Hardware:
    """What the choices follow from: a device's kind and CUDA capability, and which libraries can be used.

    ``kind`` is "rocm" for AMD's GPUs, which torch calls cuda: their capability means something else. ``compiler``:
    whether there is a C compiler, with which Triton builds what starts its kernels. ``varlen``: whether torch's own
    attention over documents of any length is there. ``faults``: package → why it can't be used.
    """

    kind: str = "cpu"
    capability: tuple[int, int] = (0, 0)
    flash_attention: bool = False
    liger: bool = False
    torchao: bool = False
    compiler: bool = True
    varlen: bool = False
    faults: Mapping[str, str] = field(default_factory=dict)

    def why_not(self, package: str) -> str:
        """Why a library can't be used, as the end of a sentence."""
        return self.faults.get(package, "isn't installed")


@dataclass(frozen=True)
class Attended:
    """What is attended to.

    Attributes:
        masked: documents in a row don't see each other.
        half: in 16 bits.
        lengths: the model hands on where documents begin, and attends to all of them before a token.
        compiled: by torch.compile, for which transformers makes a mask of rows that need none.
    """

    masked: bool = False
    half: bool = True
    lengths: bool = True
    compiled: bool = False


@dataclass(frozen=True)
class Kernels:
    """The choices, each with its reason; a reason that is empty isn't worth a line."""

    attention: Choice[str]
    liger: Choice[bool]
    fp8: Choice[bool]

    @property
    def takes_lengths(self) -> bool:
        """Whether the attention is told where documents begin, and makes no mask."""
        return self.attention.value in (FLASH, VARLEN)

    @property
    def reasons(self) -> dict[str, str]:
        """Name → reason, of those worth a line."""
        named = {"attention": self.attention.reason, "liger": self.liger.reason, "fp8": self.fp8.reason}
        return {name: reason for name, reason in named.items() if reason}


def hardware_of(device: str) -> Hardware:
    """The facts of ``device`` here."""
    kind = torch.device(device).type
    if kind != "cuda" or torch.version.hip is not None:
        return Hardware(kind="rocm" if kind == "cuda" else kind, compiler=c_compiler())
    faults = {package: fault_of(package) for package in ("flash_attn", "liger_kernel", "torchao")}
    return Hardware(
        kind=kind,
        capability=torch.cuda.get_device_capability(device),
        flash_attention=not faults["flash_attn"],
        liger=not faults["liger_kernel"],
        torchao=not faults["torchao"],
        compiler=c_compiler(),
        varlen=importlib.util.find_spec("torch.nn.attention.varlen") is not None,
        faults=faults,
    )


def c_compiler() -> bool:
    """Whether Triton finds a C compiler, as it looks for one: CC, gcc or clang. Slim images have none."""
    return bool(os.environ.get("CC")) or any(shutil.which(name) for name in ("gcc", "clang"))


def choose_kernels(
    hardware: Hardware, train: TrainConfig, model_type: str, parameters: float, attended: Attended | None = None
) -> Kernels:
    """Choose what ``train`` leaves at auto.

    Args:
        hardware: see `hardware_of`.
        train: what is asked for.
        model_type: transformers' name of the architecture.
        parameters: of the model.
        attended: what it attends to; None: rows of one document each, in 16 bits.

    Raises:
        ConfigError: something is asked for that this device can't do.
        MissingDependencyError: something is asked for whose library isn't installed.
    """
    attention = _attention(hardware, train, attended or Attended())
    return Kernels(attention, _liger(hardware, train, model_type), _fp8(hardware, train, parameters))


def _attention(hardware: Hardware, train: TrainConfig, attended: Attended) -> Choice[str]:
    choice = _fastest(hardware, train, attended)
    needs_mask = attended.masked or not attended.lengths
    if choice.value != "sdpa" or train.attention == "sdpa" or needs_mask:
        return choice
    # Of rows with one document each, transformers makes a mask where the model is compiled; elsewhere it looks at them
    # first, for which a GPU's queue has to end. Ours is told that there is nothing to mask.
    return Choice(VARLEN, choice.reason) if attended.compiled or hardware.kind != "cpu" else choice


def _fastest(hardware: Hardware, train: TrainConfig, attended: Attended) -> Choice[str]:
    able = hardware.kind == "cuda" and hardware.capability >= AMPERE
    if train.attention == "flash" and not able:
        raise ConfigError("Flash attention needs an NVIDIA GPU of the Ampere generation or newer.", "Use auto.")
    if train.attention == "flash" and not hardware.flash_attention:
        raise _lacks(hardware, "Flash attention needs", "flash-attn", "flash_attn", to_install("flash-attn"))
    if train.attention in ("sdpa", "eager"):
        return Choice(train.attention, "")
    if hardware.kind != "cuda":
        return Choice("sdpa", "")
    if not able:
        return Choice("sdpa", "torch's own: the GPU is older than Ampere")
    mixes = attended.masked and not attended.lengths
    if not attended.half or mixes:
        lacking = "flash attention computes in 16 bits" if not attended.half else "this model needs a mask"
        if train.attention == "flash":
            raise ConfigError(f"Flash attention can't be used: {lacking}.", "Use auto.")
        return Choice("sdpa", f"torch's own: {lacking}")
    if hardware.flash_attention:
        return Choice(FLASH, "flash")
    if attended.masked and hardware.varlen:
        own = "torch's own over documents of any length, without a mask"
        return Choice(VARLEN, f"{own}{_broken(hardware, 'flash-attn', 'flash_attn')}")
    return Choice("sdpa", f"torch's own: flash-attn {hardware.why_not('flash_attn')}")


def _broken(hardware: Hardware, name: str, package: str) -> str:
    """A library that is installed and fails; empty where it isn't installed, which is nothing new to the user."""
    why = hardware.why_not(package)
    return f"; {name} {why}" if "imported" in why else ""


def _lacks(hardware: Hardware, what: str, name: str, package: str, install: str) -> MissingDependencyError:
    why = hardware.why_not(package)
    if "imported" in why:
        return MissingDependencyError(
            f"{what} the package {name}, which {why}.", f"Install one that fits this torch and driver: {install}"
        )
    return MissingDependencyError(f"{what} the package {name}.", install)


def _liger(hardware: Hardware, train: TrainConfig, model_type: str) -> Choice[bool]:
    known = model_type in LIGER_MODELS
    if train.liger is True and not hardware.liger:
        install = to_install(extra="gpu")
        raise _lacks(hardware, "Liger's kernels need", "liger-kernel", "liger_kernel", install)
    if train.liger is True and (hardware.kind != "cuda" or not known):
        raise ConfigError(f"Liger's kernels need a GPU and know no '{model_type}' on '{hardware.kind}'.", "Use auto.")
    if train.liger is True and not hardware.compiler:
        raise ConfigError("Liger's kernels need a C compiler, and there is none.", "Install gcc, or use auto.")
    taken = train.liger is not False and hardware.kind == "cuda" and hardware.liger and known and hardware.compiler
    if hardware.kind != "cuda":
        return Choice(taken, "")
    absent = f"liger-kernel {hardware.why_not('liger_kernel')}"
    absent = absent if "imported" in absent else "not installed (extra `gpu`)"
    lacking = f"it doesn't know '{model_type}'" if hardware.liger else absent
    lacking = lacking if hardware.compiler else "there is no C compiler (gcc) for its kernels"
    return Choice(taken, "on" if taken else "off: " + _why(train.liger, lacking))


def _fp8(hardware: Hardware, train: TrainConfig, parameters: float) -> Choice[bool]:
    able = hardware.kind == "cuda" and hardware.capability >= ADA
    if train.fp8 is True and not able:
        raise ConfigError("fp8 needs an NVIDIA GPU of the Ada or Hopper generation or newer.", "Use auto.")
    if train.fp8 is True and not hardware.torchao:
        raise _lacks(hardware, "fp8 needs", "torchao", "torchao", to_install("torchao"))
    large = parameters >= FP8_PAYS_PARAMETERS
    taken = train.fp8 is True or (train.fp8 == "auto" and able and hardware.torchao and large)
    if not able:
        return Choice(taken, "")
    lacking = "the model is smaller than 1B" if not large else f"torchao {hardware.why_not('torchao')}"
    return Choice(taken, "on" if taken else "off: " + _why(train.fp8, lacking))


def _why(setting: bool | str, reason: str) -> str:
    return reason if setting == "auto" else ASKED


def makes_mask(hardware: Hardware, train: TrainConfig, attended: Attended) -> bool:
    """Whether the attention that would be chosen holds a mask of each row."""
    return attended.masked and _attention(hardware, train, attended).value not in (FLASH, VARLEN)


def without_lengths(kernels: Kernels, why: str) -> Kernels:
    """The same without torch's attention over documents of any length, which doesn't work here."""
    return replace(kernels, attention=Choice("sdpa", f"torch's own, with a mask: {why}"))


def apply_kernels(model: PreTrainedModel, kernels: Kernels) -> None:
    """Attention and fp8 on the model itself; Liger's kernels are Trainer's to switch on."""
    if kernels.attention.value == VARLEN:
        register()
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
