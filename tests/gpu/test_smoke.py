"""The smoke script's own logic: what it says of a check that holds, differs, breaks, or can't be made."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_smoke() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_smoke", ROOT / "benchmarks" / "gpu_smoke.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_smoke"] = module
    spec.loader.exec_module(module)
    return module


smoke = load_smoke()


def test_each_check_has_its_line_and_one_that_breaks_does_not_end_the_others(monkeypatch, tmp_path) -> None:
    def differs(bench) -> str:
        return smoke.within(0.5, 0.1, "losses")

    def skips(bench) -> str:
        raise smoke.Skipped("no GPU")

    def breaks(bench) -> str:
        raise KeyError("gone")

    found = [("good", lambda bench: "fine"), ("bad", differs), ("odd", breaks), ("not here", skips)]
    monkeypatch.setattr(smoke, "checks", lambda: iter(found))
    said: list[str] = []
    results = smoke.run_all(smoke.Bench("cpu", True, tmp_path), say=said.append)
    assert [state for _, state, _ in results] == ["ok", "DIFFERENT", "DIFFERENT", "skipped"]
    assert "losses differ by 0.5, more than 0.1" in said[1] and "KeyError" in said[2]
    table = smoke.table(results, "cpu", 60)
    assert "| bad | DIFFERENT | losses differ by 0.5, more than 0.1 |" in table and "on cpu" in table


def test_a_loss_that_is_no_number_and_a_run_that_is_shorter_are_differences() -> None:
    with pytest.raises(smoke.Different):
        smoke.within(float("nan"), 1.0, "losses")
    with pytest.raises(smoke.Different, match="3 steps against 2"):
        smoke.furthest([1, 2, 3], [1, 2])
    assert smoke.within(0.0, 0.0, "losses") == "losses within 0"


def test_every_check_that_the_docs_name_is_there_once() -> None:
    names = [name for name, _ in smoke.checks()]
    assert len(names) == len(set(names)) == 18
    assert names[:4] == ["doctor", "prepare", "scratch against the CPU", "resume is exact"]


@pytest.mark.slow
def test_the_first_checks_hold_on_a_cpu(tmp_path) -> None:
    bench = smoke.Bench("cpu", True, tmp_path)
    for name in ("doctor", "prepare", "utilization"):
        check = dict(smoke.checks())[name]
        assert check(bench)
    assert "waits a step" in dict(smoke.checks())["profile of five steps"](bench)
