"""A stranger's tokenizer that makes ids, text or work without bound is refused in two lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.data.encoding.encoder import Encoder, EncoderSettings
from pretrain_cli.data.encoding.engine_choice import choose_encoder
from pretrain_cli.data.encoding.vocabulary_bytes import lacks_bytes
from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.tokenizer.extend import extend_tokenizer
from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer
from tests.support.tiny import make_tokenizer

SEQUENCE: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
BEYOND = 1_000_000
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, SEQUENCE],
    "pair": [SEQUENCE, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [BEYOND], "tokens": ["<s>"]}},
}
BERT = {"type": "BertProcessing", "sep": ["x", BEYOND], "cls": ["y", 0]}
ROBERTA = {"type": "RobertaProcessing", "sep": ["x", 0], "cls": ["y", BEYOND], "trim_offsets": True}
MORE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
ENDLESS = {"Regex": "((a|a)+)+b"}
SPLIT = {"type": "Split", "pattern": ENDLESS, "behavior": "Isolated", "invert": False}


def with_parts(folder: Path, **parts: Any) -> Path:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **parts}), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"post_processor": TEMPLATE}, "post-processor adds the id 1,000,000"),
        ({"post_processor": BERT}, "post-processor adds the id 1,000,000"),
        (
            {"post_processor": {"type": "Sequence", "processors": [{**ROBERTA, "add_prefix_space": True}]}},
            "post-processor adds the id 1,000,000",
        ),
        ({"post_processor": {**TEMPLATE, "single": [SEQUENCE] * 2_000, "special_tokens": {}}}, "adds 2,002 ids"),
        ({"normalizer": {"type": "Sequence", "normalizers": [MORE] * 5}}, "normalizer makes up to 1e"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 2_000}}, "normalizer makes"),
        (
            {"decoder": {"type": "Sequence", "decoders": [{"type": "Sequence", "decoders": [MORE] * 5}]}},
            "decoder makes up to 1e",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 4_000_000_000}, "merges": []}}, "only 5 entries"),
    ],
)
def test_ids_and_text_without_bound_are_refused(tmp_path: Path, parts: dict[str, Any], told: str) -> None:
    make_tokenizer(tmp_path)
    file = with_parts(tmp_path, **parts)
    for opened in (lambda: read_tokenizer(tmp_path), lambda: open_tokenizer(file)):
        with pytest.raises(DataError, match=told):
            opened()


def test_usual_replacements_are_taken(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "NFKC"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    with_parts(tmp_path, normalizer={"type": "Sequence", "normalizers": steps})
    assert read_tokenizer(tmp_path).vocab_size > 256


@pytest.mark.parametrize(
    "parts", [{"pre_tokenizer": SPLIT}, {"normalizer": {"type": "Replace", "pattern": ENDLESS, "content": "x"}}]
)
def test_a_pattern_that_takes_too_long_is_told(tmp_path: Path, parts: dict[str, Any]) -> None:
    make_tokenizer(tmp_path)
    file = with_parts(tmp_path, **parts)
    encoder = Encoder(EncoderSettings(file, "tokenizers", False, ""), counts_lost=False)
    with pytest.raises(DataError, match="can't work on this text"):
        encoder.encode(["a" * 40])


def test_a_damaged_record_of_added_entries_is_told(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "extension.json").write_text('{"first": "x"}')
    with pytest.raises(DataError, match=r"extension\.json"):
        read_tokenizer(tmp_path)


ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


def with_added(folder: Path, number: int) -> Path:
    make_tokenizer(folder)
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return with_parts(folder, added_tokens=[*added, {"id": number, "content": "of no vocabulary", **ADDED}])


def test_an_added_token_with_an_id_far_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    """fastokens asks for memory up to that id."""
    file = with_added(tmp_path, 4_000_000_000)
    for opened in (lambda: read_tokenizer(tmp_path), lambda: open_tokenizer(file)):
        with pytest.raises(DataError, match="'of no vocabulary' has the id 4,000,000,000"):
            opened()


def test_an_added_token_with_another_id_than_in_its_file_is_read_as_transformers_reads_it(
    tmp_path: Path,
) -> None:
    file = with_added(tmp_path, 1)
    chosen, reason = choose_encoder(file, "auto", False, ["a text of no vocabulary"])
    assert chosen.engine == "tokenizers" and "has the id 1 in its file, and gets" in reason
    with pytest.raises(ModelError, match="has the id 1 in its file"):
        extend_tokenizer(tmp_path, "mine", ["a text"], 8)


def test_padding_in_the_file_takes_no_memory(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    padding = {"strategy": {"Fixed": 10**8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    with_parts(tmp_path, padding={**padding, "pad_type_id": 0, "pad_token": "x"})
    started = time.perf_counter()
    read_tokenizer(tmp_path)
    assert time.perf_counter() - started < 1


def test_a_tokenizer_that_has_no_entry_for_a_word_is_told(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    file = with_parts(tmp_path, model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}, added_tokens=[])
    encoder = Encoder(EncoderSettings(file, "tokenizers", False, ""), counts_lost=False)
    with pytest.raises(DataError, match="can't work on this text"):
        encoder.encode(["a word"])


def test_a_unigram_model_may_follow_a_byte_level_step(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["?", 0.0], ["a", -1.0]], "byte_fallback": False}
    assert lacks_bytes(with_parts(tmp_path, model=unigram, normalizer=None, pre_tokenizer=step, added_tokens=[]))
