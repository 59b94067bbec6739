"""Object storage that doesn't answer for a while."""

from __future__ import annotations

import pytest

from pretrain_cli import remote
from pretrain_cli.remote import RemoteFolder


def failing_reads(storage: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """The errors that the next reads end with, last first; more may be added. A new attempt comes at once."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    system = type(storage._system[0])
    failing: list[OSError] = [OSError("no route"), TimeoutError()]
    get_file = system.get_file

    def flaky(*given: object, **more: object) -> object:
        if failing:
            raise failing.pop()
        return get_file(*given, **more)

    monkeypatch.setattr(system, "get_file", flaky)
    return failing
