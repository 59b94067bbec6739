"""A prepare that finishes while another command opens the rows is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.errors import DataError
from pretrain_cli.training.run import train
from tests.support.runs import Heard, prepare_text, small


@pytest.mark.slow
def test_rows_that_are_replaced_while_training_opens_them_are_not_trained_on(
    tmp_path: Path, prose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = prepare_text(tmp_path, prose[:6000])
    opened = PackedDataset.__init__
    replaced: list[Artifacts] = []

    def other_prepare(self: PackedDataset, *words: object, **keywords: object) -> None:
        if not replaced:  # another process prepares other rows at just this moment
            replaced.append(artifacts)
            prepare_text(tmp_path, prose[:9000], data__sequence_length=64)
        opened(self, *words, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedDataset, "__init__", other_prepare)
    with pytest.raises(DataError, match="replaced while it was being opened"):
        train(small(train__max_steps=2), artifacts, run_name="torn")
    assert replaced and not artifacts.run("torn").record.exists()
    monkeypatch.undo()
    assert train(changed(small(train__max_steps=2)), artifacts, run_name="whole").steps == 2


@pytest.mark.slow
def test_rows_that_are_overwritten_while_they_are_trained_on_are_told_of(tmp_path: Path, prose: str) -> None:
    artifacts = prepare_text(tmp_path, prose[:20_000])
    (rows,) = artifacts.train_rows.glob("*.arrow")

    def overwrite() -> None:
        with open(rows, "r+b") as file:  # in place, as a copying program does, not by a rename
            file.write(b"\xff" * rows.stat().st_size)

    with pytest.raises(DataError, match=r"The prepared data is damaged: .*\.arrow has other bytes than were written"):
        train(small(train__max_steps=20), artifacts, Heard(step_3=overwrite), run_name="torn")
