"""Says what a machine draws while it trains, and where the figure is from."""

from __future__ import annotations

from pretrain_cli.model import devices
from pretrain_cli.planning.accelerators import TargetMachine

CPU_WATTS_PER_CORE = 5.0
"""Between a laptop's 28 W for 8 cores and a server's 360 W for 96 (their data sheets)."""
HOST_SHARE = 0.4
"""What a node's CPUs, memory, network and fans draw in addition to its accelerators: a DGX H100 takes at most 10.2 kW
for 5.6 kW of GPUs, on average less."""
GPU_WATTS = 400.0


def machine_watts(target: TargetMachine | None, on_cpu: bool, processes: int) -> tuple[float, str]:
    """(watts of the whole machine, where they are from).

    Args:
        target: accelerators that aren't here; None: this machine.
        on_cpu: whether this machine trains on its CPU.
        processes: that train, each on a GPU of its own where there are GPUs.
    """
    if target is not None:
        watts = target.accelerator.watts
        told = f"the boards' {watts:.0f} W each, and {HOST_SHARE:.0%} for the machine around"
        return watts * target.count * (1 + HOST_SHARE), told
    if on_cpu:
        return CPU_WATTS_PER_CORE * devices.available_cores(), f"assumed, {CPU_WATTS_PER_CORE:.0f} W a core"
    return GPU_WATTS * processes, f"assumed, {GPU_WATTS:.0f} W a GPU"
