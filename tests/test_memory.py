"""What is left to a process, by the machine and by its container."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pretrain_cli import memory


@pytest.mark.parametrize(("limit", "left"), [("3000000", 2_500_000), ("max", None), ("9" * 18, None)])
def test_a_containers_limit_counts_where_less_is_left_in_it(
    limit: str, left: int | None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": 8_000_000_000}))
    (tmp_path / "cgroup").write_text("0::/some/job\n")
    folder = tmp_path / "some/job"
    folder.mkdir(parents=True)
    for name, text in (("max", limit), ("current", "900000"), ("stat", "anon 1\ninactive_file 400000\nfile 5\n")):
        (folder / f"memory.{name}").write_text(f"{text}\n")
    assert memory.available_bytes() == (left or 8_000_000_000)


def test_a_machine_without_containers_has_what_it_has_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "none")
    assert memory.available_bytes() > 0
