"""The functions that scripts and notebooks call: keywords are config keys, results show themselves."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pretrain_cli
from pretrain_cli.config.load import known_keys
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.progress import SILENT
from pretrain_cli.python.bars import NotebookProgress, in_notebook, progress_here
from pretrain_cli.python.settings import key_of, settings
from tests.support.runs import Heard

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.\n"
STAGES = {
    "prepare": ("data", "tokenizer", "model"),
    "train": ("train", "model", "tracking"),
    "evaluate": ("evaluate",),
    "generate": ("generate",),
}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data.txt").write_text("".join(f"{number}: {TEXT}" for number in range(100)), encoding="utf-8")
    return tmp_path


def test_a_config_and_artifacts_in_the_first_places_call_the_stage_itself(elsewhere: Path) -> None:
    artifacts = pretrain_cli.Artifacts(elsewhere / "out")
    config = Config.model_validate({"data": {"inputs": ["data.txt"], "sequence_length": 32}})
    assert pretrain_cli.prepare(config, artifacts, SILENT).documents == 1
    assert pretrain_cli.prepare(config, artifacts).reused


def test_every_key_has_a_keyword() -> None:
    for key in known_keys():
        section, _, name = key.partition(".")
        assert key_of(key.replace(".", "__", 1), ()) == key
        assert not name or key_of(name, (section,)) == key


@pytest.mark.parametrize("function", STAGES)
def test_editors_see_the_keys_of_a_function(function: str) -> None:
    named = inspect.signature(getattr(pretrain_cli, function)).parameters
    for key in known_keys():
        section, _, name = key.partition(".")
        assert section not in STAGES[function] or name in named or not name


@pytest.mark.parametrize(
    ("keywords", "told", "hint"),
    [
        ({"learning_rat": 1}, "There is no setting learning_rat.", "Did you mean learning_rate?"),
        ({"precision": "bf16"}, "precision could be one of 3 settings.", "Write train__precision or evaluate__pre"),
        ({"train__seed": -1}, "train.seed must be at least 0, not -1 (set by seed=).", "ptk config keys train.seed"),
    ],
)
@pytest.mark.parametrize("config", [None, Config()])
def test_a_wrong_keyword_is_told(
    elsewhere: Path, config: Config | None, keywords: dict[str, object], told: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        settings(("data",), config, None, keywords, SILENT)
    assert error.value.message == told
    assert hint in error.value.hint


def test_keywords_come_last_and_a_file_before(elsewhere: Path) -> None:
    Path("ptk.toml").write_text("[train]\nseed = 3\nmax_steps = 7\n[model]\ntrust_remote_code = true\n")
    heard = Heard()
    found = settings(("train",), None, "scratch", {"seed": 5}, heard)
    assert (found.config.train.seed, found.config.train.max_steps) == (5, 7)
    assert found.origins["train.seed"] == "seed=" and "trust_remote_code" in heard.warnings[0]
    assert settings(("train",), found.config, None, {"max_steps": 9}, heard).config.train.max_steps == 9


def test_no_bar_outside_of_a_notebook() -> None:
    assert not in_notebook() and progress_here() is SILENT


def test_a_bar_shows_where_a_stage_is_and_keeps_the_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = NotebookProgress()
    monkeypatch.setattr(progress, "_draw", lambda: None)
    progress.stage("training", 40, "steps")
    progress.log(10, {"loss": 2.5, "grad_norm": 1.0})
    progress.advance(10, tokens_per_second=1234.5)
    for number in range(10):
        progress.note(f"<note {number}>")
    progress.warn("hot")
    progress.status("wandb", "offline")
    shown = progress.page()
    assert '<progress value="10" max="40">' in shown
    assert "training · 10 of 40 steps · loss 2.5" in shown and "tokens per second 1,234" in shown
    assert "<summary>3 earlier</summary>" in shown and "&lt;note 9&gt;" in shown and "<note" not in shown
    assert "<b>Warning:</b> hot" in shown and "wandb: offline" in shown
    progress.end_stage()
    assert "<progress" not in progress.page()


@pytest.mark.slow
def test_the_road_by_keywords_gives_results_that_show_themselves(elsewhere: Path) -> None:
    prepared = pretrain_cli.prepare("data.txt", sequence_length=32, vocab_size=300, artifacts="here")
    assert prepared.tokens > 100 and f"{prepared.tokens:,} tokens prepared" in prepared._repr_html_()
    trained = pretrain_cli.train(
        run="first", artifacts="here", max_steps=4, size=2, micro_batch=2, device="cpu", precision="fp32",
        report_to="none", sample_prompts=["Call me"],
    )  # fmt: skip
    frame = trained.metrics()
    assert list(frame.index) == [1, 2, 3, 4] and frame["loss"].iloc[-1] == trained.train_loss
    page = trained._repr_html_()
    assert "Run first finished" in page and "<svg" in page and "Samples during training" in page
    scores = pretrain_cli.evaluate("first", artifacts="here", on=["validation"])
    assert scores.scores().loc[("first", "validation"), "bits_per_byte"] == scores.models[0].texts[0].bits_per_byte
    assert "bits per byte on validation" in scores._repr_html_()
    texts = pretrain_cli.generate("Call <me>", model="first", artifacts="here", max_tokens=4)
    assert texts.samples[0].tokens == 4 and "Call &lt;me&gt;" in texts._repr_html_()
    assert list(pretrain_cli.all_runs("here").index) == ["first"]
    assert pretrain_cli.export("first", artifacts="here").checked == "opened with transformers"


@pytest.mark.slow
def test_a_script_prints_nothing_but_its_own_lines(elsewhere: Path) -> None:
    prepare_first = "pretrain_cli.prepare('data.txt', sequence_length=32, vocab_size=300); "
    small = "max_steps=2, size=2, micro_batch=2, device='cpu', precision='fp32', report_to='none'"
    rest = (
        "pretrain_cli.evaluate('first', on=['validation']); pretrain_cli.generate('Call', model='first', max_tokens=2)"
    )
    commands = (f"{prepare_first}pretrain_cli.train(run='first', {small})", f"{rest}; pretrain_cli.export('first')")
    for command in commands:  # in processes of their own: training silences the libraries for what follows
        done = subprocess.run(
            [sys.executable, "-c", f"import pretrain_cli; {command}"], capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("", "")
