"""A command's output goes as far as stdout can take it: full, closed, or without most of Unicode's characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.console import Console
from pretrain_cli.errors import DataError
from pretrain_cli.run_record import read_run_record
from pretrain_cli.runs.verification import verify
from tests.support.commands import ENVIRONMENT, SMALL, ok, ptk, refused

FULL = Path("/dev/full")
ROWS = ("--set", "data.sequence_length=32", "--set", "tokenizer.vocab_size=300", "--set", "data.workers=1")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared rows and a run."""
    folder = tmp_path_factory.mktemp("output")
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    (folder / "a.txt").write_text(prose[:12_000])
    ok(folder, "prepare", "a.txt", *ROWS)
    ok(folder, "train", "--run", "a", "--max-steps", "2", *SMALL)
    return folder


def into(stdout: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    with open(stdout, "w") as out:
        return subprocess.run(
            [sys.executable, "-m", "pretrain_cli", *words],
            cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True, timeout=600, env=ENVIRONMENT,
        )  # fmt: skip


def is_told(done: subprocess.CompletedProcess[str]) -> None:
    done.stdout = ""
    refused(done, 3, "The output can't be written: No space left on device", "Send its output somewhere else")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["--version", "config keys", "runs list --json", "train --resume nothing --json"])
def test_output_that_a_full_disk_refuses_is_two_lines(tmp_path: Path, words: str) -> None:
    done = into(FULL, tmp_path, *words.split())
    if "nothing" in words:  # an error, whose object can't be written either
        assert done.returncode in (3, 4) and "Traceback" not in done.stderr
        return
    is_told(done)


@slow
@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_work_is_finished_whose_result_a_full_disk_refuses(folder: Path) -> None:
    is_told(into(FULL, folder, "prepare", "a.txt", *ROWS, "--artifacts", "two"))
    is_told(into(FULL, folder, "train", "--run", "b", "--max-steps", "2", *SMALL, "--artifacts", "two"))
    record = read_run_record(Artifacts(folder / "two").run("b"))
    assert record is not None and record.status == "finished"
    for words in ("evaluate b --set evaluate.sample=1000", "export b", "generate Call --greedy --max-tokens 3"):
        is_told(into(FULL, folder, *words.split(), "--artifacts", "two"))
    assert (folder / "two" / "runs" / "b" / "evaluation" / "report.html").is_file()
    assert verify(Artifacts(folder / "two")).ok


