"""Training from object storage reads the rows that training from disk reads, a few files at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_cli import remote
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.rows import writer
from pretrain_cli.data.rows.distant import DistantRows
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.data.rows.schema import PackedBatch
from pretrain_cli.data.rows.writer import RowWriter
from pretrain_cli.data.sharing import bring_data
from pretrain_cli.progress import SILENT
from pretrain_cli.records import FileRecord
from pretrain_cli.remote import RemoteFolder, StorageError
from pretrain_cli.training.rows.order import RowOrder, continued
from pretrain_cli.training.rows.shuffle import FileWindows
from pretrain_cli.training.run import train
from tests.support.outages import failing_reads
from tests.support.runs import small

LENGTH, ROWS = 8, 60


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, FileRecord]]:
    """Rows in fifteen files of four rows, in a folder and in storage."""
    monkeypatch.setattr(writer, "BATCH_TOKENS", 4 * LENGTH)
    monkeypatch.setattr(writer, "FILE_BYTES", 600)
    ids = np.arange(ROWS * LENGTH, dtype=np.uint16).reshape(ROWS, LENGTH)
    ones = np.ones(ROWS, np.int64)
    with RowWriter(tmp_path / "train", LENGTH, "uint16") as rows:
        rows.write(PackedBatch(ids, ones, ones.astype(np.int32) * LENGTH, ones, ones * 0, ones.astype(np.int16) * 0))
    storage = RemoteFolder(f"memory://{tmp_path.name}/out/data/train")
    for name in rows.files:
        storage.put(tmp_path / "train" / name, name)
    return tmp_path / "train", rows.files


def distant(written: tuple[Path, dict[str, FileRecord]], tmp_path: Path) -> DistantRows:
    folder = tmp_path / "here" / "train"
    storage = RemoteFolder(f"memory://{tmp_path.name}/out/data/train")
    for name in ("state.json", "dataset_info.json"):
        storage.get(name, folder / name)
    return DistantRows(folder, storage, written[1])


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.arrow"))


def test_the_rows_and_their_order_are_those_on_disk_and_few_files_are_here(
    written: tuple[Path, dict[str, FileRecord]], tmp_path: Path
) -> None:
    near, far = open_rows(written[0]), distant(written, tmp_path)
    assert far.file_rows == near.file_rows and len(near.file_rows) > 5 and len(far) == ROWS
    windows = FileWindows(near.file_rows, 2, seed=3)
    epochs = 2
    order = RowOrder(ROWS, 6, epochs * ROWS // 6, 3, windows=windows)
    seen: list[int] = []
    most = 0
    for rows in RowOrder(ROWS, 6, epochs * ROWS // 6, 3, windows=windows, keep=far.keep):
        assert (far.gather(rows) == near.gather(rows)).all()
        assert far.pieces(rows[0]).tolist() == near.pieces(rows[0]).tolist()
        seen += rows
        most = max(most, len(files_of(far.folder)))
    assert seen == [row for rows in order for row in rows], "the same with and without object storage"
    assert sorted(seen[:ROWS]) == sorted(seen[ROWS:]) == list(range(ROWS)) and seen[:ROWS] != seen[ROWS:]
    assert most <= 4 * 2 + 1 < len(near.file_rows)
    assert list(continued(order, 7)) == list(order)[7:], "a resume begins anywhere"
    halves = [list(RowOrder(ROWS, 3, 20, 3, rank, 2, windows=windows)) for rank in (0, 1)]
    assert [row for pair in zip(*halves, strict=True) for micro in pair for row in micro] == seen


def test_a_damaged_file_and_a_storage_that_stays_away_end_the_training(
    written: tuple[Path, dict[str, FileRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = distant(written, tmp_path)
    name = sorted(name for name in written[1] if name.endswith(".arrow"))[3]
    damaged = tmp_path / "damaged"
    damaged.write_bytes((written[0] / name).read_bytes()[:-1] + b"\x7f")
    far.remote.put(damaged, name)
    with pytest.raises(StorageError, match="other bytes"):
        far.keep([3], [])
    far.remote.put(written[0] / name, name)
    failing = failing_reads(far.remote, monkeypatch)
    far.keep([3], [4])  # a network that fails for a while costs only that
    assert name in files_of(far.folder)
    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    far.keep([4], [])
    failing += [OSError("no route")] * 9
    with pytest.raises(StorageError, match="can't be read") as told:
        far.keep([5], [])
    assert told.value.hint


def test_files_that_were_here_before_are_compared_with_their_hash(
    written: tuple[Path, dict[str, FileRecord]], tmp_path: Path
) -> None:
    far = distant(written, tmp_path)
    name = sorted(name for name in written[1] if name.endswith(".arrow"))[2]
    content = (written[0] / name).read_bytes()
    (far.folder / name).write_bytes(content[:-1] + b"\x7f")
    far.keep([2], [])
    assert (far.folder / name).read_bytes() == content


@pytest.mark.slow
def test_a_run_from_object_storage_makes_the_weights_of_one_from_disk(
    prose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH_TOKENS", 1024)
    monkeypatch.setattr(writer, "FILE_BYTES", 1 << 14)
    (tmp_path / "text.txt").write_text(prose)
    data = {"inputs": [str(tmp_path / "text.txt")], "sequence_length": 32, "document_separator": "\n\n"}
    url = f"memory://{tmp_path.name}/out"
    there = Artifacts(tmp_path / "one", url)
    prepare(Config.model_validate({"data": data, "tokenizer": {"vocab_size": 400}}), there)
    assert len(open_rows(there.train_rows).file_rows) > 8
    config = small(train__max_steps=20, train__shuffle_files=1)
    near = train(config, Artifacts(there.root), run_name="near")
    elsewhere = Artifacts(tmp_path / "two", url)
    bring_data(elsewhere, SILENT, ("validation",))
    far = train(config, elsewhere, run_name="far")
    assert len(files_of(elsewhere.train_rows)) <= 5
    assert far.train_loss == near.train_loss
    resumed = train(changed(config, train__max_steps=25), elsewhere, resume="far")
    assert resumed.steps == 25
