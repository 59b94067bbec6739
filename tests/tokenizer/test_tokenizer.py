"""Tokenizers that are trained here, and those that come from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import find_base
from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.tokenizer.copy import copy_tokenizer
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.tokenizer.train import choose_vocab_size, train_tokenizer
from tests.support.tiny import SAMPLE, make_tokenizer


def test_a_trained_tokenizer_gives_any_text_back_byte_for_byte(tmp_path: Path) -> None:
    train_tokenizer([SAMPLE] * 20, 400, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "  Ünïcode \t 1234\r\n 👩‍👩‍👧‍👦 \x00 <|eos|"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer) <= 400


def test_a_trained_tokenizer_puts_bos_in_front_and_names_its_marks(tmp_path: Path) -> None:
    train_tokenizer([SAMPLE], 300, tmp_path)
    info = read_tokenizer(tmp_path)
    assert (info.bos_id, info.eos_id, info.pad_id, info.adds_bos) == (0, 1, 2, True)
    assert AutoTokenizer.from_pretrained(tmp_path)("a")["input_ids"][0] == info.bos_id


def test_a_bare_tokenizer_json_becomes_a_folder_that_opens(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "source")
    (tmp_path / "bare").mkdir()
    shutil.copyfile(tmp_path / "source" / "tokenizer.json", tmp_path / "bare" / "mine.json")
    copy_tokenizer(tmp_path / "bare" / "mine.json", tmp_path / "copy")
    assert read_tokenizer(tmp_path / "copy").eos_id == read_tokenizer(tmp_path / "source").eos_id
    assert AutoTokenizer.from_pretrained(tmp_path / "copy").eos_token == "<|eos|>"


def test_the_vocabulary_grows_with_the_text() -> None:
    sizes = [choose_vocab_size(10**power) for power in range(4, 12)]
    assert sizes == sorted(sizes) and sizes[0] == 512 and sizes[-1] == 16_384


def test_a_path_without_a_tokenizer_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No tokenizer"):
        copy_tokenizer(tmp_path / "missing", tmp_path / "copy")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(DataError, match="can be read"):
        copy_tokenizer(tmp_path / "broken.json", tmp_path / "copy")


def test_a_base_that_is_no_folder_no_file_and_no_hub_id_is_refused_at_once(tmp_path: Path) -> None:
    for name in ("./nowhere", "missing.gguf", "nothing"):
        with pytest.raises(ModelError, match="No base"):
            find_base(name, Artifacts(tmp_path))


def test_a_hub_id_is_refused_at_once_where_the_hub_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        find_base("owner/name-that-is-nowhere", Artifacts(tmp_path))
