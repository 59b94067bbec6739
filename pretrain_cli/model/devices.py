"""Chooses the device, precision and number of threads that suit this machine, with the reason."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from pretrain_cli.errors import ConfigError
from pretrain_cli.formatting import count_of
from pretrain_cli.processes import available_cores as available_cores

BF16_GAIN = 1.3
"""Ratio of speeds from which a CPU uses bf16: native bf16 measured 3.1, emulated 0.47 and 0.03."""
TENSOR_CORES = (7, 0)
"""CUDA capability from which fp16 products are several times as fast as fp32 ones: 65 TFLOP/s against 8 on a T4."""
PROBE_SIZE = 512
PROBE_SECONDS = 0.04
BUSY_SHARE = 0.3
"""Work of other processes, in cores, above which two OpenMP threads wait for each other."""

T = TypeVar("T")


ASKED = "as asked"
"""The reason of a choice that a setting made."""


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value with the reason for it, one clause."""

    value: T
    reason: str


def choose_device(name: str) -> Choice[str]:
    """The device to compute on, as torch names it: "cpu", "cuda", "cuda:1", "xpu", "mps".

    AMD's GPUs are torch's "cuda" too; Intel's are its "xpu".

    Args:
        name: a device; "gpu", whichever there is; or "auto": CUDA before XPU, MPS and the CPU.

    Raises:
        ConfigError: no such device, or it isn't there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return Choice("cuda", f"found {torch.cuda.get_device_name()}")
        if torch.xpu.is_available():
            return Choice("xpu", f"found {torch.xpu.get_device_name()}")
        if torch.backends.mps.is_available():
            return Choice("mps", "found Apple's GPU")
        return Choice("cpu", "no GPU that torch can use")
    if name == "gpu":
        name = "mps" if torch.backends.mps.is_available() else "xpu" if torch.xpu.is_available() else "cuda"
    unknown = ConfigError(f"There is no device '{name}'.", "Devices: auto, cpu, cuda, cuda:1, mps, xpu.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown from error
    if device.type not in ("cpu", "cuda", "mps", "xpu"):  # torch has more, such as meta, on which nothing is computed
        raise unknown
    if device.type == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "no driver or GPU answers" if built else "this torch was built without CUDA"
        raise ConfigError(f"The device '{name}' can't be used: {why}.", "Use --device auto, or see: ptk doctor")
    if device.type in ("mps", "xpu") and not torch.get_device_module(device).is_available():
        raise ConfigError(
            f"The device '{name}' isn't available on this machine.", "Use --device auto, or see: ptk doctor"
        )
    if device.type != "cpu" and (device.index or 0) >= device_count(name):
        found = count_of(device_count(name), "GPU")
        raise ConfigError(f"There is no device '{name}': this machine has {found}.", "Use --device auto.")
    return Choice(name, ASKED)


def device_count(device: str) -> int:
    """GPUs of this kind that this process sees; 0 for a CPU."""
    kind = torch.device(device).type
    return 0 if kind == "cpu" else int(torch.get_device_module(kind).device_count())


def check_processes(device: str, count: int) -> None:
    """Refuse to train in more processes than ``device`` stands for; a CPU is shared.

    Args:
        device: what `choose_device` gave.
        count: processes of the training, on this machine and others.

    Raises:
        ConfigError: it is one GPU, by its number or because Apple's machines have one.
    """
    kind, index = torch.device(device).type, torch.device(device).index
    if count == 1 or kind == "cpu":
        return
    if kind == "mps":
        raise ConfigError(
            f"Apple's GPU trains in one process, not in {count}.", "Use --processes auto, or --device cpu."
        )
    if index is not None:
        raise ConfigError(
            f"The device '{device}' is one GPU, and each of {count} processes needs its own.",
            f"Use --device {kind}; which GPUs it takes is set by CUDA_VISIBLE_DEVICES.",
        )


def make_current(device: str) -> None:
    """Let ``device``, where it has a number, be what torch means by its kind alone."""
    place = torch.device(device)
    if place.index is not None and place.type in ("cuda", "xpu"):
        torch.get_device_module(place).set_device(place)


def synchronize(device: str) -> None:
    """Wait until ``device`` has done what it was given: only then a clock tells what that took."""
    kind = torch.device(device).type
    if kind in ("cuda", "mps", "xpu"):
        torch.get_device_module(kind).synchronize()


def choose_precision(name: str, device: str) -> Choice[str]:
    """ "fp32", "bf16" (autocast), "fp16" (autocast) or "bf16-weights" for training on ``device``.

    A GPU is asked what it computes without emulation. A CPU is timed with both: its flags were wrong in one case of
    three. So is Apple's GPU, which emulates bf16 on some generations.

    Args:
        name: one of them, used as it is; "auto"; or "auto-weights": where bf16 is chosen, the weights are bf16 too.
        device: what `choose_device` gave.
    """
    if name not in ("auto", "auto-weights"):
        return Choice(name, ASKED)
    bf16 = "bf16" if name == "auto" else "bf16-weights"
    kind = torch.device(device).type
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice(bf16, "the GPU computes it natively")
        if torch.cuda.get_device_capability(device) >= TENSOR_CORES:
            return Choice("fp16", "the GPU has no bf16; the loss is scaled so that small gradients count")
        return Choice("fp32", "the GPU would emulate bf16")
    if kind == "xpu":
        if torch.xpu.is_bf16_supported():
            return Choice(bf16, "the GPU computes it")
        return Choice("fp32", "the GPU has no bf16")
    where = "on Apple's GPU" if kind == "mps" else "on this CPU"
    ratio = bf16_speed_ratio() if kind == "cpu" else bf16_speed_ratio(device)
    if ratio >= BF16_GAIN:
        return Choice(bf16, f"{ratio:.1f} times as fast as fp32 {where}, as timed")
    return Choice("fp32", f"bf16 is {ratio:.2g} times as fast {where}, as timed")


def bf16_speed_ratio(device: str = "cpu") -> float:
    """Speed of a bf16 matrix product divided by that of an fp32 one; takes about 0.1 s. 0 where there is no bf16."""
    try:
        fp32, bf16 = (matmul_flops(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    except (RuntimeError, TypeError):  # macOS before 14
        if torch.device(device).type == "cpu":
            raise
        return 0.0
    return bf16 / fp32


def matmul_flops(dtype: torch.dtype = torch.float32, device: str = "cpu", size: int = 0) -> float:
    """Floating-point operations per second in a product of two ``size`` × ``size`` matrices, as measured now.

    Args:
        dtype: of the matrices.
        device: where they are.
        size: rows and columns; 0: large enough for the device.
    """
    size = size or (PROBE_SIZE if torch.device(device).type == "cpu" else PROBE_SIZE * 8)
    return 2 * size**3 / _product_seconds(dtype, device, size)


def _product_seconds(dtype: torch.dtype, device: str = "cpu", size: int = PROBE_SIZE) -> float:
    # The best of several: another process may hold the core for some of them.
    left = torch.full((size, size), 0.5, dtype=dtype, device=device)
    right = torch.full((size, size), 0.25, dtype=dtype, device=device)

    def multiply() -> None:
        torch.mm(left, right)
        synchronize(device)

    multiply()
    best, end = float("inf"), time.perf_counter() + PROBE_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return best


def choose_threads(setting: int | str, busy_cores: float | None = None) -> Choice[int]:
    """CPU threads for torch. Two threads become tens of times slower where another process uses one of two cores.

    Args:
        setting: a number, or "auto": OMP_NUM_THREADS where set, else all cores that other processes leave free.
        busy_cores: cores that other processes use; measured for 0.2 s where None.
    """
    if isinstance(setting, int):
        return Choice(setting, ASKED)
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return Choice(max(1, int(os.environ["OMP_NUM_THREADS"])), "set by OMP_NUM_THREADS")
    cores = available_cores()
    if busy_cores is None:
        busy_cores = _busy_cores()
    if cores > 1 and busy_cores > BUSY_SHARE:
        free = max(1, int(cores - busy_cores))
        return Choice(free, f"other processes use {busy_cores:.1f} of {cores} cores")
    return Choice(cores, "all cores are free")


def _busy_cores() -> float:
    import psutil

    cores: int = psutil.cpu_count() or 1
    share: float = psutil.cpu_percent(interval=0.2) / 100
    return share * cores
