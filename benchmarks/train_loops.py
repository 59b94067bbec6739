"""Holds the training loops that `benchmarks/train.py` times against each other. Each runs in its own process.

`python benchmarks/train_loops.py PART NAME FOLDER STEPS PIPE`: started by it, on the rows that it has prepared.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from turns import Loop

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed, load_config
from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.model.build import scratch_model
from pretrain_cli.model.sizes import named_shape
from pretrain_cli.progress import Progress
from pretrain_cli.storage import read_lines
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.training.choices.recipe import BASE_BATCH_TOKENS, Rates
from pretrain_cli.training.rows.order import RowOrder
from pretrain_cli.training.run import train
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.step.optimizers import make_optimizer

PARTS = {
    "loops": ("plain Trainer", "bare", "bare chunked", "bare chunked bf16", "ptk fp32", "ptk auto"),
    "recipe": ("bare fp32", "ptk fp32", "bare bf16", "ptk bf16"),
    "tinysolar": ("script", "ptk as it is", "ptk auto"),
    "batch": ("script", "ptk as it is", "ptk, its batch", "ptk, its batch, compiled"),
    "masking": ("fp32, seen across", "fp32, apart", "bf16, seen across", "bf16, apart"),
}  # fmt: skip
"""The names that each part knows."""


def commands(part: str, folder: Path, steps: int) -> dict[str, list[str]]:
    """What starts each loop of ``part`` on what lies in ``folder``."""
    return {name: [sys.executable, __file__, part, name, str(folder), str(steps)] for name in PARTS[part]}


def main(part: str, name: str, folder: str, steps: str, pipe: str) -> None:
    loop = Loop(pipe)
    loop.start()
    parts = {"loops": same_model, "recipe": own_recipe, "tinysolar": published_script, "batch": own_batch}
    run = {**parts, "masking": documents}[part]
    loop.end(run(name, Path(folder), int(steps), loop))


class Listener(Progress):
    """Passes the turn on after each step of ptk."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def advance(self, completed: float, **facts: float | str) -> None:
        self.loop.step()


class Turn(TrainerCallback):
    """The same for Trainer."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        self.loop.step()


def ptk(artifacts: Artifacts, loop: Loop, config: Config, **values: Any) -> list[float]:
    """`ptk train`; its losses."""
    quiet = {"tracking__report_to": "none", "train__save_steps": 0, "train__eval_steps": 0, "train__logging_steps": 1}
    # The others use all cores in their turns: to measure how busy they are would mislead.
    quiet |= {"train__threads": torch.get_num_threads()}
    result = train(changed(config, **quiet, **values), artifacts, Listener(loop))
    return [line["loss"] for line in read_lines(artifacts.run(result.run).metrics)]


def bare_loop(model: Any, optimizer: Any, batches: list[dict[str, torch.Tensor]], bf16: bool, loop: Loop) -> None:
    """Forward, backward, clip, step: what nanoGPT's loop does."""
    model.train()
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loop.step()


def plain_trainer(model: Any, rows: Any, loop: Loop, **arguments: Any) -> list[float]:
    """Trainer as run_clm starts it; the losses that it logs."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
            train_sampling_strategy="sequential", **arguments,
        )  # fmt: skip
        trainer = Trainer(model=model, args=settings, train_dataset=rows, callbacks=[Turn(loop)])
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ordered(artifacts: Artifacts, micro_batch: int, steps: int) -> list[list[int]]:
    """The rows of each step, as ptk takes them."""
    order = RowOrder(len(PackedDataset(artifacts.train_rows, False)), micro_batch, steps, seed=0)
    return [order.micro(step, 0) for step in range(steps)]


def batches_of(artifacts: Artifacts, micro_batch: int, steps: int, masked: bool) -> list[dict[str, torch.Tensor]]:
    rows = PackedDataset(artifacts.train_rows, masked)
    return [rows.__getitems__(indices) for indices in ordered(artifacts, micro_batch, steps)]


def flat_rows(artifacts: Artifacts, micro_batch: int, steps: int) -> list[dict[str, torch.Tensor]]:
    """The same rows one by one, for Trainer's own collator."""
    rows = PackedDataset(artifacts.train_rows, False)
    return [rows[index] for indices in ordered(artifacts, micro_batch, steps) for index in indices]


