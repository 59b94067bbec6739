"""What is held out represents the whole text, whatever its documents' number, size and kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing import split as rules
from pretrain_cli.data.choosing import tokenizer_choice
from pretrain_cli.data.choosing.duplicates import drop_repeated, same_sides, same_text
from pretrain_cli.data.choosing.split import Block
from pretrain_cli.data.prepare import prepare
from pretrain_cli.manifest import Manifest, read_manifest
from tests.support.preparing import texts, write_jsonl

FRACTION = 0.05


@dataclass(frozen=True)
class HeldOut:
    """Which documents are held out whole, and how many bytes of the ends of others."""

    whole: np.ndarray
    tails: np.ndarray


def hold_out(
    sizes: np.ndarray, names: np.ndarray, kinds: np.ndarray, fraction: float, split: str, seed: int, lot: int = 70
) -> HeldOut:
    """The choice from documents that come ``lot`` at a time, with the copies of a text on one side."""

    def blocks() -> Iterator[Block]:
        for at in range(0, len(sizes), lot):
            yield Block(at, sizes[at : at + lot], names[at : at + lot], kinds[at : at + lot])

    states = np.zeros(len(sizes), np.uint8)
    found = rules.hold_out(blocks, states, fraction, split, seed)
    same_sides(blocks, states, found, Path(tempfile.gettempdir()))
    tails = np.zeros(len(sizes), np.int64)
    tails[list(found)] = list(found.values())
    return HeldOut(states == rules.HELD, tails)


def hold_out_amply(
    sizes: np.ndarray, names: np.ndarray, kinds: np.ndarray, fraction: float, split: str, seed: int
) -> HeldOut:
    likely = hold_out(sizes, names, kinds, rules.ample_fraction(fraction), split, seed)
    own = rules.may_end_early(sizes, fraction)
    return HeldOut(likely.whole | rules.may_be_held(names, fraction, seed), np.where(own, own, likely.tails))


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


def test_a_few_short_documents_beside_many_records_have_a_part_in_the_figures() -> None:
    kinds, sizes = [0] * 9 + [1] * 200, [1700] * 9 + [40] * 200
    found = [held(sizes, kinds, seed) for seed in range(20)]
    assert sum(each.whole[:9].sum() == 1 for each in found) > 12  # before: none of them
    assert all(0.02 < share(sizes, each, slice(9, None)) < 0.08 for each in found)


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


def reference(
    sizes: np.ndarray, names: np.ndarray, kinds: np.ndarray, fraction: float, split: str, seed: int
) -> HeldOut:
    """The same rules with all documents in memory, as ptk had them before it took some at a time."""
    whole, tails = np.zeros(len(sizes), bool), np.zeros(len(sizes), np.int64)
    budget = fraction * float(sizes.sum())

    def last() -> tuple[np.ndarray, np.ndarray]:
        whole, tails = np.cumsum(sizes[::-1])[::-1] <= budget, np.zeros(len(sizes), np.int64)
        if not whole.any():
            if sizes[-1] > rules.HELD_OUT_AT_MOST * budget:
                tails[-1] = int(budget)
            else:
                whole[-1] = True
        return whole, tails

    if len(sizes) == 1:
        tails[0] = int(budget)
    elif split == "hash":
        whole = rules._draw(names, seed) < fraction
    elif split == "tail":
        whole, tails = last()
    else:
        tails = rules._ends(sizes, fraction, budget)
        small = np.flatnonzero(tails == 0)
        draws = rules._draw(names[small], seed)
        whole[small] = rules._of_each_kind(sizes[small], draws, kinds[small], fraction, bool(tails.any()))
        if not whole.any() and not tails.any():
            whole, tails = last()
    if whole.all():
        whole[0] = False
    firsts = same_text(names)
    copied = np.bincount(firsts, minlength=len(sizes))[firsts] > 1
    tails[copied] = 0
    trained = np.zeros(len(sizes), bool)
    trained[firsts[~whole]] = True
    return HeldOut(whole & ~trained[firsts], tails)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 2500), st.integers(1, 4), st.sampled_from(["spread", "hash", "tail"]), st.integers(0, 9**9),
    st.sampled_from([1, 70, 999, 10**6]), st.sampled_from([0.0005, 0.05, 0.5]),
)  # fmt: skip
def test_some_documents_at_a_time_give_the_choice_of_all_at_once(
    many: int, kinds: int, split: str, seed: int, lot: int, fraction: float
) -> None:
    if lot == 1:
        many = min(many, 50)
    rng = np.random.default_rng(seed)
    sizes = (rng.pareto(1.0, many) * 500 + 1).astype(np.int64)
    names = hashes(many, seed)[rng.integers(0, many, many)] if seed % 2 else hashes(many, seed)
    of_kind = (rng.random(many) ** 4 * kinds).astype(np.int64)
    found = hold_out(sizes, names, of_kind, fraction, split, seed, lot)
    wanted = reference(sizes, names, of_kind, fraction, split, seed)
    assert found.whole.tolist() == wanted.whole.tolist() and found.tails.tolist() == wanted.tails.tolist()


def test_repeated_texts_are_found_on_disk_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrain_cli.data.choosing import partitions

    monkeypatch.setattr(partitions, "RUN_RECORDS", 100)
    names = hashes(3000)[np.random.default_rng(5).integers(0, 3000, 5000)]

    def blocks() -> Iterator[Block]:
        for at in range(0, 5000, 77):
            own = names[at : at + 77]
            yield Block(at, np.ones(len(own), np.int64), own, np.zeros(len(own), np.int64))

    states = np.zeros(5000, np.uint8)
    drop_repeated(blocks, states, 2, tmp_path)
    assert np.array_equal(states == 0, same_text(names) == np.arange(5000))
    assert not list(tmp_path.iterdir()), "what was spilled is gone"
