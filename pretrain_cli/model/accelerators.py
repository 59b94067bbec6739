"""Lists the accelerators that ptk knows by their makers' data sheets."""

from __future__ import annotations

import re
from dataclasses import dataclass

BESIDE_THE_NAME = re.compile(r"nvidia|geforce|tesla|amd|instinct|oam|sxm\d?|pcie|hbm\d?e?|\d+gb")
"""Words of a driver's name of a device that aren't the chip's."""
OTHER_ON_PCIE = ("h100", "v100")
"""Chips that are slower on a PCIe card."""


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
        kind: torch's name of such devices.
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
    kind: str = "cuda"

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
        # 8 and 12 GB cards: dense, summed in fp32, as those above.
        Accelerator("rtx4070", 58.3e12, 29.1e12, 12e9, 200, 25e9, 12.5e9, fp8=True),
        Accelerator("rtx4060", 30.2e12, 15.1e12, 8e9, 115, 12.5e9, 12.5e9, fp8=True),
        Accelerator("rtx3060", 25.5e12, 12.7e12, 12e9, 170, 25e9, 12.5e9),
        # 40 GPU cores at 1.38 GHz; half precision isn't faster. Three quarters of 64 GB are the GPU's to fill.
        Accelerator("m3max", 14.1e12, 14.1e12, 48e9, 60, 10e9, 1e9, bf16=False, kind="mps"),
        Accelerator("mi300x", 1307e12, 163.4e12, 192e9, 750, 448e9, fp8=True),
    )
}


def sheet_of(device_name: str) -> Accelerator | None:
    """The data sheet of the device that its driver calls ``device_name``, as "NVIDIA A100-SXM4-80GB".

    None for one that isn't listed by its whole name: an RTX 4090 Laptop is no RTX 4090.
    """
    words = re.findall(r"[a-z0-9]+", device_name.lower())
    name = "".join(word for word in words if not BESIDE_THE_NAME.fullmatch(word))
    if "pcie" in words and name in OTHER_ON_PCIE:
        name += "-pcie"
    elif "40gb" in words:
        name += "-40"
    return ACCELERATORS.get(name)
