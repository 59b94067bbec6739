"""Chooses what a run computes on: device, threads and precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.memory import available_bytes, peak_resident_bytes
from pretrain_cli.model import devices
from pretrain_cli.model.accelerators import Accelerator, sheet_of
from pretrain_cli.model.devices import Choice
from pretrain_cli.run_record import RunRecord
from pretrain_cli.training.choices.method import Method
from pretrain_cli.training.processes.agreement import same, world_size


@dataclass(frozen=True)
class Machine:
    """What one process of the run computes on."""

    device: str
    precision: str

    @property
    def threads(self) -> int:
        """CPU threads that torch uses."""
        return torch.get_num_threads()

    @property
    def on_cpu(self) -> bool:
        return torch.device(self.device).type == "cpu"

    @property
    def weights_dtype(self) -> torch.dtype:
        """What the weights are held in."""
        return torch.bfloat16 if self.precision == "bf16-weights" else torch.float32

    @property
    def matmul_dtype(self) -> torch.dtype:
        """What matrices are multiplied in."""
        if self.precision == "fp16":
            return torch.float16
        return torch.bfloat16 if self.precision.startswith("bf16") else torch.float32

    @property
    def newton_schulz_dtype(self) -> torch.dtype:
        """What Muon's iteration is computed in: fp16's range is too small for it."""
        return torch.float32 if self.precision == "fp16" else self.matmul_dtype

    def held_dtype(self, method: Method) -> torch.dtype:
        """What a model's weights are held in; those of a base that doesn't move, in what they are multiplied in."""
        if not method.adapter:
            return self.weights_dtype
        return self.matmul_dtype

    @property
    def free_bytes(self) -> float:
        """Memory that one process may take."""
        place = torch.device(self.device)
        if place.type in ("cuda", "xpu"):
            return float(torch.get_device_module(place).mem_get_info(place)[0])
        return available_bytes() / (world_size() if self.on_cpu else 1)

    @property
    def peak_bytes(self) -> int:
        """Memory that this process took at most."""
        place = torch.device(self.device)
        if place.type in ("cuda", "xpu"):
            return int(torch.get_device_module(place).max_memory_allocated(place))
        return peak_resident_bytes()

    @property
    def sheet(self) -> Accelerator | None:
        """The data sheet of the GPU that it computes on; None where it isn't known."""
        place = torch.device(self.device)
        return sheet_of(torch.cuda.get_device_name(place)) if place.type == "cuda" else None

    def sheet_flops(self) -> float:
        """Operations a second of all processes together by the data sheet; 0 where it isn't known."""
        sheet = self.sheet
        return sheet.rate(self.precision) * world_size() if sheet is not None else 0.0

    def matmul_flops(self) -> float:
        """Measured operations a second of all processes together, in the precision of the forward pass."""
        return devices.matmul_flops(self.matmul_dtype, self.device) * world_size()


def choose_machine(train: TrainConfig, earlier: RunRecord | None, tell: Callable[[str, Choice[Any]], None]) -> Machine:
    """Device, threads and precision.

    Sets torch's threads, and how this process keeps memory.

    Args:
        train: what is asked for.
        earlier: run.json of the run that is resumed.
        tell: receives each choice with its name.
    """
    device = devices.choose_device(train.device)
    devices.check_processes(device.value, world_size())
    devices.make_current(device.value)
    tell("device", device)
    if torch.device(device.value).type == "cpu":
        threads = _threads(train, earlier)
        tell("threads", threads)
        torch.set_num_threads(threads.value)
        keep_freed_memory()
    precision = same(lambda: devices.choose_precision(train.precision, device.value))
    tell("precision", precision)
    return Machine(device.value, precision.value)


def _threads(train: TrainConfig, earlier: RunRecord | None) -> Choice[int]:
    """As before a resume where nothing else is asked: sums over another number of threads round differently."""
    before = earlier.threads if earlier is not None and earlier.world_size == world_size() else None
    if train.threads == "auto" and before is not None and before <= devices.available_cores():
        return Choice(before, "as before the resume")
    # Several processes always look busy to each other.
    return devices.choose_threads(train.threads, busy_cores=0.0 if world_size() > 1 else None)
