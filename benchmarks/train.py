"""Measures how fast training is, and how much memory it takes.

`python benchmarks/train.py loops|recipe|tinysolar|batch TEXT_FILE [STEPS]`, `… masking TEXT_FILE` or `… memory`.
Loops that are compared (train_loops.py) are processes of their own that take turns, step by step, and medians are
printed: other work on the machine then meets all of them.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from train_loops import commands
from transformers import LlamaConfig, LlamaForCausalLM
from turns import Turns

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed, load_config
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.memory import peak_resident_bytes
from pretrain_cli.model.devices import matmul_flops
from pretrain_cli.model.sizes import named_shape
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.training.choices.recipe import BASE_BATCH_TOKENS
from pretrain_cli.training.step.loss import attach_loss

TINYSOLAR = {
    "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 4096, "vocab_size": 32_000, "max_position_embeddings": 4096,
}  # fmt: skip
SMALL = {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6,
    "intermediate_size": 1024, "vocab_size": 32_000,
}  # fmt: skip


def main(what: str, *arguments: str) -> None:
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    peaks = f"fp32 {peak(torch.float32):.0f}, bf16 {peak(torch.bfloat16):.0f} GFLOP/s"
    print(f"flags: {' '.join(flags())}; matmul peak {peaks}")
    with tempfile.TemporaryDirectory() as folder:
        PARTS[what](Path(folder), *arguments)


def flags() -> list[str]:
    """What the CPU says of itself, of the flags that matter here."""
    info = Path("/proc/cpuinfo")
    words = info.read_text().split() if info.is_file() else []
    return sorted({word for word in words if word in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")})


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of this machine's matrix product."""
    return max(matmul_flops(dtype, "cpu", 2048) for _ in range(3)) / 1e9


def prepared(folder: Path, text: str, **values: Any) -> Artifacts:
    folder.mkdir(exist_ok=True)
    artifacts = Artifacts(folder / "artifacts")
    prepare(changed(Config(), data__inputs=[text], **values), artifacts)
    return artifacts


def base_model(folder: Path, artifacts: Artifacts, shape: dict[str, int]) -> int:
    """A Llama of ``shape`` with random weights in ``folder/base``, with the prepared tokenizer; its parameters."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(folder / "base")
    for file in artifacts.tokenizer.iterdir():
        if file.is_file():
            (folder / "base" / file.name).write_bytes(file.read_bytes())
    return int(model.num_parameters())


# 1. The same model in several loops


def loops(folder: Path, text: str, steps: str = "4") -> None:
    """tokens/s of a bare loop, of plain Trainer and of ptk: hidden 384, 6 layers, vocabulary 32k, 8 × 512."""
    artifacts = prepared(folder, text, data__sequence_length=512, tokenizer__vocab_size=32_000)
    weights = base_model(folder, artifacts, SMALL) - SMALL["hidden_size"] * SMALL["vocab_size"]
    turns = Turns(commands("loops", folder, int(steps)), int(steps), warmup=1)
    show_loops(turns.run(), 8 * 512, 6.0 * weights, "plain Trainer", "bare chunked", "bare chunked bf16")


def recipe(folder: Path, text: str, steps: str = "200") -> None:
    """What ptk adds to each step of its own recipe from scratch."""
    artifacts = prepared(folder, text, data__sequence_length=256, tokenizer__vocab_size=4096)
    turns = Turns(commands("recipe", folder, int(steps)), int(steps), steps_per_turn=20, warmup=20)
    flops = named_shape("tiny").flops_per_token(read_tokenizer(artifacts.tokenizer).vocab_size, 256)
    show_loops(turns.run(), 8 * 256, flops, "bare fp32", "bare bf16")


def show_loops(seconds: dict[str, float], tokens: int, flops_per_token: float, *against: str) -> None:
    fp32 = peak(torch.float32) * 1e9
    columns = "".join(f"{'× ' + name:>20}" for name in against)
    print(f"{'loop':<28}{'s/step':>8}{'tokens/s':>10}{'of fp32 peak':>14}{columns}")
    for name, value in seconds.items():
        share = tokens / value * flops_per_token / fp32
        ratios = "".join(f"{seconds[other] / value:>20.3f}" for other in against)
        print(f"{name:<28}{value:>8.3f}{tokens / value:>10.0f}{share:>14.2f}{ratios}")


# 2. The published script


def tinysolar(folder: Path, text: str, steps: str = "30") -> None:
    """The published script's own 30 steps against preset tinysolar: 248M parameters, 2 rows of 32."""
    artifacts, n = Artifacts(folder / "artifacts"), int(steps)
    preset = load_config(preset="tinysolar", environ={}).config
    prepare(changed(preset, data__inputs=[text], model__base="", tokenizer__vocab_size=32_000), artifacts)
    parameters = base_model(folder, artifacts, TINYSOLAR)
    turns = Turns(commands("tinysolar", folder, n), n)
    seconds, losses = turns.run(), turns.results
    print(f"{parameters:,} parameters")
    print(f"{'loop':<18}{'s/step':>8}{'tokens/s':>10}{'× script':>10}{'first loss':>12}{'last':>9}{'from script':>13}")
    for name, value in seconds.items():
        apart = max(abs(one - two) / two for one, two in zip(losses[name], losses["script"], strict=True))
        print(
            f"{name:<18}{value:>8.3f}{64 / value:>10.0f}{seconds['script'] / value:>10.2f}{losses[name][0]:>12.3f}"
            f"{losses[name][-1]:>9.3f}{apart:>12.2%}"
        )


