"""Names machines of accelerators that aren't here, and says what they reach and take to exchange bytes."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from pretrain_cli.errors import UsageError
from pretrain_cli.model.accelerators import ACCELERATORS, Accelerator

GPUS_PER_NODE = 8
MFU_SOURCES = (
    "38 to 43% on 8,192 to 16,384 H100 (Llama 3, arXiv 2407.21783, table 4), 46% on 6,144 TPU v4 "
    "(PaLM, arXiv 2204.02311, table 3); small models reach less"
)


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


MOST_ACCELERATORS = 100_000


def parse_machine(text: str) -> TargetMachine:
    """The machine called "h100", "h100x8" or "8xh100".

    Raises:
        UsageError: no accelerator of that name is known, or none or over `MOST_ACCELERATORS` are asked for.
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
    count = (match[1] or match[4]) if match else "1"
    if len(count) > len(str(MOST_ACCELERATORS)) or not 1 <= int(count) <= MOST_ACCELERATORS:
        raise UsageError(
            f"A machine of {count:.20} accelerators can't be planned.",
            f"Plan 1 to {MOST_ACCELERATORS:,}, such as {name}x8.",
        )
    return TargetMachine(ACCELERATORS[name], int(count))


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