@pytest.mark.parametrize("words", ["train --help", "config keys train", "config keys --json"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_and_tables_can_be_written_in_any_encoding(tmp_path: Path, words: str, encoding: str) -> None:
    done = ptk(tmp_path, *words.split(), PYTHONIOENCODING=encoding, LC_ALL="C")
    assert done.returncode == 0, done.stderr
    if encoding == "ascii":
        assert done.stdout.isascii()
    if "--json" in words:
        assert json.loads(done.stdout)["schema"] == 1


@slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_run_finishes_whatever_stdout_can_express(folder: Path, encoding: str) -> None:
    variables = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = ptk(folder, "train", "--run", f"in-{encoding}", "--max-steps", "2", *SMALL, **variables)
    assert done.returncode == 0, done.stderr
    assert "->" in done.stdout
    for words in ("evaluate --set evaluate.sample=1000", "generate Ünï→😀 --max-tokens 3", "runs list", "runs show"):
        shown = ptk(folder, *words.split(), **variables)
        assert shown.returncode == 0 and "Traceback" not in shown.stderr, (words, shown.stderr)
    value = json.loads(ptk(folder, "generate", "😀", "--max-tokens", "2", "--json", **variables).stdout)
    assert value["samples"][0]["prompt"] == "😀"


@slow
@pytest.mark.parametrize(
    "words",
    [
        "runs list",
        "runs show a",
        "runs show a --json",
        "inspect",
        "doctor --verify",
        "generate Call --max-tokens 40",
        "generate Call --samples 2 --max-tokens 20 --json",
        "evaluate a --set evaluate.sample=1000",
        "export a",
        "plan --help",
    ],
)
def test_a_reader_that_goes_away_ends_every_command_quietly(folder: Path, words: str) -> None:
    for reader in ("true", "head -c 1"):
        line = f"{sys.executable} -m pretrain_cli {words} | {reader} >/dev/null; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, env=ENVIRONMENT)
        assert done.stdout.splitlines()[-1] == "0", done.stderr
        assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr and "Exception" not in done.stderr


@slow
def test_commands_work_without_asserts_and_say_which_need_docstrings(folder: Path) -> None:
    """transformers reads its own docstrings when it opens a model."""
    light = (
        "runs list",
        "train --help",
        "generate Call --max-tokens 3",
        "doctor --verify",
        "prepare a.txt --artifacts o2",
    )
    for words in (*light, "prepare a.txt --artifacts o2"):
        done = ptk(folder, *words.split(), PYTHONOPTIMIZE="2")
        assert done.returncode == 0, (words, done.stderr)
    for words in ("evaluate a --set evaluate.sample=1000", "export a", "train --run o2 --max-steps 2"):
        refused(ptk(folder, *words.split(), *(SMALL if "train" in words else ()), PYTHONOPTIMIZE="2"), 2, "docstrings")
        done = ptk(folder, *words.split(), *(SMALL if "train" in words else ()), PYTHONOPTIMIZE="1")
        assert done.returncode == 0, (words, done.stderr)


def test_torchs_own_warnings_stay_off_the_screen_unless_asked_for(tmp_path: Path) -> None:
    """Its CUDA build, where a model is compiled without a GPU: "No CUDA runtime is found, using CUDA_HOME='/usr'"."""
    lines = (
        "import logging",
        "from pretrain_cli.quiet import quiet_environment",
        "quiet_environment()",
        "import torch",
        "log = logging.getLogger('torch.utils.cpp_extension')",
        "log.warning('a warning')",
        "log.error('an error')",
    )

    def printed(**more: str) -> str:
        code = [sys.executable, "-c", "\n".join(lines)]
        return subprocess.run(code, cwd=tmp_path, env={**ENVIRONMENT, **more}, capture_output=True, text=True).stderr

    assert "a warning" not in printed() and "an error" in printed()
    assert "a warning" in printed(TORCH_LOGS="+dynamo")


def test_a_launchers_variable_that_is_no_number_is_two_lines_where_it_matters(tmp_path: Path) -> None:
    refused(ptk(tmp_path, "train", RANK="abc"), 2, "The variable RANK is 'abc'")
    assert ptk(tmp_path, "runs", "list", RANK="abc", WORLD_SIZE="x").returncode == 0


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"])
def test_a_variable_that_asks_for_endless_threads_is_two_lines(tmp_path: Path, name: str) -> None:
    refused(ptk(tmp_path, "runs", "list", **{name: "100000"}), 2, f"The variable {name} is 100000")
    refused(ptk(tmp_path, "runs", "list", **{name: "2,99999999999999999999"}), 2, f"The variable {name} is 2,9999")
    assert ptk(tmp_path, "runs", "list", **{name: "64"}).returncode == 0


@slow
@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_names_that_are_not_utf8_are_read_or_refused_in_two_lines(folder: Path) -> None:
    """Inputs are read; what other libraries have to open is refused."""
    odd, text = os.fsdecode(b"n\xe9x"), os.fsdecode(b"t\xe8xt.txt")
    (folder / odd).mkdir()
    (folder / odd / text).write_bytes((folder / "a.txt").read_bytes())
    (folder / odd / os.fsdecode(b"b\xe8.jsonl")).write_text('{"text": 5}\n{"text": "Call me Ishmael."}\n')
    given = ("prepare", odd, *ROWS, "--set", "data.on_error=skip", "--artifacts", "odd")
    assert not ok(folder, *given)["reused"]
    assert ok(folder, *given)["reused"]
    for words in (
        ("train", "--run", "a", "--max-steps", "2", *SMALL),
        ("train", "--resume", "a", "--max-steps", "3"),
        ("evaluate", "a", "--set", "evaluate.sample=1000", "--on", f"{odd}/{text}"),
        ("export", "a"),
        ("doctor", "--verify"),
    ):
        done = ptk(folder, *words, "--artifacts", "odd")
        assert done.returncode == 0, (words, done.stderr)
    for words in (
        ("runs", "list", "--artifacts", odd),
        ("export", "a", "--output", f"{odd}/out"),
        ("generate", "Call", "--model", odd),
        ("prepare", "a.txt", "--base", odd, "--artifacts", "four"),
        ("prepare", "a.txt", "--tokenizer", odd, "--artifacts", "four"),
    ):
        refused(ptk(folder, *words), 2, r"n\xe9x", "isn't UTF-8")


@slow
def test_a_formula_in_a_texts_name_is_only_its_name(folder: Path) -> None:
    (folder / r"$\frac$.txt").write_bytes((folder / "a.txt").read_bytes())
    found = ok(folder, "evaluate", "a", "--set", "evaluate.sample=1000", "--on", r"$\frac$.txt")
    assert found["models"] and r"$\frac$" in (folder / found["page"]).read_text()


@slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of this kind")
def test_a_limit_to_the_size_of_files_is_named_and_the_run_is_finished_without_it(folder: Path) -> None:
    """It hits the checkpoint, which is left out, and then the model."""
    ok(folder, "prepare", "a.txt", *ROWS, "--artifacts", "limited")
    words = ("train", "--run", "b", "--max-steps", "2", "--artifacts", "limited", *SMALL)
    line = f"ulimit -f 300; exec {sys.executable} -m pretrain_cli {' '.join(words)}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, env=ENVIRONMENT)
    refused(done, 3, "larger than this process may write", "ptk train --resume b")
    assert ok(folder, "train", "--resume", "b", "--artifacts", "limited")["steps"] == 2


def test_the_next_command_names_the_artifact_folder_that_was_typed(ptk, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("Some words to prepare. " * 400)
    place = str(tmp_path / "my artifacts")
    done = ptk("prepare", str(text), "--artifacts", place)
    assert done.err.splitlines()[-1] == f"Next: ptk train --device auto --artifacts '{place}'"
    done = ptk("prepare", str(text), "--shard", "0/1", "--artifacts", place + "2")
    assert done.err.splitlines()[-1].endswith(f"--merge --artifacts '{place}2' (when all shards are finished)")
    assert ptk("config", "keys", "--artifacts", place).err.endswith("or   ptk config init\n")
    assert ptk("prepare", str(text)).err.splitlines()[-1] == "Next: ptk train --device auto"


def test_commands_in_hints_name_the_artifact_folder_that_was_typed(ptk, tmp_path: Path) -> None:
    place = str(tmp_path / "my artifacts")
    hint = ptk("train", "--artifacts", place).err.splitlines()[-1]
    assert hint == f"Hint: Prepare some first: ptk prepare data.txt --artifacts '{place}'"
    hint = json.loads(ptk("train", "--json", f"--artifacts={place}").out)["error"]["hint"]
    assert hint == f"Prepare some first: ptk prepare data.txt --artifacts '{place}'"
    assert ptk("train").err.splitlines()[-1] == "Hint: Prepare some first: ptk prepare data.txt"


@pytest.mark.parametrize(
    ("advice", "there"),
    [
        ("Make them again: ptk prepare", "Make them again: ptk prepare --artifacts b"),
        ("Finish it: ptk train --resume a; or name it.", "Finish it: ptk train --resume a --artifacts b; or name it."),
        ('Give one: ptk generate "Once, upon", or -.', 'Give one: ptk generate "Once, upon" --artifacts b, or -.'),
        ("Use another: ptk runs show. It was made", "Use another: ptk runs show --artifacts b. It was made"),
        ("Try: ptk evaluate R B --blend 0,0.5,1", "Try: ptk evaluate R B --blend 0,0.5,1 --artifacts b"),
        ("See: ptk config keys data.input", "See: ptk config keys data.input"),
        ("See: ptk train --help", "See: ptk train --help"),
        ("Prepare it with ptk prepare first", "Prepare it with ptk prepare first"),
    ],
)
def test_the_folder_comes_after_the_command_and_nowhere_else(advice: str, there: str, capsys) -> None:
    Console(place="--artifacts b").error(DataError("It failed.", advice))
    assert capsys.readouterr().err.splitlines()[-1] == f"Hint: {there}"


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["TORCH_LOGS", "HF_HUB_ETAG_TIMEOUT", "MPLBACKEND", "ACCELERATE_MIXED_PRECISION"])
def test_a_variable_that_a_library_fails_with_is_named(ptk_process, tmp_path: Path, variable: str) -> None:
    text = tmp_path / "a.txt"
    text.write_text("Some words to prepare. " * 400)
    assert ptk_process("prepare", str(text), "--set", "data.sequence_length=32").code == 0
    words = ("--max-steps", "1", "--size", "micro", "--set", "train.precision=fp32")
    done = ptk_process("train", *words, **{variable: "mistyped"})
    error, hint = done.err.splitlines()[-2:]
    named = f"Error: A library can't use the environment variable {variable}=mistyped: "
    assert done.code == 2 and error.startswith(named)
    assert hint == f"Hint: Correct {variable}, or unset it."


def test_a_typed_artifact_folder_is_in_no_hint_with_its_password(capsys) -> None:
    console = Console(json=True, place="--artifacts sftp://me:secret@host/x")
    console.warn("Make it again: ptk prepare")
    console.error(DataError("It failed.", "Make it again: ptk prepare"))
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err and "--artifacts sftp://redacted@host/x" in said.out
