"""The whole road where ptk finds nothing that only Linux, or only POSIX, has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ENVIRONMENT, SMALL, ok
from tests.support.elsewhere import MODULES, OF_OS, OF_SIGNAL, without_posix

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.\n"


def test_what_is_missing_there_is_missing_for_ptk_alone(tmp_path: Path) -> None:
    """Otherwise the next test would show nothing."""
    program = (
        "import os, signal, subprocess, sys, types\n"
        "subprocess.run([sys.executable, '-c', ''], check=True)\n"
        "os.close(os.open('.', os.O_RDONLY))\n"
        "code = '''\n"
        "import os, signal\n"
        f"assert not [name for name in {OF_OS} if hasattr(os, name)]\n"
        f"assert not [name for name in {OF_SIGNAL} if hasattr(signal, name)]\n"
        f"for name in {MODULES}:\n"
        "    try: __import__(name)\n"
        "    except ImportError: continue\n"
        "    raise AssertionError(name)\n"
        "try: os.open('.', os.O_RDONLY)\n"
        "except PermissionError: pass\n"
        "import multiprocessing\n"
        "assert multiprocessing.get_start_method() == 'spawn'\n"
        "try: open('/dev/null')\n"
        "except EncodingWarning: print('all gone')\n"
        "'''\n"
        "exec(code, {'__name__': 'pretrain_cli.some'})\n"
    )
    environment = {**ENVIRONMENT, **without_posix(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("all gone\n", "")


@pytest.mark.slow
def test_the_road_needs_nothing_that_only_posix_has(tmp_path: Path) -> None:
    """With worker processes too: what they import is gone for them as well."""
    variables = without_posix(tmp_path / "site")
    (tmp_path / "data.txt").write_text("".join(f"{number}: {TEXT}" for number in range(300)), encoding="utf-8")
    small = ("--set", "data.sequence_length=64", "--set", "tokenizer.vocab_size=300")
    ok(tmp_path, "prepare", "data.txt", "--workers", "2", *small, **variables)
    train = ("train", "--max-steps", "2", "--set", "train.micro_batch=2", *SMALL)
    trained = ok(tmp_path, *train, "--workers", "1", **variables)
    assert trained["steps"] == 2
    assert ok(tmp_path, "train", "--resume", "--max-steps", "3", **variables)["steps"] == 3
    scored = ok(tmp_path, "evaluate", "--on", "validation", "--set", "evaluate.samples=0", **variables)
    assert scored["models"][0]["texts"][0]["bits_per_byte"] > 0
    assert ok(tmp_path, "generate", "Call me", "--max-tokens", "4", **variables)["samples"][0]["tokens"] == 4
    assert ok(tmp_path, "export", **variables)["format"] == "hf"
    assert ok(tmp_path, "doctor", "--verify", **variables)["ok"]
