"""Row length and packing follow from the documents' lengths, so that little of what is trained on is padding."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pretrain_cli.data.rows.layout import LEAST_FILL, fill_of
from pretrain_cli.data.rows.packing import BestFit, group_documents
from pretrain_cli.manifest import read_manifest
from tests.support.preparing import Preparing, write_jsonl


def documents(least: int, most: int, many: int) -> list[str]:
    """Texts whose tokens are about as many as their words: each word is one entry of the test's vocabulary."""
    draw = random.Random(0)
    return [f"{number} " + "q" * (draw.randint(least, most)) for number in range(many)]


@pytest.mark.parametrize(
    ("least", "most", "length", "packing", "full"),
    [
        (10, 400, 256, "best-fit", 0.97),  # all lengths: they fill each other's gaps
        (158, 164, 512, "best-fit", 0.97),  # one fits a row of 256, three a row of 512
        (112, 118, 256, "best-fit", 0.93),  # a little padding costs less than cut documents
        (140, 150, 256, "concat", 1.0),  # no few of them fill a row
    ],
)
def test_automatic_rows_are_full(
    preparing: Preparing, tmp_path: Path, least: int, most: int, length: int, packing: str, full: float
) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", documents(least, most, 400))
    result, artifacts = preparing(path, sequence_length="auto", packing="auto", validation_fraction=0.0)
    made = read_manifest(artifacts).settings
    assert (made.sequence_length, made.packing) == (length, packing)
    assert result.fill >= full - 0.01
    assert bool(result.row_choice) == (least != 10)


def test_what_padding_costs_is_told_where_the_rows_are_as_asked(preparing: Preparing, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", documents(140, 150, 400))
    result, _ = preparing(path, sequence_length=256, packing="best-fit")
    (told,) = result.warnings
    assert "of training's time goes to padding" in told and "--packing concat" in told


def test_little_text_keeps_its_documents_whole(preparing: Preparing, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", documents(140, 150, 20))
    result, artifacts = preparing(path, sequence_length="auto", packing="auto")
    assert read_manifest(artifacts).settings.packing == "best-fit" and not result.warnings


def test_the_fill_of_a_sample_is_that_of_the_rows() -> None:
    sizes = np.random.default_rng(0).integers(50, 300, 3000)
    packer = BestFit(256)
    rows = sum(len(packer.add(group).counts) for group in group_documents([sizes], 1 << 21, 256))
    rows += len(packer.finish().counts)
    assert fill_of("best-fit", 256, sizes) == pytest.approx(sizes.sum() / (rows * 256), abs=0.002)
    assert fill_of("best-fit", 256, np.full(1000, 129)) < LEAST_FILL < fill_of("concat", 256, sizes)
