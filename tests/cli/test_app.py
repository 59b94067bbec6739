"""The command line as a whole: help, speed, and how errors end a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pretrain_cli.cli import app
from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.console import Console
from pretrain_cli.cli.progress import make_progress
from pretrain_cli.errors import DataError, DivergedError, Interrupted, MissingDependencyError, ModelError, PtkError
from pretrain_cli.version import __version__
from tests.support.commands import ENVIRONMENT, refused

HEAVY = ("torch", "transformers", "datasets", "wandb", "pyarrow", "numpy", "matplotlib")
PRECISION = "ACCELERATE_MIXED_PRECISION"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["config", "show"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from pretrain_cli.cli.app import run; code = run(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip().endswith("[]")


@pytest.mark.parametrize("line", [["train", "--size", ""], ["plan", "--for", ""], ["train", "--set", ""]])
def test_completion_imports_nothing_heavy(empty: Path, line: list[str]) -> None:
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr))\n"
        "from pretrain_cli.cli.app import run; sys.exit(run([]))"
    )
    asked = {"_PTK_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(["ptk", *line]), "COMP_CWORD": str(len(line))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **asked})
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert len(done.stdout.split()) > 3


@pytest.mark.parametrize("line", [["train"], ["train", "--find-learning-rate"], ["plan"]])
def test_something_is_said_before_torch_is_imported(empty: Path, line: list[str]) -> None:
    (empty / "text.txt").write_text("some words to train on\n" * 200)
    subprocess.run([sys.executable, "-m", "pretrain_cli", "prepare", "text.txt", "-q"], check=True)
    program = (
        "import sys\n"
        "class Late:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Late())\n"
        "from pretrain_cli.cli.app import run; sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, *line], capture_output=True, text=True)
    assert "loading the libraries\nStopped by Ctrl-C." in done.stderr
    assert ("W&B: " in done.stderr) == (line == ["train"])


def every_command() -> list[str]:
    """ "train", "config", "config show" …"""
    commands = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
    children = [f"{name} {child}" for name, command in commands.items() for child in getattr(command, "commands", {})]
    return [*commands, *children]


@pytest.mark.parametrize("name", every_command())
def test_every_command_has_help_that_teaches_by_example(ptk, name) -> None:
    outcome = ptk(*name.split(), "--help")
    assert outcome.code == 0
    assert f"Usage: ptk {name}" in outcome.out and "Examples" in outcome.out
    assert f"$ ptk {name}" in outcome.out
    assert "<bool>" not in outcome.out and "<list" not in outcome.out  # Python's types say nothing to a newcomer


def test_paragraphs_of_help_are_broken_by_the_terminal_alone(ptk, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = ptk("train", "--help").out
    assert any(len(line.rstrip()) > 85 and "resume" in line for line in text.splitlines())


@pytest.mark.parametrize("name", ["prepare", "train", "evaluate", "generate", "demo", "doctor"])
@pytest.mark.parametrize("option", ["--artifacts", "--config", "--preset", "--set", "--json", "--quiet", "--debug"])
def test_every_command_takes_the_shared_options(name, option) -> None:
    command = typer.main.get_command(make_app()).commands[name]  # type: ignore[attr-defined]
    assert option in {text for parameter in command.params for text in parameter.opts}


@pytest.mark.parametrize("arguments", [[], ["config"], ["runs"]])
def test_no_command_shows_the_help(ptk, arguments) -> None:
    outcome = ptk(*arguments)
    assert outcome.code == 0
    assert "Usage" in outcome.out + outcome.err and "Error" not in outcome.err


def test_version(ptk) -> None:
    assert ptk("--version").out.startswith("ptk 0.") and ptk("version").out == ptk("--version").out
    assert ptk("help", "runs", "list").out == ptk("runs", "list", "--help").out != ""
    assert "Usage" in ptk("help").out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("a", "b"), 3),
        (ModelError("a", "b"), 4),
        (DivergedError("a", "b"), 5),
        (MissingDependencyError("a", "b"), 6),
    ],
)
def test_each_kind_of_error_has_two_lines_and_its_exit_code(ptk, monkeypatch, error: PtkError, code) -> None:
    monkeypatch.setattr("pretrain_cli.cli.config.flatten", _raising(error))
    outcome = ptk("config", "show")
    assert outcome.code == code
    assert outcome.err == "Error: a\nHint: b\n"
    assert outcome.out == ""


@pytest.mark.parametrize("code", [129, 130, 138, 143])
def test_a_stop_that_was_asked_for_is_no_error(ptk, monkeypatch, code: int) -> None:
    stop = Interrupted("Stopped at step 7; it is saved.", "Continue with: ptk train --resume", code)
    monkeypatch.setattr("pretrain_cli.cli.config.flatten", _raising(stop))
    outcome = ptk("config", "show")
    assert outcome.code == code
    assert outcome.err == "Stopped at step 7; it is saved.\nContinue with: ptk train --resume\n"
    assert ptk("config", "show", "--json").json["error"]["exit_code"] == code


def test_with_json_an_error_is_one_object(ptk) -> None:
    outcome = ptk("config", "keys", "train.learnin_rate", "--json")
    assert outcome.code == 2
    assert outcome.json["error"]["kind"] == "config"
    assert outcome.json["error"]["exit_code"] == 2
    assert "train.learning_rate" in outcome.json["error"]["hint"]


def test_a_bug_is_one_line_and_the_traceback_comes_with_debug(ptk, monkeypatch) -> None:
    monkeypatch.setattr("pretrain_cli.cli.config.flatten", _raising(RuntimeError("wheels\ncame off")))
    outcome = ptk("config", "show")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: RuntimeError: wheels came off (this is a bug in ptk).\nHint:")
    assert "Traceback" in ptk("config", "show", "--debug").err


def test_a_bug_blames_no_variable_and_shows_no_secret(ptk, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    error = RuntimeError("index 0 is wrong; HF_TOKEN would help")
    monkeypatch.setattr("pretrain_cli.cli.config.flatten", _raising(error))
    done = ptk("config", "show")
    assert done.code == 1 and "(this is a bug in ptk)" in done.err
    assert "hf_abcdef" not in done.err and "CUDA_VISIBLE_DEVICES" not in done.err


@pytest.mark.parametrize("variable", [PRECISION, "ACCELERATE_DYNAMO_BACKEND"])
def test_accelerates_variable_is_named_where_its_value_is_read(ptk, monkeypatch, variable: str) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # of earlier tests
    monkeypatch.setenv("ACCELERATE_USE_CPU", "no")  # which the error about another quotes among what may be chosen
    monkeypatch.setenv(variable, "mistyped")
    monkeypatch.setattr(
        "pretrain_cli.cli.config.flatten", lambda *_: Accelerator(mixed_precision=os.environ.get(PRECISION))
    )
    message, hint = ptk("config", "show").error_lines
    assert message.startswith(f"Error: A library can't use the environment variable {variable}=mistyped: ")
    assert hint == f"Hint: Correct {variable}, or unset it."
    AcceleratorState._reset_state(reset_partial_state=True)


def test_ctrl_c_ends_with_130(ptk, monkeypatch) -> None:
    monkeypatch.setattr("pretrain_cli.cli.config.flatten", _raising(KeyboardInterrupt()))
    outcome = ptk("config", "show")
    assert outcome.code == 130
    assert len(outcome.error_lines) == 2


def test_progress_that_nobody_reads_any_more_ends_nothing() -> None:
    """As after a Ctrl-C that has ended the `tee` beside a training too, or in a terminal that was closed."""
    program = (
        "import sys; from pretrain_cli.cli.console import Console\n"
        "from pretrain_cli.cli.progress import LiveProgress, PlainProgress\n"
        "from pretrain_cli.errors import Interrupted; from pretrain_cli.cli.failures import fail\n"
        "live = LiveProgress(Console().err); live.stage('training', 9, 'steps')\n"
        "input(); live.note('w'); live.close()\n"
        "PlainProgress().note('x'); Console().warn('y'); print('still here', file=sys.stderr)\n"
        "print('done'); sys.exit(fail(Console(), Interrupted('a', 'b')))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stderr.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout.read() == "done\n"
        assert process.wait() == 130


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "train"),
        (["train", "--max-step", "3"], "--max-steps"),
        (["train", "--max-steps", "-4"], "greater than 0"),
        (["train", "--max-steps", "many"], "whole number"),
        (["train", "--max-minutes", "inf"], "finite"),
        (["--json", "train"], "ptk train … --json"),
        (["config", "show", "--artifacts"], "ptk config show --help"),
        (["config", "init", "."], "is a folder"),
        (["train", "--lr", "1e-3"], "Use --learning-rate. All options: ptk train --help"),
        (["train", "--batch-size=8"], "Use --batch-tokens, which counts tokens"),
        (["train", "--warmup-steps", "8"], "Use --set train.warmup_steps=VALUE"),
        (["prepare", "x", "--block-size", "8"], "Use --sequence-length"),
        (["train", "--device", "gpu", "--vebose"], "No such option: --vebose"),
        (["runs", "list", "--verbose"], "Use --debug"),
        (["train", "--set", "train.learnin_rate=1"], "train.learning_rate"),
        (["train", "--set", "train.learning_rate"], "no '='"),
        (["train", "--preset", "nope"], "tinysolar"),
        (["train", "--config", "nope.toml"], "nope.toml"),
        (["generate"], "prompt"),
        (["prepare"], "ptk prepare data.txt"),
    ],
)
def test_a_typing_mistake_is_two_lines_and_exit_code_2(ptk, arguments, words) -> None:
    outcome = ptk(*arguments)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 2, outcome.err
    assert words in outcome.err and "?." not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train"], 3),
        (["train", "--resume", "x"], 3),
        (["evaluate"], 4),
        (["evaluate", "x"], 4),
        (["generate", "x"], 4),
    ],
)
def test_a_command_before_its_time_is_refused_before_the_heavy_libraries_load(arguments: list[str], code: int) -> None:
    program = (
        "import sys; from pretrain_cli.cli.app import run; code = run(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, *arguments, "--artifacts", "nothing-here"]
    done = subprocess.run(command, capture_output=True, text=True)
    *_, error, hint, loaded = done.stderr.splitlines()
    assert (done.returncode, loaded) == (code, "[]"), done.stderr
    assert error.startswith("Error: ") and hint.startswith("Hint: ")


@pytest.mark.parametrize(
    "words",
    [
        "config keys",
        "--help",
        "train --help",
        "--version",
        "config keys --json",
        pytest.param("doctor", marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_away_is_no_error(words: str) -> None:
    line = f"{sys.executable} -m pretrain_cli {words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code"), [("config keys train.seed >&- 2>&-", 0), ("prepare - <&- 2>/dev/null", 3), ("train 2>&-", 3)]
)
def test_closed_streams_are_as_good_as_empty_ones(empty, line: str, code: int) -> None:
    assert subprocess.run(["bash", "-c", f"{sys.executable} -m pretrain_cli {line}"]).returncode == code


def test_ctrl_c_before_the_command_line_is_loaded_is_no_traceback(empty) -> None:
    program = (
        "import sys; from pretrain_cli.__main__ import main\n"
        "class Late:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'pretrain_cli.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Late()); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Stopped by Ctrl-C.\nNothing had started yet.\n")


@pytest.mark.parametrize(("error", "code"), [("RuntimeError", 130), ("OSError", 130), ("none", 0)])
def test_ctrl_c_in_an_import_stays_a_ctrl_c_whatever_the_library_makes_of_it(empty, error: str, code: int) -> None:
    (empty / "library.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "except KeyboardInterrupt:\n"
        f"    {'pass' if error == 'none' else f'raise {error}'}\n"
    )
    (empty / "pressed.py").write_text(
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pretrain_cli.cli import app\n"
        "app.make_app = lambda: lambda **given: __import__('library') and 0\n"
        "app.main()\n"
    )
    done = subprocess.run([sys.executable, "-m", "pressed"], capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert done.stderr.startswith("Stopped by Ctrl-C.") == (code == 130)


def test_ctrl_c_inside_a_librarys_exec_ends_by_its_exit_code_and_not_by_the_signal(empty) -> None:
    program = (
        "from pretrain_cli.cli import app\n"
        "def stopped(*given):\n"
        "    try: exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt: return 130\n"
        "app.run = stopped; app.main()"
    )
    (empty / "stopped.py").write_text(program)
    assert subprocess.run([sys.executable, "-m", "stopped"]).returncode == 130  # -c would hide the mark


def test_later_ranks_print_nothing(ptk, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    outcome = ptk("config", "keys", "train")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_resume_may_stand_without_its_value() -> None:
    assert app._as_meant(["train", "--resume"]) == ["train", "--resume="]
    assert app._as_meant(["train", "--resume", "--json"]) == ["train", "--resume=", "--json"]
    assert app._as_meant(["train", "--resume", "first"]) == ["train", "--resume", "first"]


def test_json_output_holds_no_nan() -> None:
    from pretrain_cli.cli.console import to_plain

    assert json.dumps(to_plain({"loss": float("nan"), "items": (1, 2.5)}), allow_nan=False)


def _raising(error: BaseException):
    def fail(*_: object) -> None:
        raise error

    return fail


def test_every_json_object_has_its_schema_the_version_and_the_warnings(ptk, empty: Path) -> None:
    for line in (["runs", "list"], ["config", "show"], ["config", "keys", "train.seed"], ["doctor"], ["runs", "show"],
                 ["train"], ["no-such"], ["export", "--json"]):  # fmt: skip
        found = ptk(*line, "--json").json
        assert (found["schema"], found["version"]) == (1, __version__), line
        assert isinstance(found["warnings"], list), line


def test_warnings_are_in_the_json_object_shown_or_not(ptk, empty: Path) -> None:
    (empty / "ptk.toml").write_text("[model]\ntrust_remote_code = true\n")
    for line in (["runs", "list"], ["runs", "list", "--quiet"], ["runs", "show"]):
        (warning,) = ptk(*line, "--json").json["warnings"]
        assert "lets a base's own code run" in warning
    console = Console(json=True, quiet=True)
    make_progress(console).warn("nobody sees it")
    assert console.warnings == ["nobody sees it"]


def test_resume_alone_is_the_run_touched_last_and_no_empty_name(ptk) -> None:
    told = ptk("train", "--resume")
    assert told.code == 3 and "empty" not in told.err
    assert ptk("evaluate", "").error_lines[0] == "Error: RUN is empty."


def test_what_triton_watches_is_freed_before_the_end(tmp_path: Path) -> None:
    """Its C++ side prints 30 lines about every object that is left when the process ends."""
    code = (
        "import sys, types\n"
        "class Watched:\n    def __del__(self): sys.__stderr__.write('freed')\n"
        "class Ring: pass\n"
        "ring = Ring(); ring.itself = ring; ring.watched = Watched()\n"
        "sys.modules['triton'] = types.ModuleType('triton')\n"
        "sys.argv = ['ptk', '--version']\n"
        "from pretrain_cli.__main__ import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "freed")


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no folder that a process is in")
@pytest.mark.parametrize("words", [("prepare", "/x.txt"), ("plan", "/x.txt"), ("doctor",), ("runs", "list")])
def test_a_working_folder_that_was_removed_is_said(tmp_path: Path, words) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"cd {gone} && rmdir {gone} && exec {sys.executable} -P -m pretrain_cli {' '.join(words)}"
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, env=ENVIRONMENT)
    refused(done, 2, "The working folder is gone", "cd")