def same_model(name: str, folder: Path, steps: int, loop: Loop) -> Any:
    """The model in ``folder/base`` in 8 rows a step: plain Trainer, bare loops, ptk."""
    artifacts, base = Artifacts(folder / "artifacts"), folder / "base"
    if name.startswith("ptk"):
        return ptk(
            artifacts, loop, Config(), model__base=str(base), train__max_steps=steps, train__micro_batch=8,
            train__gradient_accumulation=1, train__optimizer="adamw", train__mask_documents=False,
            train__learning_rate=5e-5, train__precision=name.removeprefix("ptk "),
        )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base)
    if name == "plain Trainer":
        rows = flat_rows(artifacts, 8, steps)
        return plain_trainer(model, rows, loop, per_device_train_batch_size=8, max_steps=steps)
    if "chunked" in name:
        attach_loss(model, True, 0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    return bare_loop(model, optimizer, batches_of(artifacts, 8, steps, False), name.endswith("bf16"), loop)


def own_recipe(name: str, folder: Path, steps: int, loop: Loop) -> Any:
    """ptk's recipe from scratch: size tiny, Muon, loss in chunks, 8 rows of 256, vocabulary 4 096, documents apart."""
    artifacts, precision = Artifacts(folder / "artifacts"), name.split()[-1]
    if name.startswith("ptk"):
        return ptk(
            artifacts, loop, Config(), model__size="tiny", train__max_steps=steps, train__batch_tokens=8 * 256,
            train__precision=precision, train__mask_documents=True, train__compile=False,
        )  # fmt: skip
    tokenizer = read_tokenizer(artifacts.tokenizer)
    model = scratch_model(named_shape("tiny"), "qwen3", tokenizer.vocab_size, 256, tokenizer)
    attach_loss(model, True, 0.0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    optimizer = make_optimizer(model, "muon", TrainConfig(), Rates(0.01, 0.04, 0.01, 0.9), dtype)
    return bare_loop(model, optimizer, batches_of(artifacts, 8, steps, True), precision == "bf16", loop)


def published_script(name: str, folder: Path, steps: int, loop: Loop) -> Any:
    """TinySolar's own steps, 2 rows of 32: as the script has them, and by the preset."""
    artifacts, base = Artifacts(folder / "artifacts"), folder / "base"
    if name == "script":
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        return plain_trainer(
            model, flat_rows(artifacts, 2, steps), loop, bf16=True, gradient_checkpointing=True, max_steps=steps,
            per_device_train_batch_size=2, learning_rate=5e-5, warmup_steps=10, lr_scheduler_type="linear",
            logging_steps=1, optim="adamw_torch",
        )  # fmt: skip
    preset = load_config(preset="tinysolar", environ={}).config
    values: dict[str, Any] = {"train__precision": "auto"} if name == "ptk auto" else {}
    return ptk(artifacts, loop, preset, model__base=str(base), train__max_steps=steps, **values)


def own_batch(name: str, folder: Path, steps: int, loop: Loop) -> Any:
    """The script's model in the script's batch, and in the one that auto takes for a text of some length."""
    if name in PARTS["tinysolar"]:
        return published_script(name, folder, steps, loop)
    return ptk(
        Artifacts(folder / "artifacts"), loop, load_config(preset="tinysolar", environ={}).config,
        model__base=str(folder / "base"), train__max_steps=steps, train__micro_batch="auto",
        train__gradient_accumulation="auto", train__batch_tokens=BASE_BATCH_TOKENS,
        train__compile=name.endswith("compiled"),
    )  # fmt: skip


def documents(name: str, folder: Path, steps: int, loop: Loop) -> Any:
    """ptk's recipe from scratch on rows in which documents see each other, or don't."""
    return ptk(
        Artifacts(folder / "artifacts"), loop, Config(), model__size="tiny", train__max_steps=steps,
        train__batch_tokens=2048, train__precision=name[:4], train__mask_documents=name.endswith("apart"),
        train__compile=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
