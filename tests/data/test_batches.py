"""Batches carry the labels and positions that training needs."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from pretrain_cli.data.rows.batches import PackedDataset, collate
from pretrain_cli.data.rows.reader import open_rows
from tests.support.preparing import Preparing


def dataset(preparing: Preparing, tmp_path: Path, mask: bool) -> PackedDataset:
    path = tmp_path / "lines.txt"
    path.write_text("\n\n".join(f"A short document, number {number}." for number in range(40)))
    _, artifacts = preparing(path, document_separator="\n\n")
    return PackedDataset(artifacts.train_rows, mask)


def test_padding_and_document_starts_have_no_loss(preparing: Preparing, tmp_path: Path) -> None:
    data = dataset(preparing, tmp_path, True)
    batch = data.__getitems__([0, 3])
    for row, index in enumerate([0, 3]):
        at = 0
        for size in data.rows.pieces(index).tolist():
            assert batch["labels"][row, at] == -100
            assert batch["position_ids"][row, at : at + size].tolist() == list(range(size))
            assert torch.equal(batch["labels"][row, at + 1 : at + size], batch["input_ids"][row, at + 1 : at + size])
            at += size
        assert (batch["labels"][row, at:] == -100).all()
        assert batch["position_ids"][row, at:].tolist() == list(range(32 - at))


def test_without_masking_only_padding_has_no_loss(preparing: Preparing, tmp_path: Path) -> None:
    data = dataset(preparing, tmp_path, False)
    item = data[0]
    used = int(data.rows.pieces(0).sum())
    assert "position_ids" not in item
    assert torch.equal(item["labels"][:used], item["input_ids"][:used])
    assert (item["labels"][used:] == -100).all()


def test_a_loader_and_a_pickled_copy_give_the_same_rows(preparing: Preparing, tmp_path: Path) -> None:
    data = pickle.loads(pickle.dumps(dataset(preparing, tmp_path, True)))
    batches = list(DataLoader(data, batch_size=4, collate_fn=collate))
    assert torch.equal(
        torch.cat([batch["input_ids"] for batch in batches]), data.__getitems__(range(len(data)))["input_ids"]
    )


def test_datasets_opens_the_rows(preparing: Preparing, tmp_path: Path) -> None:
    from datasets import load_from_disk

    folder = dataset(preparing, tmp_path, True).folder
    loaded, rows = load_from_disk(str(folder)), open_rows(folder)
    assert loaded["input_ids"][:] == rows.input_ids[:].tolist()
    assert loaded[1]["piece_lengths"] == rows.pieces(1).tolist()
