"""Makes MinHash signatures (`rensa`), by which documents that nearly repeat others are found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretrain_cli.errors import MissingDependencyError
from pretrain_cli.optional import to_install

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
            "data.near_dedup needs rensa.", f"{to_install(extra='documents')}, or turn it off."
        ) from error
    words = text.lower().split()
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    shingles = {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count)}
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=42)
    sketch.update(sorted(shingles))
    return np.array(sketch.digest(), np.uint32)
