"""`ptk evaluate` on what goes wrong: two lines, the right exit code; and what it prints."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support.tiny import SAMPLE, make_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(SAMPLE * 3, "utf-8")
    return file


def _no_weights(model: Path, text: Path) -> None:
    (model / "model.safetensors").unlink()


def _truncated(model: Path, text: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _nan(model: Path, text: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def _no_tokenizer(model: Path, text: Path) -> None:
    (model / "tokenizer.json").unlink()


def _bigger_tokenizer(model: Path, text: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    token = {"content": "<|extra|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"].append({"id": 400, **token, **flags})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")


def _no_text(model: Path, text: Path) -> None:
    text.unlink()


def _one_byte(model: Path, text: Path) -> None:
    text.write_text("x")


def _empty(model: Path, text: Path) -> None:
    text.write_bytes(b"")


def _binary(model: Path, text: Path) -> None:
    text.write_bytes(bytes(range(256)) * 40)


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (_no_weights, 4, "no weights"),
        (_truncated, 4, "cut short"),
        (_nan, 4, "NaN"),
        (_no_tokenizer, 4, "tokenizer.json"),
        (_bigger_tokenizer, 4, "embedding"),
        (_no_text, 3, "doesn't exist"),
        (_one_byte, 3, "too short"),
        (_empty, 3, "too short"),
        (_binary, 3, "text.txt"),
    ],
)
def test_bad_input_is_two_lines_and_the_right_exit_code(ptk, model: Path, text: Path, damage, code, words) -> None:
    damage(model, text)
    outcome = ptk("evaluate", str(model), "--on", str(text))
    assert outcome.code == code, outcome.err
    assert len(outcome.error_lines) == 2 and outcome.error_lines[1].startswith("Hint:")
    assert words in outcome.error_lines[0]


def test_a_text_that_vanishes_while_it_is_scored_is_a_data_error(ptk, model: Path, text: Path, monkeypatch) -> None:
    from pretrain_cli.evaluation import run

    opened = run.open_model

    def vanish(*arguments: object) -> object:
        text.unlink(missing_ok=True)
        return opened(*arguments)

    monkeypatch.setattr(run, "open_model", vanish)
    outcome = ptk("evaluate", str(model), "--on", str(text))
    assert outcome.code == 3 and len(outcome.error_lines) == 2
    assert "text.txt can't be read" in outcome.error_lines[0]


def test_a_record_with_half_a_character_is_a_data_error_with_its_place(ptk, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "half.jsonl"
    file.write_text('{"text": "whole"}\n{"text": "half \\ud800"}\n')
    outcome = ptk("evaluate", str(model), "--on", str(file))
    assert outcome.code == 3 and "line 2" in outcome.error_lines[0]


def test_a_model_that_is_nowhere_names_what_could_be_meant(ptk) -> None:
    outcome = ptk("evaluate", "nothing-here")
    assert outcome.code == 4 and "Hub id" in outcome.err


@pytest.mark.slow
def test_scores_have_intervals_and_two_models_a_verdict(ptk, model: Path, whole: Path, text: Path) -> None:
    text.write_text(SAMPLE * 30, "utf-8")
    outcome = ptk("evaluate", str(model), str(whole), "--on", f"prose={text}", "--on", "general", "--sample", "6000")
    assert outcome.code == 0, outcome.err
    assert " to " in outcome.out and "no difference seen" in outcome.out and "general: " in outcome.out


@pytest.mark.slow
def test_texts_come_in_every_format_that_prepare_reads(ptk, model: Path, tmp_path: Path) -> None:
    import gzip

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt.gz").write_bytes(gzip.compress(SAMPLE.encode()))
    (tmp_path / "folder" / "b.csv").write_text('text\n"one, two"\n')
    arguments = ("--on", f"all={tmp_path / 'folder'}", "--json")
    scores = ptk("evaluate", str(model), *arguments).json["models"][0]["texts"][0]
    assert scores["documents"] == 2 and scores["bytes"] == len(SAMPLE.encode()) + len("one, two")
