"""What is held out represents the whole text, whatever its documents' number, size and kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing import tokenizer_choice
from pretrain_cli.data.choosing.split import HeldOut, hold_out, hold_out_amply
from pretrain_cli.data.prepare import prepare
from pretrain_cli.manifest import Manifest, read_manifest
from tests.support.preparing import texts, write_jsonl

FRACTION = 0.05


def hashes(many: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (many, 2), dtype=np.uint64)


def held(sizes: list[int], kinds: list[int] | None = None, seed: int = 0, **more: object) -> HeldOut:
    kinds = [0] * len(sizes) if kinds is None else kinds
    given = more.get("hashes", hashes(len(sizes)))
    return hold_out(np.array(sizes), given, np.array(kinds), FRACTION, "spread", seed)


def share(sizes: list[int], found: HeldOut, chosen: object = slice(None)) -> float:
    bytes_ = np.array(sizes) * found.whole + found.tails
    return float(bytes_[chosen].sum() / np.array(sizes)[chosen].sum())


def test_of_a_few_books_the_end_of_each_is_held_out() -> None:
    sizes = [500_000, 300_000, 900_000]
    found = held(sizes)
    assert not found.whole.any() and found.tails.tolist() == [25_000, 15_000, 45_000]


def test_a_single_document_gives_its_end() -> None:
    assert held([1000]).tails.tolist() == [50]


def test_a_book_among_notes_is_neither_held_out_whole_nor_left_out() -> None:
    sizes = [1000] * 1500 + [50_000_000]
    for seed in range(40):
        found = held(sizes, seed=seed)
        assert found.tails[-1] == 2_500_000 and not found.whole[-1]
        assert 0.02 < share(sizes, found, slice(0, -1)) < 0.09


def test_each_kind_is_held_out_near_the_fraction() -> None:
    kinds = [0] * 300 + [1] * 60 + [2] * 2000
    sizes = np.random.default_rng(0).integers(2000, 6000, len(kinds)).tolist()
    found = held(sizes, kinds)
    for kind in (0, 1, 2):
        assert 0.03 < share(sizes, found, np.array(kinds) == kind) < 0.07, kind


def test_kinds_with_few_small_documents_are_taken_together() -> None:
    kinds = [kind for kind in range(20) for _ in range(3)]
    sizes = [1000] * len(kinds)
    found = held(sizes, kinds)
    assert found.whole.sum() == 3 and len(set(np.array(kinds)[found.whole])) > 1


def test_something_is_held_out_of_two_short_documents() -> None:
    found = held([60, 50])
    assert found.whole.sum() == 1 or found.tails.any()


def test_a_text_that_comes_twice_is_on_one_side() -> None:
    twice = np.repeat(hashes(100), 2, axis=0)
    found = held([1000] * 200, hashes=twice)
    assert found.whole.any() and (found.whole[::2] == found.whole[1::2]).all()
    books = held([10**6] * 4, hashes=np.repeat(hashes(2), 2, axis=0))
    assert not books.tails.any()


def test_the_ample_choice_covers_what_is_held_out_after_any_loss() -> None:
    rng = np.random.default_rng(1)
    sizes, kinds = rng.integers(200, 200_000, 600), rng.integers(0, 5, 600)
    names = hashes(600)
    ample = hold_out_amply(sizes, names, kinds, FRACTION, "spread", 0)
    for seed in range(20):
        kept = np.flatnonzero(np.random.default_rng(seed).random(600) < 0.7)
        found = hold_out(sizes[kept], names[kept], kinds[kept], FRACTION, "spread", 0)
        assert not (found.whole & ~ample.whole[kept]).any()
        assert (found.tails <= np.where(ample.whole[kept], sizes[kept], ample.tails[kept])).all()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(4):
        (folder / f"book-{number}.txt").write_text(
            "".join(f"Book {number}, line {i}, of the sea.\n" for i in range(900))
        )
    page = "".join(
        f"<p>Paragraph {i} of the only page, with enough words to be taken for text.</p>" for i in range(300)
    )
    (folder / "zz-page.html").write_text(f"<html><body><article>{page}</article></body></html>")
    write_jsonl(folder / "notes.jsonl", [f"Note {i}: buy bread, and write home." for i in range(300)])
    return folder


def prepared(folder: Path, out: Path, **data: object) -> tuple[Artifacts, Manifest]:
    settings = {"inputs": [str(folder)], "sequence_length": 32, **data}
    prepare(Config.model_validate({"data": settings, "tokenizer": {"vocab_size": 300}}), Artifacts(out))
    return Artifacts(out), read_manifest(Artifacts(out))


def test_a_mixed_folder_is_held_out_by_kind_and_said(mixed: Path, tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    train = tokenizer_choice.train_tokenizer
    monkeypatch.setattr(
        tokenizer_choice, "train_tokenizer", lambda texts, *rest: (seen.extend(texts), train(texts, *rest))
    )
    artifacts, manifest = prepared(mixed, tmp_path / "out")
    record = manifest.held_out
    assert record is not None and manifest.settings.split == "spread"
    assert set(record.kinds) == {"txt", "html", "jsonl"}
    assert all(0.03 < part < 0.08 for part in record.kinds.values()), record.kinds
    assert record.ends == 5 and record.whole > 3 and set(record.files) >= {"zz-page.html", "book-0.txt", "notes.jsonl"}
    assert "the ends of 5 documents and" in record.told() and "(" in record.told()
    held = texts(artifacts, artifacts.validation_rows)
    assert len(held) == record.ends + record.whole == manifest.validation.documents
    assert not [text for text in held if len(text) > 40 and any(text in other for other in seen)]
    assert sum(map(len, (text.encode() for text in held))) == manifest.validation.bytes


def test_data_of_before_says_how_it_was_split(mixed: Path, tmp_path: Path) -> None:
    _, manifest = prepared(mixed, tmp_path / "out", split="tail")
    assert manifest.settings.split == "tail" and manifest.held_out is not None