def batch(folder: Path, text: str, steps: str = "3", *names: str) -> None:
    """The same model at the batch that auto takes, against the script's two rows of 32.

    A CPU with AVX2 only, which emulates bf16, is stood in for by the environment MKL_ENABLE_INSTRUCTIONS=AVX2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2.
    """
    artifacts = Artifacts(folder / "artifacts")
    preset = load_config(preset="tinysolar", environ={}).config
    prepare(changed(preset, data__inputs=[text], model__base="", tokenizer__vocab_size=32_000), artifacts)
    parameters = base_model(folder, artifacts, TINYSOLAR)
    loops = {name: line for name, line in commands("batch", folder, int(steps)).items() if not names or name in names}
    seconds = Turns(loops, int(steps), warmup=1).run()
    script = 64 / seconds["script"]
    speeds = {name: (BASE_BATCH_TOKENS if "its batch" in name else 64) / value for name, value in seconds.items()}
    speeds["matrix products alone"] = (
        max(peak(torch.float32), peak(torch.bfloat16)) * 1e9 / (6.0 * (parameters - 1024 * 32_000))
    )
    for name, speed in speeds.items():
        print(f"{name:<26}{speed:>8.1f} tokens/s{speed / script:>8.2f} × the script")


# 3. Documents kept apart


def masking(folder: Path, text: str, *lengths: str) -> None:
    """What it costs that documents in one row don't see each other, at rows of some lengths."""
    print(f"{'length':<8}{'rows':<20}{'s/step':>8}{'cost':>8}")
    for length in lengths or ("256", "512", "1024"):
        artifacts = prepared(
            folder / length, text, data__sequence_length=int(length), tokenizer__vocab_size=4096,
            data__document_separator="\n\n",
        )  # fmt: skip
        seconds = Turns(commands("masking", artifacts.root.parent, 16), 16, steps_per_turn=2, warmup=4).run()
        for name, value in seconds.items():
            cost = value / seconds[f"{name[:4]}, seen across"] - 1
            print(f"{length:<8}{name:<20}{value:>8.3f}{cost:>8.1%}", flush=True)


# 4. Memory


def memory(folder: Path) -> None:
    """Peak memory of a process that trains two steps of 8 × 512, logits whole and in chunks."""
    print(f"{'vocabulary':>10}{'loss':>10}{'peak MB':>10}{'s/step':>8}")
    for vocab_size in (32_000, 128_000):
        for way in ("whole", "chunks"):
            command = [sys.executable, __file__, "one", str(vocab_size), way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak, seconds = done.stdout.split()[-2:]
            print(f"{vocab_size:>10}{way:>10}{float(peak):>10.0f}{float(seconds):>8.1f}", flush=True)


def one_step(vocab_size: int, way: str) -> None:
    """Train two steps in this process; print its peak in MB and the seconds of a step."""
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, "vocab_size": vocab_size}))
    attach_loss(model, way == "chunks", 0.0)
    ids = torch.randint(0, vocab_size, (8, 512))
    began = time.perf_counter()
    for _ in range(2):
        model(input_ids=ids, labels=ids)["loss"].backward()
    peak = peak_resident_bytes() / 1e6
    print(peak, (time.perf_counter() - began) / 2)


PARTS = {"loops": loops, "recipe": recipe, "tinysolar": tinysolar, "batch": batch, "masking": masking, "memory": memory}


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--help"]):
        sys.exit(__doc__)
    if sys.argv[1] == "one":
        one_step(int(sys.argv[2]), sys.argv[3])
    else:
        main(*sys.argv[1:])
