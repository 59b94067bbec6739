"""Completion, asked for as each shell asks: by variables of the environment."""

from __future__ import annotations

import ast
import itertools
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer._completion_classes import BashComplete, FishComplete, PowerShellComplete, ZshComplete

from pretrain_cli.cli import app
from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.completing import VALUES
from pretrain_cli.cli.tab import answer, join_bash_words
from pretrain_cli.config.load import known_keys, preset_names
from pretrain_cli.exporting.run import FORMATS
from pretrain_cli.model.sizes import SIZES

Complete = Callable[..., list[str]]
SHELLS: dict[str, Any] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
    "powershell": PowerShellComplete,
}


@pytest.fixture(params=["by the table", "by typer"])
def complete(
    request: pytest.FixtureRequest, empty: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Complete:
    """The completions of the last word, as bash asks for them; ``=`` and ``@`` are words of their own there."""

    def ask(*words: str) -> list[str]:
        variables = as_bash_asks(*words)
        if request.param == "by the table":
            answered = answer({**os.environ, **variables})
            assert answered is not None and answered[1] == 0
            return answered[0].splitlines()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        assert app.run([]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return [line for line in out.splitlines() if line]

    return ask


def as_bash_asks(*words: str) -> dict[str, str]:
    """The variables that bash sets to complete the last of ``words``."""
    return {
        "_PTK_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["ptk", *words]),
        "COMP_CWORD": str(len(words)),
    }


def as_others_ask(shell: str, *words: str) -> dict[str, str]:
    """The variables that zsh, fish and PowerShell set to complete the last of ``words``."""
    return {
        "_PTK_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": " ".join(["ptk", *words]),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
    }


def make_run(name: str, *steps: int, root: str = "artifacts") -> None:
    """What completion sees of a run: its record and the folders of its checkpoints."""
    folder = Path(root, "runs", name)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    for step in steps:
        (folder / "checkpoints" / f"step-{step:06d}").mkdir()


def test_commands_and_options_complete(complete: Complete) -> None:
    assert complete("tr") == ["train"]
    assert complete("config", "k") == ["keys"]
    assert complete("train", "--learn") == ["--learning-rate"]


def test_config_keys_complete_and_the_value_follows_at_once(complete: Complete) -> None:
    assert complete("train", "--set", "train.learning") == ["train.learning_rate="]
    assert complete("train", "--set", "") == [f"{key}=" for key in known_keys()]
    assert complete("config", "keys", "train.learning") == ["train.learning_rate"]
    assert "train" in complete("config", "keys", "")


def test_the_words_that_a_config_key_allows_complete_after_the_equals_sign(complete: Complete) -> None:
    assert complete("train", "--set", "train.schedule", "=") == ["auto", "linear", "cosine", "wsd", "constant"]
    assert complete("train", "--set", "train.schedule", "=", "co") == ["cosine", "constant"]
    assert complete("train", "--set", "model.size", "=", "mi") == ["micro", "mini"]
    assert complete("train", "--set", "train.no_such_key", "=", "") == []
    assert complete("train", "--precision", "bf") == ["bf16", "bf16-weights"]


def test_presets_sizes_devices_machines_and_formats_complete(complete: Complete) -> None:
    assert complete("train", "--preset", "") == preset_names()
    assert complete("train", "--size", "") == ["auto", *(shape.name for shape in SIZES)]
    assert complete("train", "--device", "c") == ["cpu", "cuda"]
    assert complete("plan", "--for", "h") == ["h200", "h100", "h100-pcie"]
    assert complete("export", "--to", "") == list(FORMATS)


def test_runs_complete_and_their_checkpoints_after_the_whole_name(complete: Complete) -> None:
    make_run("first", 100, 200)
    make_run("second", 50)
    assert sorted(complete("evaluate", "")) == ["base", "first", "second"]
    assert complete("runs", "show", "f") == ["first"]
    assert complete("evaluate", "first") == ["first", "first@step-000100", "first@step-000200"]
    assert complete("evaluate", "first", "@") == ["@step-000100", "@step-000200"]  # as readline wants them
    assert complete("evaluate", "second", "first", "@", "step-0002") == ["@step-000200"]
    assert complete("train", "--resume", "second", "@") == ["@step-000050"]
    assert complete("export", "first") == ["first"]  # takes --checkpoint instead
    assert complete("export", "first", "--checkpoint", "") == ["step-000200", "step-000100"]
    assert complete("generate", "--model", "b") == ["base"]
    assert complete("train", "--teacher", "fi") == ["first"]
    assert complete("train", "--set", "train.teacher", "=", "fi") == ["first"]
    assert complete("generate", "--model", "first", "--checkpoint", "") == ["step-000200", "step-000100", "all"]


def test_runs_come_from_the_folder_that_the_line_or_the_environment_names(
    complete: Complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("there", root="elsewhere")
    assert complete("evaluate", "") == ["base"]
    assert complete("evaluate", "--artifacts", "elsewhere", "") == ["there", "base"]
    monkeypatch.setenv("PTK_ARTIFACTS", "elsewhere")
    assert complete("evaluate", "") == ["there", "base"]


def test_a_folder_that_no_run_can_be_called_is_never_told_to_a_shell(complete: Complete) -> None:
    make_run("$(touch evil)")
    make_run("good")
    assert complete("runs", "show", "") == ["good"]


def test_where_files_belong_nothing_is_told_so_that_the_shell_completes_files(complete: Complete) -> None:
    Path("text.txt").write_text("x")
    assert complete("prepare", "te") == []
    assert complete("train", "--config", "te") == []


@pytest.mark.parametrize(
    ("typed", "at", "joined", "place", "kept"),
    [
        (["ptk", "train", "--se"], 2, ["ptk", "train", "--se"], 2, ""),
        (["ptk", "--set", "a.b", "=", "c"], 4, ["ptk", "--set", "a.b=c"], 2, "a.b="),
        (["ptk", "--set", "a.b", "="], 3, ["ptk", "--set", "a.b="], 2, "a.b="),
        (["ptk", "--set", "a.b", "=", "c", "run", "@"], 6, ["ptk", "--set", "a.b=c", "run@"], 3, "run"),
        (["ptk", "--set", "a.b", "=", "c", "run", "@", "st"], 7, ["ptk", "--set", "a.b=c", "run@st"], 3, "run"),
        (["ptk", "--set", "a.b", "=", ""], 4, ["ptk", "--set", "a.b=", ""], 3, ""),
        (["ptk", "--set", "a.b", "=", "c", "--si"], 5, ["ptk", "--set", "a.b=c", "--si"], 3, ""),
    ],
)
def test_words_that_bash_took_apart_are_put_together(
    typed: list[str], at: int, joined: list[str], place: int, kept: str
) -> None:
    environ = {"COMP_WORDS": "\n".join(typed), "COMP_CWORD": str(at)}
    assert join_bash_words(environ) == kept
    assert (environ["COMP_WORDS"].split("\n"), environ["COMP_CWORD"]) == (joined, str(place))


@pytest.mark.parametrize(
    ("shell", "variables", "told"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "ptk train --size mic"}, "_arguments '*: :((\"micro\"))'"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "ptk train --size mic", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "micro",
        ),
        (
            "powershell",
            {"_TYPER_COMPLETE_ARGS": "ptk train --size mic", "_TYPER_COMPLETE_WORD_TO_COMPLETE": "mic"},
            "micro:::",
        ),
    ],
)
def test_the_other_shells_get_theirs(ptk, monkeypatch, shell: str, variables: dict[str, str], told: str) -> None:
    for name, value in {"_PTK_COMPLETE": f"complete_{shell}", **variables}.items():
        monkeypatch.setenv(name, value)
    assert ptk().out.strip() == told


def command_lines() -> list[list[str]]:
    """Lines that each command may meet, up to the word that is completed."""

    def of(command: Any, words: list[str]) -> list[list[str]]:
        lines = [[*words, ""], [*words, "-"], [*words, "--"], [*words, "--se"]]
        lines += [] if hasattr(command, "commands") else [[*words, "--json", "--"]]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                lines.append([*words, parameter.opts[0], ""])
        for name, child in getattr(command, "commands", {}).items():
            lines += [[*words, name[:2]], *of(child, [*words, name])]
        return lines

    return of(typer.main.get_command(make_app()), [])


def test_the_table_answers_as_typer_does(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run("first", 100)
    command = typer.main.get_command(make_app())
    lines = command_lines()
    assert len(lines) > 300
    for words, shell in zip(lines, itertools.cycle(SHELLS), strict=False):
        variables = as_bash_asks(*words) if shell == "bash" else as_others_ask(shell, *words)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        answered = answer(os.environ)
        if len(words) > 1 and words[0].startswith("-"):
            assert answered is None  # no command comes after these
            continue
        assert answered is not None, words
        by_typer = SHELLS[shell](command, {}, "ptk", "_PTK_COMPLETE").complete()
        assert told_to_a_shell(answered[0]) == told_to_a_shell(by_typer), (shell, words)


def told_to_a_shell(text: str) -> list[str]:
    """The words of an answer: typer breaks a long help at the terminal's width, and has names of --help in a set."""
    return sorted(text.removeprefix("_arguments '*: :((").rstrip().removesuffix("))'").split())


def test_what_the_table_does_not_know_is_left_to_typer(empty: Path) -> None:
    for words in (["no-such-command", ""], ["train", "--no-such-option", "x", ""], ["train", "stray", ""], ["-x", ""]):
        assert answer({**os.environ, **as_bash_asks(*words)}) is None
    assert answer({**os.environ, "_PTK_COMPLETE": "source_bash"}) is None


def test_a_tab_loads_the_standard_library_alone(empty: Path) -> None:
    program = (
        "import sys; from pretrain_cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True, text=True, check=True, env={**os.environ, **as_bash_asks("train", "--size", "mi")},
    )  # fmt: skip
    *words, modules = done.stdout.splitlines()
    assert words == ["micro", "mini"]
    assert not {"typer", "pydantic", "rich", "torch", "numpy"} & set(ast.literal_eval(modules))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_a_script(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    with pytest.raises(SystemExit) as end:
        app.run(["--show-completion"])
    out = capfd.readouterr().out
    assert end.value.code == 0 and f"complete_{shell}" in out
    assert ("compopt -o nospace" in out) == (shell == "bash")


def test_every_completer_belongs_to_an_option_or_argument(ptk) -> None:
    shown = ptk("train", "--help").out + ptk("generate", "--help").out + ptk("export", "--help").out
    shown += ptk("inspect", "--help").out + ptk("plan", "--help").out + ptk("config", "keys", "--help").out
    assert [name for name in VALUES if name not in shown] == []


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("bash") is None or not Path(sys.executable).with_name("ptk").exists(), reason="needs bash and ptk"
)
def test_a_real_bash_completes_keys_without_a_space_and_values_and_checkpoints(empty: Path) -> None:
    import pty

    make_run("first", 100)
    script = empty / "ptk.bash"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PS1": "> ", "TERM": "dumb", "INPUTRC": os.devnull}
    asked = {"_PTK_COMPLETE": "source_bash"}
    done = subprocess.run(["ptk"], env={**environment, **asked}, capture_output=True, text=True, check=True)
    script.write_text(done.stdout)
    control, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)

    def type_(keys: str, wanted: str) -> str:
        os.write(control, keys.encode())
        said, end = "", time.monotonic() + 60
        while wanted not in said and time.monotonic() < end:
            if select.select([control], [], [], 0.1)[0]:
                said += os.read(control, 1 << 16).decode()
        assert wanted in said, said
        return said

    try:
        type_(f"source {script}; echo re''ady\n", "ready\r\n> ")
        type_("ptk train --set train.learning\t", "train.learning_rate=")
        type_(
            "\x01echo \x05X\n", "\r\nptk train --set train.learning_rate=X\r\n> "
        )  # typed before its prompt, Ctrl-D would end the shell
        type_("echo ptk train --set train.schedule=\x01\x04\x04\x04\x04\x04\x05cos\t", "=cosine ")
        type_("\x15ptk evaluate first@\t", "step-000100 ")
        type_("\x01echo \x05\n", "\r\nptk evaluate first@step-000100\r\n> ")
        type_("\x15exit\n", "exit")
    finally:
        shell.kill()
        shell.wait()
        os.close(control)
