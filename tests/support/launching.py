"""Starts trainings of several processes by the command, waits for them and compares their runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.storage import read_lines

STEPS = 50
COMMON = (
    "--device", "cpu", "--precision", "fp32", "--size", "tiny", "--set", "model.layers=1", "--max-steps", str(STEPS),
    "--batch-tokens", "256", "--set", "train.save_steps=10", "--set", "train.eval_steps=20", "--set", "train.keep=9",
    "--set", "train.optimizer=adamw", "--set", "tracking.report_to=none", "--set", "train.threads=1",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def words(rows: Artifacts, *more: str) -> list[str]:
    return ["train", "--artifacts", str(rows.root), *more]


def environment(**variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PTK_", "SLURM_"))}
    path = os.pathsep.join([*variables.pop("first", "").split(), str(ROOT)])
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}


def start(rows: Artifacts, *more: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pretrain_cli", *words(rows, *more)],
        env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ptk(rows: Artifacts, *more: str, **variables: str) -> tuple[int, str, str]:
    process = start(rows, *more, **variables)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def trained(rows: Artifacts, name: str, *more: str) -> RunFolder:
    code, _, err = ptk(rows, "--run", name, *COMMON, *more)
    assert code == 0, err
    return rows.run(name)


def losses(run: RunFolder) -> list[float]:
    lines = read_lines(run.metrics)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["loss"] for line in lines]


def validations(run: RunFolder) -> list[float]:
    return [line["validation_loss"] for line in read_lines(run.metrics) if "validation_loss" in line]


def furthest(one: RunFolder, other: RunFolder) -> float:
    return max(abs(a - b) for a, b in zip(losses(one), losses(other), strict=True))


def wait_for_step(run: RunFolder, step: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and (not run.metrics.is_file() or len(read_lines(run.metrics)) < step):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()


def ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return sorted(psutil.Process(process.pid).children(), key=lambda child: int(child.environ()["RANK"]))
