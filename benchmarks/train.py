"""How fast is training, and how much memory does it take?

`python benchmarks/train.py loops|recipe|tinysolar TEXT_FILE` or `… memory`.
Loops that are compared take turns in one process, step by step, and medians are printed: other work on the machine
then meets all of them.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from turns import Turns

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed, load_config
from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.data.batches import PackedDataset
from pretrain_cli.data.prepare import prepare
from pretrain_cli.memory import peak_resident_bytes
from pretrain_cli.model.build import scratch_model
from pretrain_cli.model.devices import matmul_flops
from pretrain_cli.model.sizes import named_shape
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.training.loss import attach_loss
from pretrain_cli.training.optimizers import make_optimizer
from pretrain_cli.training.order import RowOrder
from pretrain_cli.training.recipe import Rates
from pretrain_cli.training.record import read_lines
from pretrain_cli.training.run import train

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
    print(f"flags: {' '.join(flags())}; fp32 matmul peak {peak_flops() / 1e9:.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        {"loops": loops, "recipe": recipe, "tinysolar": tinysolar, "memory": memory}[what](Path(folder), *arguments)


def flags() -> list[str]:
    """What the CPU says of itself, of the flags that matter here."""
    info = Path("/proc/cpuinfo")
    words = info.read_text().split() if info.is_file() else []
    return sorted({word for word in words if word in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")})


def peak_flops() -> float:
    return max(matmul_flops(torch.float32, "cpu", 2048) for _ in range(3))


# The loops


class Listener(Progress):
    """Passes the turn on after each step of ptk."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self.turn = turn

    def advance(self, completed: float, **facts: float | str) -> None:
        self.turn()


