"""`ptk generate` before a model is opened: prompts, and names that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.cli.generate import _read_prompts, _text_of
from pretrain_cli.errors import UsageError
from pretrain_cli.generation.results import Sample, TokenProbability


def test_generate_before_train_names_train_and_prints_no_prompt(ptk) -> None:
    outcome = ptk("generate", "Once")
    assert outcome.code == 4
    assert outcome.out == ""
    assert "ptk train" in outcome.err and len(outcome.error_lines) == 2


def test_prompts_come_from_the_line_a_file_and_standard_input(tmp_path: Path, monkeypatch) -> None:
    import io

    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    assert _read_prompts(["-", "zero"], tmp_path / "prompts.txt") == ["typed", "zero", "one", "two"]
    with pytest.raises(UsageError):
        _read_prompts([], None)


def test_a_missing_prompts_file_is_two_lines(ptk) -> None:
    outcome = ptk("generate", "--prompts-file", "nope.txt")
    assert outcome.code == 2 and "nope.txt" in outcome.err and len(outcome.error_lines) == 2


def test_probabilities_keep_the_text_as_it_is() -> None:
    tokens = [TokenProbability(1, " [a]", 0.05, []), TokenProbability(2, " b", 0.9, [])]
    sample = Sample("Say", " [a] b", 2, 0.1, 20.0, probabilities=tokens)
    assert _text_of(sample).plain == "Say [a] b"
