"""A disk that is full or sealed, and Ctrl-C at any moment: two lines and the right exit code, by the real command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from pretrain_cli.data.encoding.shard_files import _save
from pretrain_cli.refusals import DiskError, writing_to
from tests.support.commands import ENVIRONMENT, SMALL, ok, ptk, refused
from tests.support.disks import disk, fill, mount


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, prepared rows and a small run."""
    folder = tmp_path_factory.mktemp("trained")
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    (folder / "data.txt").write_text(prose[:100_000], encoding="utf-8")
    ok(folder, "prepare", "data.txt", "--vocab-size", "1000")
    ok(folder, "train", "--max-steps", "2", "--run", "first", *SMALL)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path, trained: Path) -> Iterator[Path]:
    """The same artifacts on a disk of 8 MB."""
    with disk(tmp_path / "disk", 8) as folder:
        for name in ("data", "tokenizer", "latest"):
            copy = shutil.copytree if (trained / "artifacts" / name).is_dir() else shutil.copyfile
            copy(trained / "artifacts" / name, folder / name)
        model = folder / "runs" / "first" / "model"
        shutil.copytree(trained / "artifacts" / "runs" / "first" / "model", model)
        shutil.copyfile(trained / "artifacts" / "runs" / "first" / "run.json", model.parent / "run.json")
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("prepare", "data.txt", "--vocab-size", "900"), ("train", "--max-steps", "2", *SMALL), ("evaluate",)]
)
def test_no_space_left_is_two_lines_that_name_the_disk(small_disk: Path, trained: Path, command) -> None:
    fill(small_disk)
    refused(ptk(trained, *command, "--artifacts", str(small_disk)), 3, "No space left", str(small_disk))


@pytest.mark.parametrize("form", ["hf", "gguf", "ollama"])
def test_an_export_that_the_disk_or_a_limit_has_no_room_for_is_two_lines(
    tmp_path: Path, trained: Path, form: str
) -> None:
    with disk(tmp_path / "disk", 1) as folder:
        refused(ptk(trained, "export", "--to", form, "-o", str(folder / "e")), 3, "No space left", str(folder))
        assert not list(folder.iterdir())
    limited = subprocess.run(
        ["sh", "-c", f"ulimit -f 100; exec {sys.executable} -m pretrain_cli export --to {form} -o e"],
        cwd=trained, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    refused(limited, 3, "larger than this process may write")
    assert not (trained / "e").exists()


def test_what_a_shard_and_a_copied_folder_have_no_room_for_names_the_disk(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "large").write_bytes(bytes(2 << 20))
    with disk(tmp_path / "disk", 1) as folder:
        for write in (
            lambda: _save(folder / "rows.npy", np.zeros(2 << 20, np.uint8)),
            lambda: shutil.copytree(tmp_path / "from", folder / "copy"),
        ):
            with pytest.raises(DiskError, match="No space left"), writing_to(folder):
                write()
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("command", [("prepare", "data.txt", "--vocab-size", "900"), ("evaluate",)])
def test_a_sealed_artifact_folder_is_refused(small_disk: Path, trained: Path, command) -> None:
    assert mount("-o", "remount,ro", str(small_disk))
    refused(ptk(trained, *command, "--artifacts", str(small_disk)), 2, "read-only", "--artifacts")


def interrupted(
    folder: Path, *arguments: str, after: str | float, number: signal.Signals = signal.SIGINT
) -> tuple[int, str]:
    """Ctrl-C, or signal ``number``, after so many seconds, or once stderr said so; exit code, and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pretrain_cli", *arguments],
        cwd=folder, env=ENVIRONMENT, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job in the background has none
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    if isinstance(after, float):
        time.sleep(after)
    else:
        while after not in said and (line := process.stderr.readline()):
            said += line
    os.killpg(process.pid, number)
    rest = process.communicate(timeout=60)[1]
    return process.returncode, said + rest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("scoring validation", ("evaluate", "--set", "evaluate.stride=1")),
        ("checking the input", ("demo", "--artifacts", "demo")),
        ("training the tokenizer", ("prepare", "big.txt", "--artifacts", "big")),
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_each_stage_is_two_lines_and_its_code(
    trained: Path, words: str, arguments, number: signal.Signals, code: int
) -> None:
    (trained / "big.txt").write_text("".join(f"{n} {(trained / 'data.txt').read_text()}" for n in range(100)))
    ended, said = interrupted(trained, *arguments, after=words, number=number)
    assert ended == code and "Traceback" not in said, said
    error, hint = said.strip().splitlines()[-2:]
    assert error.startswith("Stopped") and hint and "Error:" not in said and "Hint:" not in said, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "arguments"),
    [(0.7, ("train", "--max-minutes", "5")), (2.5, ("generate", "The", "--max-tokens", "100000"))],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_libraries_load_leaves_no_traceback(
    trained: Path, seconds: float, arguments, number: signal.Signals, code: int
) -> None:
    ended, said = interrupted(trained, *arguments, after=seconds, number=number)
    assert ended == code and "\nStopped by" in f"\n{said}" and "Traceback" not in said, said
