"""Tries on one GPU, in under ten minutes, what ptk claims of a GPU, and prints a table of what held.

    python benchmarks/gpu_smoke.py                  one NVIDIA GPU (or cuda:1, xpu, mps with --device)
    python benchmarks/gpu_smoke.py --only resume    the checks whose name has this word
    python benchmarks/gpu_smoke.py --device cpu --quick      its own logic, where there is no GPU

Each check prints "ok" with its figure, "DIFFERENT" with what differs, or "skipped" with the reason. The table at the
end goes into docs/guides/several-gpus.md. Everything is made of the text that ships with ptk; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STEPS, SAVED = 30, 20
FEW = 5
QUIET = ("--set", "tracking.report_to=none", "--set", "train.eval_steps=0", "--set", "train.ensemble=0")
TIME_OUT_S = 240


class Skipped(Exception):
    """A check that can't be made here, and why."""


class Different(Exception):
    """What isn't as it should be."""


@dataclass
class Bench:
    """What the checks share.

    Attributes:
        device: as --device names it.
        quick: few steps of a small model, to try the script itself.
        root: a folder of its own.
        known: results that later checks compare with.
    """

    device: str
    quick: bool
    root: Path
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def size(self) -> str:
        return "tiny" if self.quick else "small"

    @property
    def steps(self) -> int:
        return 6 if self.quick else STEPS

    @property
    def saved(self) -> int:
        return 4 if self.quick else SAVED

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pretrain_cli", *words, "--artifacts", str(self.artifacts), "--json"]

    def ptk(self, *words: str) -> dict[str, Any]:
        """One command that has to succeed; its JSON object."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=TIME_OUT_S, env=environment(), cwd=self.root
        )
        if done.returncode:
            raise Different(f"ptk {' '.join(words[:3])}… ended with {done.returncode}: {last_line(done.stderr)}")
        found: dict[str, Any] = json.loads(done.stdout)
        found["stderr"] = done.stderr
        return found

    def train(self, run: str, steps: int, *words: str, device: str = "") -> dict[str, Any]:
        """A run of its own, or with ``--resume`` among ``words`` the rest of one."""
        name = () if "--resume" in words else ("--run", run, "--size", self.size)
        name = name[:2] if "--base" in words else name
        return self.ptk("train", *name, "--device", device or self.device, "--max-steps", str(steps), *QUIET, *words)

    def lines(self, run: str) -> list[dict[str, Any]]:
        """metrics.jsonl."""
        text = (self.artifacts / "runs" / run / "metrics.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def losses(self, run: str) -> list[float]:
        return [line["loss"] for line in self.lines(run)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "WANDB_MODE": "disabled"}


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("Error")] or lines[-1:]
    return (said or ["nothing was said"])[-1][:200]


def furthest(one: list[float], other: list[float]) -> float:
    """The largest difference of two lists of losses of one length."""
    if len(one) != len(other):
        raise Different(f"{len(one)} steps against {len(other)}")
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def within(difference: float, limit: float, what: str) -> str:
    if not difference <= limit:  # nan is different too
        raise Different(f"{what} differ by {difference:.2g}, more than {limit:.2g}")
    return f"{what} within {difference:.2g}"


def falling(losses: list[float], what: str) -> str:
    if not all(math.isfinite(loss) for loss in losses) or losses[-1] >= losses[0]:
        raise Different(f"{what}: losses {losses[0]:.3f} … {losses[-1]:.3f}")
    return f"{losses[0]:.2f} → {losses[-1]:.2f}"


# The checks, in the order in which they run


def doctor(bench: Bench) -> str:
    found = bench.ptk("doctor")
    checks = {entry["name"]: entry["text"] for entry in found["checks"]}
    if not found["ok"]:
        raise Different("ptk doctor finds a problem")
    return f"{checks.get('device', '?')}; {checks.get('torch', '?')}"


def prepare(bench: Bench) -> str:
    text = bench.root / "text.txt"
    text.write_text((resources.files("pretrain_cli.texts") / "demo.txt").read_text("utf-8"), "utf-8")
    found = bench.ptk("prepare", str(text), "--vocab-size", "2048", "--sequence-length", "128")
    return f"{found['tokens']:,} tokens"


def scratch_against_cpu(bench: Bench) -> str:
    precise = ("--precision", "fp32", "--batch-tokens", "1024")
    bench.train("cpu", bench.steps, *precise, device="cpu")
    bench.train("fp32", bench.steps, *precise, "--set", f"train.save_steps={bench.saved}", "--set", "train.keep=9")
    return within(furthest(bench.losses("fp32"), bench.losses("cpu")), 0.02, "losses of Muon in fp32")


def resume(bench: Bench) -> str:
    runs = bench.artifacts / "runs"
    shutil.copytree(runs / "fp32", runs / "fp32-again")
    bench.train("fp32-again", bench.steps, "--resume", f"fp32-again@step-{bench.saved:06d}")
    return within(furthest(bench.losses("fp32-again"), bench.losses("fp32")), 0.0, "losses after a resume")


def attention_and_rows(bench: Bench) -> str:
    found: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    for attention in ("auto", "sdpa", "eager"):
        for rows in (1, 4):
            name = f"{attention}-{rows}"
            words = ("--set", f"train.attention={attention}", "--set", f"train.micro_batch={rows}")
            bench.train(name, FEW, *words, "--batch-tokens", "1024", "--set", "train.mask_documents=true")
            found[name] = bench.losses(name)
            peaks[name] = max(line["memory_mb"] for line in bench.lines(name))
    bench.known["peaks"] = peaks
    apart = max(furthest(losses, found["sdpa-1"]) for losses in found.values())
    return within(apart, 0.03, "losses of three attentions with 1 and 4 rows")


def flash_memory(bench: Bench) -> str:
    peaks = bench.known.get("peaks")
    if peaks is None or bench.device == "cpu":
        raise Skipped("needs the attentions on a GPU")
    if peaks["auto-4"] > peaks["sdpa-4"]:
        raise Different(f"auto takes {peaks['auto-4']:.0f} MB, sdpa with a mask {peaks['sdpa-4']:.0f} MB")
    return f"auto {peaks['auto-4']:.0f} MB, sdpa with a mask {peaks['sdpa-4']:.0f} MB"


def compiled(bench: Bench) -> str:
    said = []
    for masked in ("true", "false"):
        found = []
        for setting in ("true", "false"):
            name = f"compile-{setting}-{masked}"
            words = ("--set", f"train.compile={setting}", "--set", f"train.mask_documents={masked}")
            result = bench.train(name, FEW, *words, "--batch-tokens", "1024")
            if "can't be compiled" in result["stderr"] or "can't be compiled" in json.dumps(result["warnings"]):
                raise Different("the model can't be compiled")
            found.append(bench.losses(name))
        said.append(within(furthest(*found), 0.03, f"losses with mask={masked}"))
    return "; ".join(said)


def bases(bench: Bench) -> Iterator[tuple[str, Callable[[Bench], str]]]:
    """A base in each precision, with Liger, and with checkpointing."""
    ways = {
        "a base in bf16": ("--precision", "bf16"),
        "a base with bf16 weights": ("--precision", "bf16-weights"),
        "a base in fp16": ("--precision", "fp16"),
        "a base with Liger": ("--precision", "bf16", "--set", "train.liger=true"),
        "a base with checkpointing": ("--precision", "bf16", "--set", "train.gradient_checkpointing=true"),
    }
    for name, words in ways.items():
        yield name, lambda bench, name=name, words=words: base(bench, name, words)


def base(bench: Bench, name: str, words: tuple[str, ...]) -> str:
    if bench.device == "cpu" and ("fp16" in words or "train.liger=true" in words):
        raise Skipped("not on a CPU")
    run = name.replace(" ", "-")
    model = bench.artifacts / "runs" / "fp32" / "model"
    if not model.is_dir():
        raise Skipped("needs the run of Muon in fp32")
    bench.train(run, 2 * FEW, "--base", str(model), "--batch-tokens", "1024", *words)
    losses = bench.losses(run)
    if not all(math.isfinite(loss) for loss in losses):
        raise Different(f"losses {losses}")
    return f"{losses[0]:.3f} → {losses[-1]:.3f}"


SHARDED = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from transformers import AutoModelForCausalLM
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.checkpoint.state_dict_saver import async_save
from pretrain_cli.training.processes.sharding import load_any, save_shards, shard, state_of
model_folder, folder, device = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
kind = torch.device(device).type
backend = dist.get_default_backend_for_device(kind)
dist.init_process_group(f"cpu:gloo,{kind}:{backend}" if kind != "cpu" else "gloo")
def opened():
    model = AutoModelForCausalLM.from_pretrained(model_folder).to(device)
    shard(model, kind, 1, "bf16")
    return model, torch.optim.AdamW(model.parameters(), fused=True)
def stepped(model, optimizer):
    ids = torch.arange(64, device=device).view(1, 64)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    return float(loss)
model, optimizer = opened()
stepped(model, optimizer)
save_shards(folder, state_of(model, optimizer))
async_save({"model": get_model_state_dict(model)}, checkpoint_id=folder / "async").result()
wanted = [stepped(model, optimizer) for _ in range(2)]
model, optimizer = opened()
load_any(folder, model, optimizer)
found = [stepped(model, optimizer) for _ in range(2)]
print(max(abs(a - b) for a, b in zip(found, wanted)))
dist.destroy_process_group()
"""


