"""Says what a planned training would run on: this machine, or accelerators that aren't here."""

from __future__ import annotations

import psutil
import torch

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.memory import available_bytes
from pretrain_cli.model import devices
from pretrain_cli.model.devices import Choice
from pretrain_cli.planning.accelerators import TargetMachine
from pretrain_cli.training.choices.kernels import ADA, AMPERE, Hardware, hardware_of
from pretrain_cli.training.choices.machine import Machine

USABLE = 0.95
"""Share of a device's memory that training can fill before fragments are in the way."""


class Place:
    """What a training would run on.

    Args:
        train: what is asked for.
        target: accelerators that aren't here; None: this machine, whose threads are set as training would set them.

    Attributes:
        device, precision: as training would choose them.
        on_cpu: whether the device is the CPU.
        processes: that would train together.
        threads: of the CPU, for all of them.
        choices: name → value and reason.
        available: bytes that training may fill on one device.
        peak_flops: operations a second of a matrix product, all processes together.
    """

    def __init__(self, train: TrainConfig, target: TargetMachine | None) -> None:
        self._train, self.target = train, target
        self.device = target.accelerator.kind if target else devices.choose_device(train.device).value
        self.on_cpu = torch.device(self.device).type == "cpu"
        self.processes = target.count if target else self._processes()
        precision = self._precision()
        self.precision, self.threads = precision.value, 1
        self.choices = {"precision": f"{precision.value}: {precision.reason}"}
        if target is None and self.on_cpu:
            threads = devices.choose_threads(train.threads)
            self.threads = threads.value
            self.choices["threads"] = f"{threads.value}: {threads.reason}"
            torch.set_num_threads(max(1, self.threads // self.processes))
        self.available = self._available()
        self.peak_flops = self._peak_flops()

    @property
    def machine(self) -> Machine:
        """What one process computes on."""
        return Machine(self.device, self.precision)

    @property
    def hardware(self) -> Hardware:
        """The facts that kernels are chosen by; elsewhere with the extra `gpu` installed."""
        if self.target is None:
            return hardware_of(self.device)
        entry = self.target.accelerator
        capability = ADA if entry.fp8 else AMPERE if entry.bf16 else (7, 0)
        return Hardware(entry.kind, capability, liger=True, varlen=True)

    def _processes(self) -> int:
        wanted = self._train.processes
        if isinstance(wanted, int):
            devices.check_processes(self.device, wanted)
            return wanted
        return max(1, devices.device_count(self.device)) if torch.device(self.device).index is None else 1

    def _precision(self) -> Choice[str]:
        wanted = self._train.precision
        if self.target is None or not wanted.startswith("auto"):
            return devices.choose_precision(wanted, self.device)
        if not self.target.accelerator.bf16:
            on_cuda = self.target.accelerator.kind == "cuda"
            return Choice("fp16", "the GPU has no bf16") if on_cuda else Choice("fp32", "bf16 is no faster there")
        return Choice("bf16" if wanted == "auto" else "bf16-weights", "the GPU computes it natively")

    def _available(self) -> float:
        if self.target:
            return USABLE * self.target.accelerator.memory_bytes
        if self.on_cpu:
            # What this process holds is free again when training starts in its place.
            return float(available_bytes() + psutil.Process().memory_info().rss) / self.processes
        return USABLE * self.machine.free_bytes

    def _peak_flops(self) -> float:
        if self.target:
            return self.target.accelerator.rate(self.precision) * self.target.count
        return devices.matmul_flops(self.machine.matmul_dtype, self.device) * self.processes
