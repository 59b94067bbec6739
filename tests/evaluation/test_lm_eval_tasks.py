"""lm-eval's tasks on the same model: a task of one's own, with no network; needs the extra `lm-eval`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig
from pretrain_cli.errors import MissingDependencyError, UsageError
from pretrain_cli.evaluation.run import evaluate
from tests.support.tiny import SAMPLE, make_model

needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval isn't installed")

TASK = """
task: whale_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


def _run(tmp_path: Path, tasks: str):
    model = make_model(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(SAMPLE, "utf-8")
    settings = EvaluateConfig(on=(str(text),), tasks=(tasks,), samples=0)
    return evaluate(Config(evaluate=settings), Artifacts(tmp_path / "artifacts"), models=[str(model)])


@needs_lm_eval
@pytest.mark.slow
def test_a_folder_of_tasks_runs_with_no_network_and_stands_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    questions = [
        {"question": "Call me", "choices": [" Ishmael", " some purse"], "answer": place % 2} for place in range(6)
    ]
    (folder / "words.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in questions))
    (folder / "a_file.yaml").write_text(TASK.format(file=folder / "words.jsonl"))
    result = _run(tmp_path, str(folder))
    assert result.models[0].tasks["whale_words"]["acc,none"] == 0.5  # each answer is right in half of them
    report = json.loads(result.report.read_text("utf-8"))
    assert report["models"][0]["tasks"]["whale_words"]["acc,none"] == 0.5
    assert "whale_words" in result.page.read_text("utf-8")
    assert capsys.readouterr().out == ""


@needs_lm_eval
def test_a_folder_without_a_task_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="No task"):
        _run(tmp_path, str(tmp_path / "none"))


def test_without_lm_eval_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingDependencyError) as caught:
        _run(tmp_path, "hellaswag")
    assert caught.value.exit_code == 6 and "lm-eval" in caught.value.hint