def sharded(bench: Bench) -> str:
    model = bench.artifacts / "runs" / "fp32" / "model"
    if not model.is_dir():
        raise Skipped("needs the run of Muon in fp32")
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(model), str(bench.root / "shards"), bench.device],
        capture_output=True, text=True, timeout=TIME_OUT_S, env={**environment(), **one}, cwd=bench.root,
    )  # fmt: skip
    if done.returncode:
        raise Different(last_line(done.stderr))
    return within(float(done.stdout.split()[-1]), 1e-6, "losses after DCP's load; async_save came back;")


def stopped(bench: Bench) -> str:
    words = ("train", "--run", "stopped", "--size", bench.size, "--device", bench.device, "--max-steps", "400", *QUIET)
    process = subprocess.Popen(
        bench.command(*words, "--batch-tokens", "1024"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=bench.root,
    )  # fmt: skip
    metrics, end = bench.artifacts / "runs" / "stopped" / "metrics.jsonl", time.monotonic() + TIME_OUT_S
    while process.poll() is None and time.monotonic() < end:
        if metrics.is_file() and metrics.read_text().count("\n") >= FEW:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIME_OUT_S)
    if process.returncode != 143:
        raise Different(f"SIGTERM gave exit code {process.returncode}: {last_line(err)}")
    done = len(bench.lines("stopped"))
    bench.train("stopped", done + FEW, "--resume", "stopped")
    steps = [line["step"] for line in bench.lines("stopped")]
    if steps != list(range(1, done + FEW + 1)):
        raise Different(f"steps {steps[:3]} … {steps[-3:]}")
    return f"stopped at step {done}, resumed to {steps[-1]}"


