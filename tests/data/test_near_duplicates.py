"""Near duplicates are found with their bands sorted on disk, as a plain search in memory finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_cli.data.choosing import partitions
from pretrain_cli.data.choosing.near_documents import drop_near
from pretrain_cli.data.cleaning.near_duplicates import BANDS, PERMUTATIONS, THRESHOLD
from pretrain_cli.data.encoding.encoded import ShardDocuments


def reference(signatures: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """All keys in a dictionary, as ptk held them before it sorted them on disk."""
    found, buckets, width = np.zeros(len(keep), bool), dict[bytes, int](), PERMUTATIONS // BANDS
    for index in np.flatnonzero(keep).tolist():
        own = signatures[index]
        keys = [bytes([band]) + own[band * width : (band + 1) * width].tobytes() for band in range(BANDS)]
        candidates = {buckets[key] for key in keys if key in buckets}
        if any(float((signatures[other] == own).mean()) >= THRESHOLD for other in candidates):
            found[index] = True
            continue
        for key in keys:
            buckets.setdefault(key, index)
    return found


@dataclass
class Count:
    kept_documents: int


class Documents:
    """Signatures in shards of 60 documents."""

    def __init__(self, signatures: np.ndarray) -> None:
        self.all, self.many = signatures, len(signatures)
        self.parts = [signatures[at : at + 60] for at in range(0, len(signatures), 60)]
        self.counts = [Count(len(part)) for part in self.parts]

    def shards(self) -> Any:
        none, first = np.empty(0, np.int64), 0
        for shard, part in enumerate(self.parts):
            table = np.zeros(len(part), [("tokens", "<i8")])
            yield ShardDocuments(shard, first, table, none, none.astype(np.int32), none.astype(np.int32))
            first += len(part)

    def signatures(self, shard: int) -> np.ndarray:
        return self.parts[shard]


@pytest.mark.parametrize("run", [50, 1 << 19])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_documents_are_left_out_as_with_all_keys_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: int, seed: int
) -> None:
    monkeypatch.setattr(partitions, "RUN_RECORDS", run)
    rng = np.random.default_rng(seed)
    originals = rng.integers(0, 2**32, (150, PERMUTATIONS), dtype=np.uint32)
    signatures = originals[rng.integers(0, 150, 900)].copy()
    changed = rng.random(signatures.shape) < rng.choice([0.05, 0.15, 0.25, 0.6], (900, 1))
    signatures[changed] = rng.integers(0, 2**32, int(changed.sum()), dtype=np.uint32)
    states = np.where(rng.random(900) < 0.1, 2, 0).astype(np.uint8)
    wanted = reference(signatures, states == 0)
    drop_near(Documents(signatures), states, 3, tmp_path)  # type: ignore[arg-type]
    assert 100 < wanted.sum() < 800 and np.array_equal(states == 3, wanted)
