"""What a tokenizer loses of a text is counted, and said wherever a figure in bits per byte stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.manifest import read_manifest
from pretrain_cli.storage import read_json
from pretrain_cli.tokenizer.as_opened import settle_class
from pretrain_cli.tokenizer.round_trip import round_trip, told
from pretrain_cli.training.run import train
from tests.support.runs import prepare_text, record_of, small
from tests.support.tiny import SAMPLE, make_tokenizer

TEXT = "The Whale\nswam  away. Ünknown 日本"


def lossless(folder: Path) -> Tokenizer:
    return make_tokenizer(folder)


def lower_casing(folder: Path) -> Tokenizer:
    tokenizer = make_tokenizer(folder)
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def stripping(folder: Path) -> Tokenizer:
    tokenizer = make_tokenizer(folder)
    tokenizer.normalizer = normalizers.Replace("  ", " ")
    return tokenizer


def without_newlines(folder: Path) -> Tokenizer:
    tokenizer = make_tokenizer(folder)
    tokenizer.normalizer = normalizers.Replace("\n", "")
    return tokenizer


def with_unknown(folder: Path) -> Tokenizer:
    """Words of letters only, each other character unknown, as BERT's do it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    specials = ["[UNK]", "<|bos|>", "<|eos|>", "<|pad|>"]
    tokenizer.train_from_iterator(
        ["The Whale swam away. nknow"] * 4, trainers.WordPieceTrainer(special_tokens=specials, show_progress=False)
    )
    return tokenizer


CASES = [
    (lossless, 0, 0),
    (lower_casing, 3, 0),
    (stripping, 1, 0),
    (without_newlines, 1, 0),
    (with_unknown, 9, 2),
]


@pytest.mark.parametrize(("make", "lost", "unknown"), CASES)
def test_lost_characters_are_counted(make, lost: int, unknown: int, tmp_path: Path) -> None:
    found = round_trip(make(tmp_path), [TEXT, "The"])
    assert (found.texts, found.characters) == (2, len(TEXT) + 3)
    if make is lower_casing:
        lost += 1  # of "The"
    assert (found.unknown, found.lost) == (unknown, pytest.approx(lost, abs=2 if unknown else 0))
    assert bool(told(found)) == bool(lost)


def test_one_space_at_the_beginning_is_a_mark_and_no_loss(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert round_trip(tokenizer, ["Call me", " Call me"]).changed == 0


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    folder = tmp_path / "lossy"
    lower_casing(folder).save(str(folder / "tokenizer.json"))
    return folder


def test_a_lossy_tokenizer_is_said_by_prepare_train_and_evaluate(lossy: Path, tmp_path: Path) -> None:
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, tokenizer__path=str(lossy))
    manifest = read_manifest(artifacts)
    assert manifest.tokenizer.round_trip is not None and manifest.tokenizer.round_trip.lost
    assert any("doesn't give a sample of the text back" in warning for warning in manifest.warnings)
    run = artifacts.run(train(small(train__max_steps=1), artifacts).run)
    assert any("bits per byte look better than they are" in line for line in record_of(run).choices)
    assert "look better than they are" in (run.model / "README.md").read_text(encoding="utf-8")
    scored = evaluate(changed(Config(), evaluate__on=("general", "validation"), evaluate__sample=3000), artifacts)
    assert "as the rows' tokenizer gives it back, which loses" in scored.held_out
    assert any("doesn't give 'general' back" in warning for warning in scored.warnings)
    assert scored.models[0].texts[0].lost_characters > 10


def test_a_lossless_tokenizer_is_not_doubted(tmp_path: Path) -> None:
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20)
    manifest = read_manifest(artifacts)
    assert manifest.tokenizer.round_trip is not None and not manifest.tokenizer.round_trip.changed
    assert not [warning for warning in manifest.warnings if "back" in warning]


def ids(folder: Path, text: str) -> tuple[list[int], list[int]]:
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids, own.encode(
        text, add_special_tokens=False
    ).ids


def test_a_class_that_makes_other_ids_is_replaced_and_said(tmp_path: Path) -> None:
    """BertTokenizer takes the vocabulary out of a tokenizer.json, and splits and lower-cases as BERT does."""
    tokenizer = with_unknown(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    as_named, own = ids(tmp_path, TEXT)
    assert as_named != own
    told_of = settle_class(tmp_path, [TEXT])
    assert "As BertTokenizer, AutoTokenizer would make other ids" in told_of
    as_named, own = ids(tmp_path, TEXT)
    assert as_named == own


def test_a_class_that_makes_the_same_ids_stays(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    before = read_json(tmp_path / "tokenizer_config.json")
    assert settle_class(tmp_path, [TEXT, SAMPLE]) == ""
    assert read_json(tmp_path / "tokenizer_config.json") == before


def test_a_run_s_folder_opens_as_what_was_trained(tmp_path: Path) -> None:
    artifacts: Artifacts = prepare_text(tmp_path / "data", SAMPLE * 20)
    run = artifacts.run(train(small(train__max_steps=1), artifacts).run)
    as_opened, own = ids(run.model, SAMPLE)
    assert as_opened == own
