"""`ptk generate` before a model is opened: prompts, and names that are wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pretrain_cli.cli.generate import _read_prompts, _side_by_side, _text_of
from pretrain_cli.errors import UsageError
from pretrain_cli.generation.results import GeneratedText, GenerateResult, TokenProbability
from tests.support.tiny import make_model


def test_generate_before_train_names_train_and_prints_no_prompt(ptk) -> None:
    outcome = ptk("generate", "Once")
    assert outcome.code == 4
    assert outcome.out == ""
    assert "ptk train" in outcome.err and len(outcome.error_lines) == 2


def test_prompts_come_from_the_line_a_file_and_standard_input(tmp_path: Path, monkeypatch) -> None:
    import io

    (tmp_path / "prompts.txt").write_text("one\n\nt\u2028w\x85\x0co\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    assert _read_prompts(["-", "zero"], tmp_path / "prompts.txt") == ["typed", "zero", "one", "t\u2028w\x85\x0co"]
    with pytest.raises(UsageError):
        _read_prompts([], None)


def test_a_missing_prompts_file_is_two_lines(ptk) -> None:
    outcome = ptk("generate", "--prompts-file", "nope.txt")
    assert outcome.code == 2 and "nope.txt" in outcome.err and len(outcome.error_lines) == 2


def test_probabilities_keep_the_text_as_it_is() -> None:
    tokens = [TokenProbability(1, " [a]", 0.05, []), TokenProbability(2, " b", 0.9, [])]
    sample = GeneratedText("Say", " [a] b", 2, 0.1, 20.0, probabilities=tokens)
    assert _text_of(sample).plain == "Say [a] b"


def test_coloured_text_ends_before_the_stop_text_too() -> None:
    tokens = [TokenProbability(1, " 日本 a", 0.05, []), TokenProbability(2, ". Stop", 0.9, [])]
    sample = GeneratedText("Say", " 日本 a.", 2, 0.1, 20.0, finish="stop", probabilities=tokens)
    assert _text_of(sample).plain == "Say 日本 a."


def test_several_models_are_told_one_after_the_other_in_a_pipe(ptk, empty: Path) -> None:
    one, two = str(make_model(empty / "one")), str(make_model(empty / "two", seed=1))
    line = ("generate", "Call me", "--model", one, "--against", two, "--greedy", "--max-tokens", "4")
    outcome = ptk(*line)
    assert outcome.out.index(one) < outcome.out.index("Call me") < outcome.out.index(two)
    assert outcome.out.count("Call me") == 2 and "writing with two" in outcome.err
    value = ptk(*line, "--json").json
    assert [model["model"] for model in value["models"]] == [one, two]
    assert value["samples"] == [sample for model in value["models"] for sample in model["samples"]]
    assert value["warnings"] == []


def test_ctrl_c_while_streaming_ends_the_line_and_says_so_in_two(ptk, empty: Path, monkeypatch) -> None:
    def interrupted(*_: object, on_text, **__: object) -> None:
        on_text(0, " upon a")
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain_cli.generation.run.generate", interrupted)
    outcome = ptk("generate", "Once", "--model", str(make_model(empty / "tiny")))
    assert outcome.code == 130
    assert outcome.out == "Once upon a\n"
    assert len(outcome.error_lines) == 2 and outcome.error_lines == outcome.err.strip().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "llama.cpp"])
def test_a_real_ctrl_c_ends_a_process_that_streams(empty: Path, engine: str) -> None:
    if engine == "llama.cpp":
        pytest.importorskip("xllamacpp")
    tiny = make_model(empty / "tiny", max_position_embeddings=200_000)
    line = [sys.executable, "-m", "pretrain_cli", "generate", "Call me", "--model", str(tiny), "--engine", engine]
    process = subprocess.Popen(
        [*line, "--greedy", "--max-tokens", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    first = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and (first + out).endswith(b"\n")
    # llama.cpp reads a file that is written first, which is said.
    assert err.strip().splitlines()[-2] == b"Stopped by Ctrl-C."
    assert b"Traceback" not in err


@pytest.mark.parametrize("extra", [(), ("--interactive",), ("--json",)])
def test_a_prompt_that_is_no_unicode_is_two_lines(ptk, empty: Path, extra: tuple[str, ...]) -> None:
    outcome = ptk("generate", "bad \udcff", "--model", str(make_model(empty / "tiny")), *extra)
    assert outcome.code == 2 and len(outcome.error_lines) == 2
    assert "surrogate" in outcome.err and (outcome.out == "" or extra == ("--json",))


def test_a_prompts_file_that_is_no_utf_8_is_two_lines(ptk, empty: Path) -> None:
    (empty / "prompts.txt").write_bytes(b"ok\n\xff\n")
    outcome = ptk("generate", "--prompts-file", "prompts.txt")
    assert outcome.code == 2 and "byte 3" in outcome.err and len(outcome.error_lines) == 2


def test_interactive_in_a_pipe_takes_a_turn_a_line(ptk, empty: Path, monkeypatch) -> None:
    import io

    tiny = str(make_model(empty / "tiny"))
    monkeypatch.setattr("sys.stdin", io.StringIO("Call me\n and then\n/new\nCall me\n"))
    outcome = ptk("generate", "--interactive", "--model", tiny, "--greedy", "--max-tokens", "4", "--json")
    first, second, third = outcome.json["samples"]
    assert second["prompt"] == f"Call me{first['text']} and then"
    assert third["prompt"] == "Call me" and third["text"] == first["text"]


def test_a_slash_is_a_command_and_not_text_for_the_model(ptk, empty: Path, monkeypatch) -> None:
    import io

    tiny = str(make_model(empty / "tiny"))
    monkeypatch.setattr("sys.stdin", io.StringIO("/help\n/nothing\n /help\n/quit\nCall me\n"))
    outcome = ptk("generate", "-i", "--model", tiny, "--max-tokens", "2")
    assert outcome.err.count("/new: start over") == 2 and "There is no /nothing." in outcome.err
    assert len(outcome.out.splitlines()) == 1, "only the line with a space before it was sent"


def test_interactive_says_when_the_model_wrote_nothing(ptk, empty: Path, monkeypatch) -> None:
    typed, written = iter(["Call me", ""]), iter([" Ishmael.", ""])

    def line(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    def say(self: object, typed: str, on_text: object) -> GeneratedText:
        return GeneratedText(typed, next(written), tokens=1, seconds_to_first_token=0.0, tokens_per_second=1.0)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", line)
    monkeypatch.setattr("pretrain_cli.generation.conversation.Conversation.say", say)
    outcome = ptk("generate", "-i", "--model", str(make_model(empty / "tiny")))
    assert outcome.err.count("The model wrote nothing") == 1


def test_ctrl_c_at_the_prompt_ends_the_session_without_an_error(ptk, empty: Path, monkeypatch) -> None:
    def pressed(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", pressed)
    outcome = ptk("generate", "-i", "--model", str(make_model(empty / "tiny")))
    assert outcome.code == 0 and "Error" not in outcome.err and "Stopped" not in outcome.err


def test_interactive_refuses_what_it_cannot_do(ptk, empty: Path) -> None:
    outcome = ptk("generate", "-i", "--against", "base")
    assert outcome.code == 2 and "--against" in outcome.err and len(outcome.error_lines) == 2


def test_two_models_stand_side_by_side() -> None:
    one, two = (GenerateResult([GeneratedText("Say", text, 2, 0.1, 20.0)]) for text in (" this", " [that]"))
    console = Console(width=80)
    with console.capture() as shown:
        console.print(_side_by_side(["first", "base"], [one, two]))
    assert any("Say this" in line and "Say [that]" in line for line in shown.get().splitlines())