def too_large(bench: Bench) -> str:
    if bench.device == "cpu":
        raise Skipped("a CPU's memory is shared with everything else")
    import torch

    _, total = torch.get_device_module(torch.device(bench.device)).mem_get_info()
    rows = 1 << max(6, int(math.log2(total / 2e5)))  # about ten times what fits
    result = bench.train(
        "too-large", 2, "--set", f"train.micro_batch={rows}", "--batch-tokens", str(128 * rows),
        "--set", "train.gradient_checkpointing=false",
    )  # fmt: skip
    said = [text for text in result["warnings"] if "at once instead of" in text]
    if not said:
        raise Different(f"{rows:,} rows at once were trained without a word")
    return said[0].split(":")[0]


def text_and_score(bench: Bench) -> str:
    if not (bench.artifacts / "runs" / "fp32" / "model").is_dir():
        raise Skipped("needs the run of Muon in fp32")
    texts, scores = [], []
    for device in ("cpu", bench.device):
        precise = ("--device", device, "--set", "generate.precision=fp32")
        written = bench.ptk("generate", "The whale", "--model", "fp32", "--greedy", "--max-tokens", "32", *precise)
        texts.append(written["samples"][0]["text"])
        scored = bench.ptk("evaluate", "fp32", "--device", device, "--precision", "fp32", "--sample", "20000")
        scores.append(scored["models"][0]["texts"][0]["bits_per_byte"])
    if texts[0] != texts[1]:
        raise Different(f"greedy text {texts[1]!r} against the CPU's {texts[0]!r}")
    return "greedy text equal; " + within(abs(scores[0] - scores[1]), 1e-4, "bits per byte")


PROFILE = """
import sys, json, torch
from pathlib import Path
from pretrain_cli import Artifacts, load_config
from pretrain_cli.training.run import train
from pretrain_cli.progress import Progress
folder, device, size = sys.argv[1:4]
settings = {"train.device": device, "model.size": size, "train.max_steps": 10, "train.batch_tokens": 1024,
            "tracking.report_to": "none", "train.eval_steps": 0, "train.save_steps": 0, "train.ensemble": 0}
kinds = [torch.profiler.ProfilerActivity.CPU]
if torch.device(device).type == "cuda":
    kinds.append(torch.profiler.ProfilerActivity.CUDA)
profiler = torch.profiler.profile(activities=kinds)
class Watch(Progress):
    def log(self, step, values):
        if step == 4:
            profiler.__enter__()
        elif step == 9:
            profiler.__exit__(None, None, None)
train(load_config(flags=settings).config, Artifacts(Path(folder)), Watch(), run_name="profiled")
counts = {entry.key: entry.count for entry in profiler.key_averages()}
launches = sum(number for key, number in counts.items() if "LaunchKernel" in key)
waits = sum(number for key, number in counts.items() if "Synchronize" in key or key == "aten::_local_scalar_dense")
print(json.dumps({"launches": launches / 5, "waits": waits / 5, "operators": sum(counts.values()) / 5}))
"""


