"""report.html as a person opens it: from disk, with no network, on a phone and on a desk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig, TrainConfig
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.storage import write_json
from tests.support.browser import lay_out, needs_chromium
from tests.support.tiny import SAMPLE, make_model

LINES = [
    {"step": step, "loss": 5 / step, "learning_rate": 1e-3 / step, "grad_norm": 1.0, "tokens_per_second": 100.0 + step,
     "memory_mb": 300.0, **({"validation_loss": 4 / step} if step % 5 == 0 else {})}
    for step in range(1, 21)
]  # fmt: skip
HEADINGS = [
    "Before and after", "Training", "By source, in bits per byte", "By position and by token frequency",
    "By document, in bits per byte", "Samples before and after", "Samples during training", "Memorization", "Settings",
    "Machine",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run beside its base, with all that a run can have."""
    artifacts = Artifacts(tmp_path_factory.mktemp("report"))
    run = artifacts.run("whale")
    make_model(run.model, seed=1)
    base = make_model(artifacts.root / "base")
    write_json(run.record, {"base": str(base), "device": "cpu", "precision": "fp32", "threads": 2, "steps": 20})
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 21, "lo')
    samples = [{"step": step, "prompt": "Call <me>", "text": f" at step {step}"} for step in (0, 10, 20)]
    (run.path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    (artifacts.root / "latest").write_text("whale\n")
    text = artifacts.root / "prose.txt"
    text.write_text((SAMPLE * 40), "utf-8")
    settings = EvaluateConfig(on=(f"prose={text}", "general"), sample=6000, memorization=True, context=64)
    return evaluate(Config(evaluate=settings, train=TrainConfig(sample_prompts=("Call <me>",))), artifacts).page


@pytest.mark.slow
def test_the_page_holds_every_section_and_asks_for_nothing(page: Path) -> None:
    content = page.read_text("utf-8")
    at = [content.index(f"<h2>{heading}</h2>") for heading in HEADINGS]
    assert at == sorted(at) and content.index('class="verdict') < at[0]
    assert not {"src=", "<link", "<script", "@import", "url(http"} & set(content.split())
    for part in ("gradient norm", "memory (MB)", "tokens per second", "Call &lt;me&gt;", "at step 20", "threads"):
        assert part in content
    assert "</mark> at step 10" not in content and "Call <me>" not in content


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_whole(page: Path, tmp_path: Path, width: int) -> None:
    shown = lay_out(page, width, tmp_path)
    assert shown["width"] == width and shown["scroll_width"] <= width
    assert shown["first"][0] == "Evaluation of whale" and shown["verdict_top"] < 200
    assert shown["headings"] == HEADINGS
    # five curves, two for each text, and the intervals
    assert len(shown["charts"]) == 10
    assert all(wide >= min(500, width - 60) and high > 100 and words > 20 for wide, high, words in shown["charts"])
    assert shown["small"] == 0 and shown["loaded"] == 0
    assert "learning rate" in shown["text"] and "95% interval" in shown["text"]


@pytest.mark.slow
def test_the_training_says_what_was_planned_and_the_gap(page: Path) -> None:
    content = page.read_text("utf-8")
    assert (
        "20 steps" in content
        and "training 0.257 (mean of the last tenth), validation 0.200: a gap of -0.057" in content
    )
