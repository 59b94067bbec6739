"""What a checkpoint fails with: a full disk pauses saving, anything else ends the run and is said as what it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from pretrain_cli.errors import OutOfMemoryError
from pretrain_cli.training.processes import sharding
from pretrain_cli.training.run import train
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.disks import disk
from tests.support.ranks import on_ranks
from tests.support.runs import Heard, small

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("failures", "raised"),
    [({0: FULL}, OSError), ({1: FULL}, OSError), ({0: ValueError("a shape")}, ValueError), ({}, RuntimeError)],
)
def test_a_failed_save_of_shards_is_an_exception_of_its_own_cause(monkeypatch, tmp_path, failures, raised) -> None:
    """torch.distributed.checkpoint raises a BaseException, which nothing that catches exceptions sees."""

    def fail(*words: object, **keywords: object) -> None:
        raise CheckpointException("write", {rank: (error, None) for rank, error in failures.items()})

    monkeypatch.setattr(sharding, "save", fail)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(raised):
        sharding.save_shards(tmp_path, sharding.state_of(model, torch.optim.AdamW(model.parameters())))


@pytest.mark.slow
def test_both_ranks_hear_of_a_disk_that_is_full(tmp_path: Path) -> None:
    with disk(tmp_path / "small", 1) as folder:
        ends = on_ranks(2, "tests.support.sharded:save_on", folder=str(folder))
        assert all("No space left" in end or "inline_container" in end for end in ends), ends


@pytest.mark.slow
def test_shards_are_written_beside_the_training_and_each_rank_hashes_its_own(tmp_path: Path) -> None:
    found = on_ranks(2, "tests.support.sharded:save_beside", folder=str(tmp_path))
    for number, one in enumerate(found):
        assert one["moved"] and one["back"] and one["sums"] == [2.0], one
        assert f"sharded/__{number}_0.distcp" in one["own"] and f"sharded/__{1 - number}_0.distcp" not in one["own"]
        assert len(one["all"]) == len(set(one["all"])) == 3  # with what says which tensor is where


DISKS = [
    RuntimeError("[enforce fail at inline_container.cc:869] . PytorchStreamWriter failed writing file data/7"),
    RuntimeError("basic_ios::clear: iostream error"),
    RuntimeError("Parent directory /gone does not exist."),
    FULL,
]
OTHERS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", DISKS, ids=str)
def test_what_the_disk_refuses_pauses_saving(rows, monkeypatch, error: Exception) -> None:
    monkeypatch.setattr(PackedTrainer, "begin_checkpoint", failing(error, times=1))
    heard = Heard()
    result = train(small(train__max_steps=4, train__save_steps=2), rows, heard)
    assert result.status == "finished" and any("NO CHECKPOINT at step 2" in text for text in heard.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_what_is_not_the_disks_fault_is_not_taken_for_a_full_disk(rows, monkeypatch, error: Exception) -> None:
    monkeypatch.setattr(PackedTrainer, "begin_checkpoint", failing(error, times=1))
    heard = Heard()
    with pytest.raises((RuntimeError, OutOfMemoryError)) as caught:
        train(small(train__max_steps=4, train__save_steps=2), rows, heard)
    assert not any("NO CHECKPOINT" in text for text in heard.warnings)
    assert error in (caught.value, caught.value.__cause__)


def failing(error: Exception, times: int):
    plain, left = PackedTrainer.begin_checkpoint, [times]

    def begin(self, folder, copy):
        if left[0]:
            left[0] -= 1
            raise error
        return plain(self, folder, copy)

    return begin