def profiled(bench: Bench) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROFILE, str(bench.artifacts), bench.device, bench.size],
        capture_output=True, text=True, timeout=TIME_OUT_S, env=environment(), cwd=bench.root,
    )  # fmt: skip
    if done.returncode:
        raise Different(last_line(done.stderr))
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['launches']:.0f} launches and {found['waits']:.0f} waits a step"


def utilization(bench: Bench) -> str:
    words = ("--size", "tiny" if bench.quick else "medium", "--batch-tokens", "1024" if bench.quick else "32768")
    bench.ptk("train", "--run", "mfu", "--device", bench.device, "--max-steps", str(4 * FEW), *QUIET, *words)
    steady = bench.lines("mfu")[FEW:]
    speed = sorted(line["tokens_per_second"] for line in steady)[len(steady) // 2]
    middle = {key: sorted(line.get(key, 0.0) for line in steady)[len(steady) // 2] for key in ("mfu", "matmul_share")}
    if not middle["matmul_share"]:  # a device whose data sheet isn't known
        return f"{speed:,.0f} tokens/s, {middle['mfu']:.0%} of a measured matrix product"
    shares = f"MFU {middle['mfu']:.0%} of the data sheet, {middle['matmul_share']:.0%} of a measured matrix product"
    return f"{speed:,.0f} tokens/s, {shares}"


def checks() -> Iterator[tuple[str, Callable[[Bench], str]]]:
    """Name → check, in the order in which they run; later ones may need earlier ones' runs."""
    yield "doctor", doctor
    yield "prepare", prepare
    yield "scratch against the CPU", scratch_against_cpu
    yield "resume is exact", resume
    yield "attention × micro-batch", attention_and_rows
    yield "memory of flash attention", flash_memory
    yield "compile", compiled
    yield from bases(Bench("", False, Path()))
    yield "fully_shard and DCP, one rank", sharded
    yield "SIGTERM and resume", stopped
    yield "a micro-batch far too large", too_large
    yield "text and score against the CPU", text_and_score
    yield "profile of five steps", profiled
    yield "utilization", utilization


def run_all(bench: Bench, only: str = "", say: Callable[[str], None] = print) -> list[tuple[str, str, str]]:
    """(check, "ok", "DIFFERENT" or "skipped", what was seen) for each check."""
    results = []
    for name, check in checks():
        if only and only not in name and name != "prepare":
            continue
        began = time.monotonic()
        try:
            state, seen = "ok", check(bench)
        except Skipped as error:
            state, seen = "skipped", str(error)
        except (Different, subprocess.TimeoutExpired) as error:
            state, seen = "DIFFERENT", str(error)
        except Exception as error:  # a check that breaks is one that didn't hold
            state, seen = "DIFFERENT", f"{type(error).__name__}: {error}"[:200]
        say(f"{state:<10}{name}: {seen} ({time.monotonic() - began:.0f} s)")
        results.append((name, state, seen))
    return results


def table(results: list[tuple[str, str, str]], device: str, seconds: float) -> str:
    """The results as Markdown."""
    import torch

    kind = torch.device(device).type
    name = torch.get_device_module(kind).get_device_name() if kind in ("cuda", "xpu") else kind
    head = f"`benchmarks/gpu_smoke.py` on {name}, torch {torch.__version__}, {seconds / 60:.1f} minutes:"
    rows = [f"| {check} | {state} | {seen.replace('|', '/')} |" for check, state, seen in results]
    return "\n".join([head, "", "| check | result | seen |", "| --- | --- | --- |", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few steps of a small model")
    parser.add_argument("--only", default="", help="the checks whose name has this word")
    words = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptk-smoke-") as folder:
        results = run_all(Bench(words.device, words.quick, Path(folder)), words.only)
    print("\n" + table(results, words.device, time.monotonic() - began))
    return int(any(state == "DIFFERENT" for _, state, _ in results))


if __name__ == "__main__":
    sys.exit(main())
