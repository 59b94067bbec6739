"""Text whose middles are moved still adds up, gives its documents back, and is the same with any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.data.rows.unpacking import iterate_documents
from pretrain_cli.errors import PtkError, UsageError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.tokenizer.middles import MiddleTokens, find_middle_tokens
from tests.support.preparing import check_ledger, row_bytes, train_byte_level, train_sentencepiece_style, write_jsonl

LENGTH = 64
DOCUMENTS = [
    f"def area_{number}(r):\n    # Fläche 日本 {'🐋' * (number % 5)}\n    return {number} * r ** 2\n\n\n"
    * (1 + number % 7 * 3)
    for number in range(80)
]


def prepared(folder: Path, documents: list[str] = DOCUMENTS, **values: Any) -> Artifacts:
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = Artifacts(folder / "artifacts")
    given = {
        "data__inputs": [str(write_jsonl(folder / "text.jsonl", documents))], "data__workers": 1,
        "data__sequence_length": LENGTH, "tokenizer__vocab_size": 400, "data__fim_rate": 0.5,
    }  # fmt: skip
    prepare(changed(Config(), **{**given, **values}), artifacts)
    return artifacts


def with_control_tokens(file: Path, names: list[str]) -> Path:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(names)
    tokenizer.save(str(file))
    return file


def in_reading_order(ids: list[int], tokens: MiddleTokens, marks: set[int]) -> tuple[list[int], int]:
    """(ids of a document without BOS, EOS and control tokens, as it is read; middles that were moved)."""
    found: list[int] = []
    moved, at = 0, 0
    while at < len(ids):
        if ids[at] in marks:
            at += 1
        elif ids[at] == tokens.prefix:
            suffix, middle = ids.index(tokens.suffix, at), ids.index(tokens.middle, at)
            end = next(place for place in range(middle, len(ids)) if ids[place] in marks)
            found += ids[at + 1 : suffix] + ids[middle + 1 : end] + ids[suffix + 1 : middle]
            moved, at = moved + 1, end
        else:
            found.append(ids[at])
            at += 1
    return found, moved


def read_back(artifacts: Artifacts, marks: set[int]) -> tuple[list[str], int]:
    tokenizer = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    tokens = find_middle_tokens(tokenizer)
    assert tokens is not None
    texts, middles = [], 0
    for document in iterate_documents(artifacts.train_rows):
        ids, moved = in_reading_order(document.ids.tolist(), tokens, marks)
        texts.append(tokenizer.decode(ids, skip_special_tokens=False))
        middles += moved
    return texts, middles


@settings(max_examples=8, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), min_size=1, max_size=8),
    rate=st.sampled_from([0.3, 1.0]),
)
def test_documents_decode_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], rate: float
) -> None:
    documents = [f"{number}: {text} and so on, until the end of it." * 3 for number, text in enumerate(texts)]
    artifacts = prepared(
        tmp_path_factory.mktemp("any"), documents, data__fim_rate=rate, data__validation_fraction=0.0,
        data__exact_dedup=False,
    )  # fmt: skip
    check_ledger(artifacts)
    found, middles = read_back(artifacts, {0, 1})
    assert found == documents
    assert middles or rate < 1


def test_about_the_share_is_moved_half_of_it_with_the_suffix_first(tmp_path: Path) -> None:
    for rate in (0.2, 0.8):
        artifacts = prepared(tmp_path / str(rate), data__fim_rate=rate, data__validation_fraction=0.0)
        check_ledger(artifacts)
        texts, moved = read_back(artifacts, {0, 1})
        assert texts == DOCUMENTS
        rows = open_rows(artifacts.train_rows)
        ids = rows.input_ids[:]
        tokens = find_middle_tokens(Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json")))
        assert tokens is not None
        first = int(((ids[:, :-1] == tokens.prefix) & (ids[:, 1:] == tokens.suffix)).sum())
        stretches = moved / rate
        assert abs(first / moved - 0.5) < 0.2
        assert abs(stretches * (LENGTH - 17) - read_manifest(artifacts).ledger.tokens.encoded) < 0.3 * ids.size
        for row in ids[(ids == tokens.prefix).any(1)]:  # a middle is in one row with both its ends
            kinds = [token for token in row.tolist() if token in (tokens.prefix, tokens.suffix, tokens.middle)]
            assert kinds == [tokens.prefix, tokens.suffix, tokens.middle] * (len(kinds) // 3)


def test_rows_that_are_cut_anywhere_add_up_too(tmp_path: Path) -> None:
    artifacts = prepared(tmp_path, data__packing="concat", data__fim_rate=0.9)
    check_ledger(artifacts)
    assert read_manifest(artifacts).ledger.tokens.rearranged > 100


def test_the_bytes_are_the_same_with_any_number_of_workers_and_what_is_held_out_stays(tmp_path: Path) -> None:
    one, two = (prepared(tmp_path / str(many), data__workers=many) for many in (1, 2))
    assert row_bytes(one) == row_bytes(two)
    plain = prepared(tmp_path / "plain", data__fim_rate=0.0, tokenizer__path=str(one.tokenizer / "tokenizer.json"))
    held, also = row_bytes(one), row_bytes(plain)
    assert all(held[name] == also[name] for name in also if name.startswith("validation"))
    assert not np.array_equal(open_rows(one.train_rows).input_ids[:2], open_rows(plain.train_rows).input_ids[:2])
    assert read_manifest(one).fingerprint != read_manifest(plain).fingerprint


@pytest.mark.parametrize(
    ("style", "names"),
    [
        (train_byte_level, ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]),
        (train_byte_level, ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"]),
        (train_sentencepiece_style, ["▁<PRE>", "▁<SUF>", "▁<MID>"]),
    ],
)
def test_the_tokenizers_own_control_tokens_are_used(tmp_path: Path, style: Any, names: list[str]) -> None:
    file = with_control_tokens(style(tmp_path / "tokenizer"), names)
    artifacts = prepared(tmp_path, tokenizer__path=str(file), data__fim_rate=1.0, data__validation_fraction=0.0)
    check_ledger(artifacts)
    texts, moved = read_back(artifacts, {1, 2} if style is train_sentencepiece_style else {0, 1})
    assert texts == DOCUMENTS and moved >= len(DOCUMENTS)


def test_what_keeps_middles_from_being_learned_is_said_in_two_lines(tmp_path: Path) -> None:
    plain = train_byte_level(tmp_path / "plain")
    for told, values in (
        ("no control tokens", {"tokenizer__path": str(plain)}),
        ("EOS token after each middle", {"data__add_eos": False}),
        ("too short", {"data__sequence_length": 16}),
    ):
        with pytest.raises(UsageError, match=told) as caught:
            prepared(tmp_path / told, **values)
        assert isinstance(caught.value, PtkError) and caught.value.hint
