"""The whole pipeline through the command line, small enough for every change: text to a model that writes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def test_text_becomes_a_model_that_is_scored_and_writes(ptk, empty: Path) -> None:
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    (empty / "data.txt").write_text(prose[:30_000], encoding="utf-8")

    prepared = ptk("prepare", "data.txt", "--vocab-size", "400", "--sequence-length", "64", "--workers", "1", "--json")
    assert prepared.code == 0, prepared.err
    assert prepared.json["held_out"]["files"] == {"data.txt": 1.0} and prepared.json["held_out"]["ends"] == 1
    assert prepared.json["bytes"] > 29_000 and prepared.json["rows"] > 50

    small = ("--size", "tiny", "--set", "model.layers=1", "--set", "tracking.report_to=none", "--workers", "0")
    trained = ptk("train", "--max-steps", "20", "--batch-tokens", "512", "--device", "cpu", *small, "--json")
    assert trained.code == 0, trained.err
    assert (trained.json["status"], trained.json["steps"]) == ("finished", 20)

    scored = ptk("evaluate", "--on", "validation", "--json")
    assert scored.code == 0, scored.err
    assert 1 < scored.json["models"][0]["texts"][0]["bits_per_byte"] < 5.5

    written = ptk("generate", "The whale", "--max-tokens", "4", "--json")
    assert written.code == 0, written.err
    assert written.json["samples"][0]["prompt"] == "The whale" and written.json["samples"][0]["tokens"] == 4
