"""What tests of a GPU stand on where there is none: rows, and the names of torch.cuda with a machine behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.gpus import Gpus
from tests.support.prepared import prepared, prose, rows

__all__ = ["gpus", "prepared", "prose", "rows"]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Gpus]:
    """Makes torch see GPUs that aren't there: ``gpus(2)`` gives two."""

    def make(count: int, **facts: object) -> Gpus:
        found = Gpus(count, **facts)  # type: ignore[arg-type]
        found.show(monkeypatch)
        return found

    return make
