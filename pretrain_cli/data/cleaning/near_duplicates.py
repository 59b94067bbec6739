"""Finds documents that nearly repeat an earlier one, by MinHash signatures (`rensa`) compared in bands (LSH)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretrain_cli.errors import MissingDependencyError

PERMUTATIONS = 128
BANDS = 16
THRESHOLD = 0.8
SHINGLE_WORDS = 5
Signatures = npt.NDArray[np.uint32]


def signature(text: str) -> Signatures:
    """uint32 [128]: the MinHash of a text's 5-word shingles (Broder 1997)."""
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise MissingDependencyError(
            "data.near_dedup needs rensa.", "pip install 'pretrain-cli[documents]', or turn it off."
        ) from error
    words = text.lower().split()
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    shingles = {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count)}
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=42)
    sketch.update(sorted(shingles))
    return np.array(sketch.digest(), np.uint32)


def near_duplicates(signatures: Signatures, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[n]: True where a kept document is like an earlier one that stays (estimated Jaccard of 0.8 or more).

    Candidates share one of 16 bands of 8 values; memory is 16 keys a document.
    """
    found = np.zeros(len(keep), bool)
    buckets: dict[bytes, int] = {}
    width = PERMUTATIONS // BANDS
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
