"""Estimates a step on many accelerators: computing, and waiting for what can't overlap with it."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_cli.planning.accelerators import TargetMachine, all_reduce_seconds

BACKWARD_SHARE = 2 / 3
"""Share of a step's arithmetic in the backward pass, behind which gradients travel (Li et al., arXiv 2006.15704)."""
HOP_SECONDS = 10e-6
"""Latency of one hop between nodes; a tree takes two for each doubling of the nodes."""
STRAGGLERS = 0.01
"""Time lost with each doubling of the nodes to what no data sheet shows: slow devices, clocks, other traffic. Llama 3
lost 5 % of its rate from 8 192 to 16 384 GPUs at a fixed batch (arXiv 2407.21783, table 4); small jobs lose less."""
LAST_BUCKET_BYTES = 25e6
"""The last gradients are ready when nothing is left to compute: DDP's bucket size."""


@dataclass(frozen=True)
class Step:
    """Seconds of one optimizer step: computing, exchanging gradients, and the part of that which isn't hidden."""

    compute: float
    exchange: float
    exposed: float

    @property
    def seconds(self) -> float:
        return self.compute + self.exposed

    @property
    def efficiency(self) -> float:
        """Share of the time spent computing."""
        return self.compute / self.seconds


def step_on(
    machine: TargetMachine,
    flops: float,
    mfu: float,
    parameters: float,
    gradient_bytes: float = 4.0,
    precision: str = "bf16",
) -> Step:
    """One step of ``flops`` operations on all of ``machine``.

    Args:
        machine: accelerators and their links.
        flops: of the whole step.
        mfu: share of the data sheet's rate that one accelerator alone reaches.
        parameters: whose gradients are summed.
        gradient_bytes: of one gradient as it travels.
        precision: of the matrix products.
    """
    compute = flops / (machine.accelerator.rate(precision) * machine.count * mfu)
    if machine.count == 1:
        return Step(compute, 0.0, 0.0)
    exchange = all_reduce_seconds(gradient_bytes * parameters, machine)
    doublings = (machine.nodes - 1).bit_length()
    hops = 2 * doublings * HOP_SECONDS
    last = all_reduce_seconds(min(LAST_BUCKET_BYTES, gradient_bytes * parameters), machine) + hops
    waiting = max(last, exchange - BACKWARD_SHARE * compute) + STRAGGLERS * doublings * compute
    return Step(compute, exchange, waiting)
