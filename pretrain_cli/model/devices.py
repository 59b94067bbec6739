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
    """The device to compute on, as torch names it: "cpu", "cuda", "cuda:1", "mps".

    Args:
        name: a device; "gpu", whichever there is; or "auto": CUDA before MPS before the CPU.

    Raises:
        ConfigError: no such device, or it isn't there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return Choice("cuda", f"found {torch.cuda.get_device_name()}")
        if torch.backends.mps.is_available():
            return Choice("mps", "found Apple's GPU")
        return Choice("cpu", "no GPU that torch can use")
    if name == "gpu":
        name = "mps" if torch.backends.mps.is_available() else "cuda"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device '{name}'.", "Devices: auto, cpu, cuda, cuda:1, mps.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda is not None
        why = "no CUDA driver or GPU answers" if built else "this torch was built without CUDA"
        raise ConfigError(f"The device '{name}' can't be used: {why}.", "Use --device auto, or see: ptk doctor")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = count_of(torch.cuda.device_count(), "GPU")
        raise ConfigError(f"There is no device '{name}': this machine has {found}.", "Use --device auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("The device 'mps' isn't available on this machine.", "Use --device auto, or see: ptk doctor")
    return Choice(name, ASKED)


def choose_precision(name: str, device: str) -> Choice[str]:
    """ "fp32", "bf16" (autocast), "fp16" (autocast) or "bf16-weights" for training on ``device``.

    A GPU is asked what it computes without emulation. A CPU is timed with both: its flags were wrong in one case of
    three.

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
        return Choice("fp32", "the GPU would emulate bf16")
    if kind == "mps":
        return Choice("fp32", "Apple's GPUs emulate bf16 on some generations")
    ratio = bf16_speed_ratio()
    if ratio >= BF16_GAIN:
        return Choice(bf16, f"{ratio:.1f} times as fast as fp32 on this CPU, as timed")
    return Choice("fp32", f"bf16 is {ratio:.2g} times as fast on this CPU, as timed")


def bf16_speed_ratio() -> float:
    """Speed of a bf16 matrix product divided by that of an fp32 one on this CPU; takes about 0.1 s."""
    times = {dtype: _product_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return times[torch.float32] / times[torch.bfloat16]


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
        if left.is_cuda:
            torch.cuda.synchronize()

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
