"""Measures what a model learns in the time given: `python benchmarks/learning.py headline TEXT`, and others.

Each line is a real `ptk prepare` and `ptk train`, in a process of its own. Held-out bits per byte are those of the rows
of the last 5 % of the text, each row alone; they compare across tokenizers and with a model of characters.

    headline   90 s, three seeds, beside a nanoGPT-shaped model of characters trained for the same time (one seed)
    minutes    the best model of 1, 2, 5 and 10 minutes, everything left to the dial
    continue   SmolLM2-135M on the text, beside Trainer with its defaults for the same time
    dial       what is chosen for texts of 50 kB to 100 MB and 1 to 60 minutes; --train tries it beside its neighbours
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HELD_OUT = 0.05


def ptk(*words: str) -> dict[str, Any]:
    """One command, as typed; its JSON."""
    done = subprocess.run([sys.executable, "-m", "pretrain_cli", *words, "--json"], stdout=subprocess.PIPE, check=False)
    result: dict[str, Any] = json.loads(done.stdout or "{}")
    if done.returncode:
        raise SystemExit(f"ptk {' '.join(words)} failed: {result}")
    return result


def prepared(text: Path, folder: Path, *words: str) -> Path:
    started = time.perf_counter()
    found = ptk("prepare", str(text), "--artifacts", str(folder), *words)
    print(f"prepared {found['bytes'] / 1e6:.1f} MB, {found['tokens']:,} tokens, tokenizer and all in "
          f"{time.perf_counter() - started:.1f} s (not counted below)")  # fmt: skip
    return folder


def trained(folder: Path, minutes: float, seed: int = 0, settings: Iterable[str] = ()) -> dict[str, Any]:
    """One run: its result, and what it recorded under "record"."""
    pairs = [word for setting in settings for word in ("--set", setting)]
    result = ptk("train", "--max-minutes", str(minutes), "--seed", str(seed), "--artifacts", str(folder), *pairs)
    result["record"] = json.loads((folder / "runs" / result["run"] / "run.json").read_text("utf-8"))
    return result


def show(name: str, runs: list[dict[str, Any]]) -> None:
    bits = sorted(run["validation_bits_per_byte"] for run in runs)
    spread = f"{bits[0]:.3f} to {bits[-1]:.3f}" if len(bits) > 1 else ""
    steps = statistics.median(run["steps"] for run in runs)
    parameters = runs[0].get("record", {}).get("parameters", 0)
    seconds = max(run["seconds"] for run in runs)
    each = statistics.median(1000 * run["seconds"] / run["steps"] for run in runs)
    figures = f"{statistics.median(bits):>8.3f}  {spread:<16}{steps:>7.0f}{each:>7.0f} ms"
    print(f"{name:<22}{figures}{parameters / 1e6:>9.2f} M{seconds:>8.0f}", flush=True)


def heading() -> None:
    print(f"{'':<22}{'bits/byte':>8}  {'over seeds':<16}{'steps':>6}{'a step':>11}{'weights':>10}{'seconds':>8}")


def headline(text: Path, spare: Path, minutes: float, seeds: int) -> None:
    folder = prepared(text, spare / "headline")
    heading()
    show("ptk train", [trained(folder, minutes, seed) for seed in range(seeds)])
    show("characters, nanoGPT", [characters(text, minutes * 60)])


def characters(text: Path, seconds: float) -> dict[str, Any]:
    """nanoGPT's README recipe for a CPU: characters, 4 layers of 128, block 64, batch 12, AdamW 1e-3, cosine, fp32."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    content = text.read_text("utf-8")
    cut = int(len(content) * (1 - HELD_OUT))
    entries = {char: index for index, char in enumerate(sorted(set(content)))}
    ids = torch.tensor([entries[char] for char in content])
    undropped = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    shape = GPT2Config(vocab_size=len(entries), n_positions=64, n_embd=128, n_layer=4, n_head=4, **undropped)
    model = GPT2LMHeadModel(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    started, steps = time.monotonic(), 0
    while (done := (time.monotonic() - started) / seconds) < 1:
        starts = torch.randint(cut - 65, (12,))
        batch = torch.stack([ids[start : start + 64] for start in starts])
        rate = 1e-4 + 0.5 * 9e-4 * (1 + math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = rate * min(1, steps / 100)
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    held_out, nats = ids[cut : cut + (len(ids) - cut) // 64 * 64].view(-1, 64), 0.0
    with torch.inference_mode():
        for batch in held_out.split(256):
            nats += float(model.eval()(batch, labels=batch).loss) * batch.shape[0] * 63
    scored_bytes = len(content[cut:].encode()) * held_out.shape[0] * 63 / (len(ids) - cut)
    bits = nats / math.log(2) / scored_bytes
    parameters = sum(weight.numel() for weight in model.parameters())
    return {"validation_bits_per_byte": bits, "steps": steps, "seconds": seconds, "record": {"parameters": parameters}}


def minutes_curve(text: Path, spare: Path, each: tuple[float, ...]) -> None:
    folder = prepared(text, spare / "minutes")
    heading()
    for minutes in each:
        show(f"{minutes:g} minutes", [trained(folder, minutes)])


def resolved(setting: str, plan: dict[str, Any]) -> str:
    """A setting such as "train.learning_rate=2x", with twice what the plan has."""
    key, value = setting.split("=")
    if not value.endswith("x"):
        return setting
    name = key.split(".")[1].removeprefix("max_")
    found = plan[name] * float(value[:-1])
    return f"{key}={int(found) if isinstance(plan[name], int) else found}"


def continued(text: Path, spare: Path, minutes: float) -> None:
    """The domain's gain and what was forgotten, for ptk's defaults and for Trainer's, in bits per byte."""
    folder = prepared(text, spare / "continue", "--base", "smollm2")
    run = trained(folder, minutes)["run"]
    plain_trainer(folder, minutes * 60, spare / "Trainer's defaults")
    report = ptk("evaluate", run, str(spare / "Trainer's defaults"), "smollm2", "--artifacts", str(folder))
    for scored in report["models"]:
        texts = "".join(f"{each['name']} {each['bits_per_byte']:.4f}  " for each in scored["texts"])
        print(f"{scored['name']:<22}{texts}")


def plain_trainer(folder: Path, seconds: float, out: Path) -> None:
    """transformers' Trainer as it comes (AdamW 5e-5, linear, batch 8) on the same rows, steps fitted to the time."""
    import torch
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    base = next((folder / "bases").glob("*/config.json")).parent
    rows = load_from_disk(str(folder / "data" / "train")).select_columns("input_ids").with_format("torch")

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.stack([row["input_ids"] for row in batch]).long()
        return {"input_ids": ids, "labels": ids}

    def run(steps: int) -> float:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        arguments = TrainingArguments(str(out), max_steps=steps, report_to="none", save_strategy="no", use_cpu=True,
                                      remove_unused_columns=False, disable_tqdm=True)  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
        started = time.monotonic()
        trainer.train()
        spent = time.monotonic() - started
        trainer.save_model(str(out))
        return spent

    per_step = run(3) / 3
    run(max(1, int(seconds / per_step)))
    AutoTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(out)


DIAL_SIZES = {"50 kB": 50_000, "1 MB": 1_000_000, "10 MB": 10_800_000, "100 MB": 100_000_000}
DIAL_MINUTES = (1.0, 5.0, 15.0, 60.0)


def dial(text: Path, spare: Path, train: bool, sizes: list[int], minutes: float) -> None:
    """The choices on paper for this machine's speed; with ``train``, tried beside their neighbours."""
    from pretrain_cli.config.model import TrainConfig
    from pretrain_cli.model.devices import matmul_flops
    from pretrain_cli.tokenizer.train import choose_vocab_size
    from pretrain_cli.training.choices.facts import Facts
    from pretrain_cli.training.choices.plan import make_plan

    speed = matmul_flops()
    columns = (("size", 8), ("layers", 8), ("hidden", 7), ("batch", 8), ("steps", 8), ("epochs", 8), ("rates", 18))
    print(f"{'text':<8}{'minutes':>8}  " + "".join(f"{column:>{width}}" for column, width in columns))
    for name, size in DIAL_SIZES.items():
        for budget in DIAL_MINUTES:
            vocabulary = choose_vocab_size(size)
            rows = int(size * (1 - HELD_OUT) / 4.2 / 256)
            plan = make_plan(Facts(rows, 256, vocabulary, speed, 16e9), TrainConfig(max_minutes=budget))
            assert plan.shape is not None
            epochs = plan.expected_steps * plan.batch_tokens / (rows * 256)
            rates = f"{plan.rates.main:.2g}, {plan.rates.matrix:.2g}"
            print(f"{name:<8}{budget:>8g}  {plan.shape.name:>8}{plan.shape.layers:>8}{plan.shape.hidden:>7}"
                  f"{plan.batch_tokens:>8}{plan.expected_steps:>8}{epochs:>8.1f}{rates:>18}")  # fmt: skip
    if train:
        _neighbours(text, spare, minutes, sizes)


def _neighbours(text: Path, spare: Path, minutes: float, sizes: list[int]) -> None:
    content = text.read_bytes()
    for size in sizes or [size for size in DIAL_SIZES.values() if size <= 1.1 * len(content)]:
        part = spare / f"{size}.txt"
        part.write_bytes(content[:size])
        folder = prepared(part, spare / str(size))
        print(f"{size / 1e6:g} MB, {minutes:g} minutes")
        heading()
        chosen = trained(folder, minutes)
        show("the dial", [chosen])
        plan = chosen["record"]["plan"]
        for label, settings in (
            ("half the rates", ["train.learning_rate=0.5x", "train.matrix_learning_rate=0.5x"]),
            ("half as long", ["train.max_steps=0.5x"] if plan["steps"] else []),
            *([("a third longer", ["train.max_steps=1.34x"])] if plan["steps"] else []),
            *((f"a rung {which}", [f"model.size={size}"]) for which, size in _beside(plan["size"])),
        ):
            budget = minutes / 2 if label == "half as long" and not plan["steps"] else minutes
            show(label, [trained(folder, budget, 0, [resolved(each, plan) for each in settings])])


def _beside(size: str) -> list[tuple[str, str]]:
    """The rungs below and above, where there are any."""
    from pretrain_cli.model.sizes import SIZES

    names = [shape.name for shape in SIZES]
    here = names.index(size)
    return [("smaller", name) for name in names[:here][-1:]] + [("larger", name) for name in names[here + 1 :][:1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("headline", "minutes", "continue", "dial"))
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bytes", type=int, nargs="+", default=[], help="dial: so much of the text is tried")
    parser.add_argument("--train", action="store_true", help="dial: train the choices and their neighbours")
    given = parser.parse_args()
    text, minutes = given.text.resolve(), given.minutes
    with tempfile.TemporaryDirectory() as folder:
        spare = Path(folder)
        if given.what == "headline":
            headline(text, spare, *(minutes or [1.5]), given.seeds)
        elif given.what == "minutes":
            minutes_curve(text, spare, tuple(minutes) or (1.0, 2.0, 5.0, 10.0))
        elif given.what == "continue":
            continued(text, spare, *(minutes or [5.0]))
        else:
            dial(text, spare, given.train, given.bytes, *(minutes or [1.0]))


if __name__ == "__main__":
    main()
