"""Lists the accelerators that ptk knows without having one, with their rates."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from pretrain_cli.errors import UsageError

GPUS_PER_NODE = 8
MFU_SOURCES = (
    "38 to 43% on 8,192 to 16,384 H100 (Llama 3, arXiv 2407.21783, table 4), 46% on 6,144 TPU v4 "
    "(PaLM, arXiv 2204.02311, table 3); small models reach less"
)


@dataclass(frozen=True)
class Accelerator:
    """One device, by its maker's data sheet.

    Attributes:
        name: as typed.
        flops: dense bf16 (fp16 where it has no bf16) products a second, without sparsity, summed in fp32.
        fp32_flops: the same in plain fp32; TF32 is another precision, which torch takes only where asked.
        memory_bytes: of the device.
        watts: board power at full load.
        link_bytes: a second to the others of its node, one way.
        network_bytes: a second to another node, for one device, one way.
        bf16, fp8: whether the hardware computes in it.
    """

    name: str
    flops: float
    fp32_flops: float
    memory_bytes: float
    watts: float
    link_bytes: float
    network_bytes: float = 50e9
    bf16: bool = True
    fp8: bool = False

    def rate(self, precision: str) -> float:
        """Operations a second of matrix products in ``precision``, as ptk names them."""
        return self.fp32_flops if precision == "fp32" else self.flops


ACCELERATORS = {
    entry.name: entry
    for entry in (
        # NVIDIA's data sheets; NVLink counted one way (half of the sheet's total), PCIe 4 ×16 as 25 GB/s in practice.
        Accelerator("b200", 2250e12, 75e12, 180e9, 1000, 900e9, fp8=True),
        Accelerator("h200", 989e12, 67e12, 141e9, 700, 450e9, fp8=True),
        Accelerator("h100", 989e12, 67e12, 80e9, 700, 450e9, fp8=True),
        Accelerator("h100-pcie", 756e12, 51e12, 80e9, 350, 50e9, 25e9, fp8=True),
        Accelerator("a100", 312e12, 19.5e12, 80e9, 400, 300e9, 25e9),
        Accelerator("a100-40", 312e12, 19.5e12, 40e9, 400, 300e9, 25e9),
        Accelerator("l40s", 362e12, 91.6e12, 48e9, 350, 25e9, 12.5e9, fp8=True),
        Accelerator("l4", 121e12, 30.3e12, 24e9, 72, 25e9, 12.5e9, fp8=True),
        Accelerator("a10", 125e12, 31.2e12, 24e9, 150, 25e9, 12.5e9),
        Accelerator("v100", 125e12, 15.7e12, 32e9, 300, 150e9, 12.5e9, bf16=False),
        Accelerator("t4", 65e12, 8.1e12, 16e9, 70, 12.5e9, 6e9, bf16=False),
        Accelerator("rtx5090", 209e12, 104.8e12, 32e9, 575, 50e9, 12.5e9, fp8=True),
        Accelerator("rtx4090", 165e12, 82.6e12, 24e9, 450, 25e9, 12.5e9, fp8=True),
        Accelerator("rtx3090", 71e12, 35.6e12, 24e9, 350, 25e9, 12.5e9),
        Accelerator("mi300x", 1307e12, 163.4e12, 192e9, 750, 448e9, fp8=True),
    )
}


@dataclass(frozen=True)
class TargetMachine:
    """``count`` accelerators of one kind, eight to a node."""

    accelerator: Accelerator
    count: int

    @property
    def name(self) -> str:
        return f"{self.accelerator.name}x{self.count}" if self.count > 1 else self.accelerator.name

    @property
    def nodes(self) -> int:
        return -(-self.count // GPUS_PER_NODE)


def parse_machine(text: str) -> TargetMachine:
    """The machine called "h100", "h100x8" or "8xh100".

    Raises:
        UsageError: no accelerator of that name is known.
    """
    named = text.strip().lower()
    # The x of rtx4090 multiplies nothing: a whole name comes before a name with a number.
    match = None if named in ACCELERATORS else re.fullmatch(r"(?:(\d+)x(.+)|(.+)x(\d+))", named)
    name = (match[2] or match[3]) if match else named
    if name not in ACCELERATORS:
        name = named if "rtx" in named else name
        near = difflib.get_close_matches(name, ACCELERATORS, n=1)
        known = ", ".join(sorted(ACCELERATORS))
        raise UsageError(
            f"No accelerator '{name}' is known.",
            (f"Did you mean {near[0]}? " if near else "") + f"Known: {known}; with a number: h100x8.",
        )
    return TargetMachine(ACCELERATORS[name], max(1, int(match[1] or match[4])) if match else 1)


def assumed_mfu(parameters: float) -> float:
    """Share of the data sheet's FLOP/s that training reaches, by the model's size: see ``MFU_SOURCES``."""
    if parameters >= 1e9:
        return 0.40
    return 0.30 if parameters >= 1e8 else 0.15


def all_reduce_seconds(size_bytes: float, machine: TargetMachine) -> float:
    """Seconds to sum ``size_bytes`` over all devices: inside the nodes over their links, then between nodes.

    A ring moves 2·(n-1)/n times the bytes (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002); between nodes
    each device sends only its own eighth.
    """
    inside = min(machine.count, GPUS_PER_NODE)
    seconds = 2 * (inside - 1) / inside * size_bytes / machine.accelerator.link_bytes
    if machine.nodes > 1:
        share = size_bytes / inside
        seconds += 2 * (machine.nodes - 1) / machine.nodes * share / machine.accelerator.network_bytes
    return seconds