class Turn(TrainerCallback):
    """The same for Trainer."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self.turn = turn

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        self.turn()


def bare_loop(model: Any, optimizer: Any, batches: list[dict[str, torch.Tensor]], turn: Callable[[], None]) -> None:
    """Forward, backward, clip, step: what nanoGPT's loop does."""
    model.train()
    for batch in batches:
        model(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        turn()


def plain_trainer(model: Any, rows: Any, turn: Callable[[], None], **arguments: Any) -> list[float]:
    """Trainer as run_clm starts it; the losses that it logs."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", **arguments
        )
        trainer = Trainer(model=model, args=settings, train_dataset=rows, callbacks=[Turn(turn)])
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ordered(artifacts: Artifacts, micro_batch: int, steps: int, seed: int = 0) -> list[list[int]]:
    """The rows of each step, as ptk takes them."""
    order = RowOrder(len(PackedDataset(artifacts.train_rows, False)), micro_batch, steps, seed)
    return [order.micro(step, 0) for step in range(steps)]


def prepared(folder: Path, text: str, **values: Any) -> Artifacts:
    artifacts = Artifacts(folder / "artifacts")
    prepare(changed(Config(), data__inputs=[text], **values), artifacts)
    return artifacts


def base_model(folder: Path, artifacts: Artifacts, shape: dict[str, int]) -> Path:
    """A Llama of ``shape`` with random weights, with the prepared tokenizer: what --base opens."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder / "base")
    for file in artifacts.tokenizer.iterdir():
        if file.is_file():
            (folder / "base" / file.name).write_bytes(file.read_bytes())
    return folder / "base"


# 1. The same model in four loops


def loops(folder: Path, text: str, steps: str = "9") -> None:
    """tokens/s of a bare loop, of plain Trainer and of ptk: hidden 384, 6 layers, vocabulary 32k, 8 × 512."""
    n, length = int(steps), 512
    artifacts = prepared(folder, text, data__sequence_length=length, tokenizer__vocab_size=32_000)
    base = base_model(folder, artifacts, SMALL)
    rows = PackedDataset(artifacts.train_rows, False)
    batches = [rows.__getitems__(indices) for indices in ordered(artifacts, 8, n)]
    flat = [rows[index] for indices in ordered(artifacts, 8, n) for index in indices]

    def bare(name: str, chunked: bool, bf16: bool) -> None:
        model = LlamaForCausalLM.from_pretrained(base)
        if chunked:
            attach_loss(model, True, 0.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            bare_loop(model, optimizer, batches, lambda: turns.step(name))

    def plain(name: str) -> None:
        plain_trainer(
            LlamaForCausalLM.from_pretrained(base), flat, lambda: turns.step(name),
            per_device_train_batch_size=8, max_steps=n, train_sampling_strategy="sequential",
        )  # fmt: skip

    def ptk(name: str, precision: str) -> None:
        config = changed(
            Config(), model__base=str(base), train__max_steps=n, train__micro_batch=8, train__optimizer="adamw",
            train__gradient_accumulation=1, train__precision=precision, train__mask_documents=False,
            train__learning_rate=5e-5, tracking__report_to="none",
        )  # fmt: skip
        train(config, artifacts, Listener(lambda: turns.step(name)))

    turns = Turns(
        {
            "plain Trainer": lambda: plain("plain Trainer"),
            "bare loop": lambda: bare("bare loop", False, False),
            "bare loop, loss in chunks": lambda: bare("bare loop, loss in chunks", True, False),
            "bare loop, both, bf16": lambda: bare("bare loop, both, bf16", True, True),
            "ptk fp32": lambda: ptk("ptk fp32", "fp32"),
            "ptk auto": lambda: ptk("ptk auto", "auto"),
        },
        n,
    )
    seconds = turns.run()
    weights = LlamaForCausalLM(LlamaConfig(**SMALL)).num_parameters() - SMALL["hidden_size"] * SMALL["vocab_size"]
    show_loops(seconds, 8 * length, 6.0 * weights, "plain Trainer", "bare loop")


def show_loops(seconds: dict[str, float], tokens: int, flops_per_token: float, *against: str) -> None:
    peak = peak_flops()
    columns = "".join(f"{'× ' + name:>18}" for name in against)
    print(f"{'loop':<28}{'s/step':>8}{'tokens/s':>10}{'of the peak':>13}{columns}")
    for name, value in seconds.items():
        share = tokens / value * flops_per_token / peak
        ratios = "".join(f"{seconds[other] / value:>18.3f}" for other in against)
        print(f"{name:<28}{value:>8.3f}{tokens / value:>10.0f}{share:>13.2f}{ratios}")


# 2. The default recipe from scratch


def recipe(folder: Path, text: str, steps: str = "240", size: str = "tiny") -> None:
    """What ptk adds to each step of its own recipe: Muon, loss in chunks, 8 × 256, vocabulary 4 096."""
    n, length = int(steps), 256
    artifacts = prepared(folder, text, data__sequence_length=length, tokenizer__vocab_size=4096)
    tokenizer = read_tokenizer(artifacts.tokenizer)
    shape = named_shape(size)
    rows = PackedDataset(artifacts.train_rows, True)
    batches = [rows.__getitems__(indices) for indices in ordered(artifacts, 8, n)]

    def bare(name: str, bf16: bool) -> None:
        model = scratch_model(shape, "qwen3", tokenizer.vocab_size, length, tokenizer)
        attach_loss(model, True, 0.0)
        dtype = torch.bfloat16 if bf16 else torch.float32
        optimizer = make_optimizer(model, "muon", TrainConfig(), Rates(0.01, 0.04, 0.01, 0.9), dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            bare_loop(model, optimizer, batches, lambda: turns.step(name))

    def ptk(name: str, precision: str) -> None:
        config = changed(
            Config(), model__size=size, train__max_steps=n, train__batch_tokens=8 * length, train__precision=precision,
            train__mask_documents=True, tracking__report_to="none", train__save_steps=0, train__eval_steps=0,
        )  # fmt: skip
        train(config, artifacts, Listener(lambda: turns.step(name)))

    turns = Turns(
        {
            "bare loop, fp32": lambda: bare("bare loop, fp32", False),
            "ptk, fp32": lambda: ptk("ptk, fp32", "fp32"),
            "bare loop, bf16": lambda: bare("bare loop, bf16", True),
            "ptk, bf16": lambda: ptk("ptk, bf16", "bf16"),
        },
        n,
        steps_per_turn=20,
        warmup=20,
    )
    seconds = turns.run()
    flops = shape.flops_per_token(tokenizer.vocab_size, length)
    show_loops(seconds, 8 * length, flops, "bare loop, fp32", "bare loop, bf16")


# 3. The published script


def tinysolar(folder: Path, text: str, steps: str = "30") -> None:
    """The published script's own 30 steps against preset tinysolar: 248M parameters, 2 rows of 32."""
    n = int(steps)
    preset = load_config(preset="tinysolar", environ={}).config
    prepare_config = changed(preset, data__inputs=[text], model__base="", tokenizer__vocab_size=32_000)
    artifacts = Artifacts(folder / "artifacts")
    prepare(prepare_config, artifacts)
    base = base_model(folder, artifacts, TINYSOLAR)
    rows = PackedDataset(artifacts.train_rows, False)
    flat = [rows[index] for indices in ordered(artifacts, 2, n) for index in indices]
    losses: dict[str, list[float]] = {}

    def script() -> None:
        model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        print(f"{model.num_parameters():,} parameters")
        losses["script"] = plain_trainer(
            model, flat, lambda: turns.step("script"), bf16=True, gradient_checkpointing=True, max_steps=n,
            per_device_train_batch_size=2, learning_rate=5e-5, warmup_steps=10, lr_scheduler_type="linear",
            logging_steps=1, optim="adamw_torch", train_sampling_strategy="sequential",
        )  # fmt: skip

    def ptk(name: str, precision: str) -> None:
        config = changed(
            preset, model__base=str(base), train__max_steps=n, train__save_steps=0, train__precision=precision,
            tracking__report_to="none",
        )  # fmt: skip
        result = train(config, artifacts, Listener(lambda: turns.step(name)))
        losses[name] = [line["loss"] for line in read_lines(artifacts.run(result.run).metrics)]

    turns = Turns(
        {
            "script": script,
            "ptk auto": lambda: ptk("ptk auto", "auto"),
            "ptk bf16-weights": lambda: ptk("ptk bf16-weights", "bf16-weights"),
        },
        n,
    )
    seconds = turns.run()
    print(f"{'loop':<18}{'s/step':>8}{'tokens/s':>10}{'× script':>10}{'first loss':>12}{'last':>9}{'from script':>13}")
    for name, value in seconds.items():
        apart = max(abs(one - two) / two for one, two in zip(losses[name], losses["script"], strict=True))
        print(
            f"{name:<18}{value:>8.3f}{64 / value:>10.0f}{seconds['script'] / value:>10.2f}{losses[name][0]:>12.3f}"
            f"{losses[name][-1]:>9.3f}{apart:>12.2%}"
        )
    speed = auto_batch(base, artifacts, preset)
    print(f"at the batch that auto takes: {speed:.0f} tokens/s, {speed * seconds['script'] / 64:.1f} × the script")


def auto_batch(base: Path, artifacts: Artifacts, preset: Config) -> float:
    """tokens/s of the same model with batch and rate left to ptk, as in a run over the whole text."""
    config = changed(
        preset, model__base=str(base), train__max_steps=2, train__micro_batch="auto", train__batch_tokens=4096,
        train__gradient_accumulation="auto", train__save_steps=0, tracking__report_to="none",
    )  # fmt: skip
    train(config, artifacts, run_name="auto")
    speeds = [line["tokens_per_second"] for line in read_lines(artifacts.run("auto").metrics)]
    return float(max(speeds[1:]))


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


if __name__ == "__main__":
    if sys.argv[1] == "one":
        one_step(int(sys.argv[2]), sys.argv[3])
    else:
        main(*sys.argv[1:])
