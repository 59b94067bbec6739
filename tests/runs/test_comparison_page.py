"""The page of a comparison as a person opens it, on a phone and on a desk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.runs.comparison import compare_runs
from pretrain_cli.storage import write_json
from tests.support.browser import lay_out, needs_chromium

RUNS = ("first", "second", "third", "a-run-with-a-longer-name", "fifth", "sixth", "seventh", "eighth", "ninth")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    artifacts = Artifacts(tmp_path / "artifacts")
    for place, name in enumerate(RUNS):
        run = artifacts.run(name)
        write_json(run.record, {"status": "finished", "steps": 20, "tokens": 20_480, "started": "2026-01-01T10:00:00"})
        run.config.write_text(f"[train]\nseed = {place}\n")
        lines = [
            {"step": step, "tokens": 1024 * step, "elapsed_s": step / 2, "loss": 5 / step + place,
             "validation_loss": 4 / step + place, "validation_bits_per_byte": 2 / step + place}
            for step in range(1, 21)
        ]  # fmt: skip
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run.samples.write_text(json.dumps({"step": 20, "prompt": "Call me", "text": f" <b>{name}</b>"}) + "\n")
    return compare_runs(artifacts, RUNS).page


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_nine_runs_whole(page: Path, tmp_path: Path, width: int) -> None:
    shown = lay_out(page, width, tmp_path)
    assert shown["scroll_width"] <= width and shown["small"] == 0 and shown["loaded"] == 0
    assert shown["verdict_top"] < 250 and shown["headings"][:2] == ["Figures", "Curves"]
    assert len(shown["charts"]) == 7  # two losses by three axes, and bits per byte
    assert all(wide >= min(500, width - 60) for wide, _, _ in shown["charts"])
    assert "first has the lowest bits per byte" in shown["text"] and " <b>second</b>" in shown["text"]


def test_a_page_that_somebody_changed_is_kept_and_said(page: Path) -> None:
    artifacts = Artifacts(page.parents[1])
    page.write_text(page.read_text().replace("first", "best"))
    assert compare_runs(artifacts, RUNS).warnings == [f"{page} wasn't as ptk wrote it: it is kept as {page.name}.old."]
    assert "best" in page.with_name(f"{page.name}.old").read_text()
    assert compare_runs(artifacts, RUNS).warnings == []
