"""Prints what ptk would choose on machines that aren't here, for bases from 135M to 70B weights.

    python benchmarks/golden_plans.py            the table
    python benchmarks/golden_plans.py --write    put it into docs/concepts/golden-plans.md

Each cell is a real plan, by the function that training and `ptk plan` use; nothing is measured. Rows of 4,096 tokens,
documents kept apart, a batch of 64 rows, 100M tokens of text; eight GPUs shard the model. A person reads the table when
the arithmetic changes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import PtkError
from pretrain_cli.planning.run import plan_training

PAGE = Path(__file__).resolve().parent.parent / "docs" / "concepts" / "golden-plans.md"
BEGIN, END = "<!-- What benchmarks/golden_plans.py prints. -->", "<!-- The end of what it prints. -->"
LENGTH, BATCH_ROWS = 4096, 64
MACHINES = {
    "T4 16 GB": "t4",
    "RTX 3060 12 GB": "rtx3060",
    "RTX 4090 24 GB": "rtx4090",
    "A100 80 GB": "a100",
    "8 × H100, sharded": "h100x8",
    "M3 Max 64 GB": "m3max",
}
# hidden, intermediate, layers, heads, key-value heads, vocabulary, tied: SmolLM2-135M, Llama 3.2 1B and 3B, Llama 2 7B
# and 13B, Llama 3 70B, from their published configs.
BASES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "135M": (576, 1536, 30, 9, 3, 49_152, True),
    "1B": (2048, 8192, 16, 32, 8, 128_256, True),
    "3B": (3072, 8192, 28, 24, 8, 128_256, True),
    "7B": (4096, 11_008, 32, 32, 32, 32_000, False),
    "13B": (5120, 13_824, 40, 40, 40, 32_000, False),
    "70B": (8192, 28_672, 80, 64, 8, 128_256, False),
}


def write_text(folder: Path) -> None:
    """A text of the size of 100M tokens; a plan reads its beginning only."""
    (folder / "text.txt").write_text("A text that stands for a larger one.\n" * 100)
    os.truncate(folder / "text.txt", 430_000_000)


def write_base(folder: Path, name: str) -> Path:
    """A folder with the config of a base, and no weights: a plan needs none."""
    hidden, mlp, layers, heads, shared, vocabulary, tied = BASES[name]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=shared, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=8192,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder / name)
    return folder / name


def plan(folder: Path, base: str, machine: str, method: str = "full") -> dict[str, Any]:
    """What is chosen for ``base`` on ``machine``: rows at once, checkpointing, bytes, and whether it fits."""
    config = changed(
        Config(),
        model__base=str(folder / base),
        data__inputs=[str(folder / "text.txt")],
        data__sequence_length=LENGTH,
        data__packing="best-fit",
        train__batch_tokens=BATCH_ROWS * LENGTH,
        train__method=method,
        train__shard_model=MACHINES[machine].endswith("x8"),
        train__ensemble=0,
    )
    try:
        found = plan_training(config, Artifacts(folder / "artifacts"), machine=MACHINES[machine], measure_seconds=0)
    except PtkError as error:
        return {"refused": error.message}
    return {
        "precision": found.precision,
        "rows": found.micro_batch,
        "accumulation": found.accumulation,
        "checkpointing": any("gradient checkpointing" in name for name in found.choices),
        "held": found.memory.peak,
        "state": found.memory.weights + found.memory.gradients + found.memory.optimizer,
        "free": found.available_bytes,
        "fits": found.fits,
        "fixes": found.fixes,
        "attention": found.choices.get("attention", ""),
    }


def cell(found: dict[str, Any]) -> str:
    """A plan in a few words."""
    if "refused" in found:
        return str(found["refused"])
    if not found["fits"]:
        return f"**refused**: {found['held'] / 1e9:.0f} GB; {found['fixes'][0]}"
    again = ", checkpointing" if found["checkpointing"] else ""
    return f"{found['rows']} × {found['accumulation']}, {found['precision']}{again}: {found['held'] / 1e9:.1f} GB"


def make(folder: Path) -> str:
    """The table, as Markdown."""
    write_text(folder)
    for name in BASES:
        write_base(folder, name)
    lines = [f"| machine | {' | '.join(BASES)} |", f"| --- |{' --- |' * len(BASES)}"]
    for machine in MACHINES:
        lines.append(f"| {machine} | {' | '.join(cell(plan(folder, base, machine)) for base in BASES)} |")
    return "\n".join(lines)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        table = make(Path(name))
    print(table)
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
