"""What runs recorded about themselves is read and summed up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.locking import lock
from pretrain_cli.runs.comparison import compare_runs
from pretrain_cli.runs.removal import remove_runs, runs_to_remove
from pretrain_cli.runs.summary import list_runs, show_run


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    artifacts = Artifacts(tmp_path)
    for name, loss in (("first", 3.0), ("second", 2.0), ("third", 2.5)):
        run = artifacts.run(name)
        (run.model).mkdir(parents=True)
        run.record.write_text(json.dumps({"status": "finished", "steps": 2, "tokens": 64, "base": ""}))
        run.config.write_text(f'[train]\nlearning_rate = {loss}\nseed = 0\n[data]\npacking = "concat"\n')
        lines = [
            {"step": 1, "loss": loss + 1, "elapsed_s": 1.0},
            {"step": 2, "validation_loss": loss, "elapsed_s": 2.0},
        ]
        run.metrics.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3, "lo')
    artifacts.latest.write_text("third\n")
    return artifacts


def test_the_list_shows_what_each_run_reached(artifacts: Artifacts) -> None:
    runs = {run.name: run for run in list_runs(artifacts)}
    assert (runs["second"].train_loss, runs["second"].validation_loss) == (3.0, 2.0)
    assert runs["second"].seconds == 2.0
    assert runs["second"].status == "finished"
    assert show_run(artifacts).summary.name == "third"


def test_a_comparison_names_only_the_keys_that_differ(artifacts: Artifacts) -> None:
    found = compare_runs(artifacts, ["first", "second"])
    assert found.differences == {"train.learning_rate": (3.0, 2.0)}
    assert found.curves["loss"] == {"first": [(1, 4.0)], "second": [(1, 3.0)]}
    page = found.page.read_text("utf-8")
    assert "train.learning_rate" in page and "<svg" not in page and "src=" not in page and "<script" not in page


def test_any_number_of_runs_is_compared_with_a_verdict_samples_axes_and_links(artifacts: Artifacts) -> None:
    for place, name in enumerate(("first", "second", "third")):
        run = artifacts.run(name)
        run.metrics.write_text(
            "".join(
                json.dumps({"step": step, "tokens": 64 * step, "elapsed_s": step / 2, "loss": 5 - step, **validation})
                + "\n"
                for step in (1, 2, 3)
                for validation in ({"validation_loss": 4 - place} if step == 3 else {},)
            )
        )
        run.samples.write_text(json.dumps({"step": 3, "prompt": "Once", "text": f" upon {name}"}) + "\n")
    run.evaluation.mkdir()
    (run.evaluation / "report.html").write_text("a report")
    found = compare_runs(artifacts, ["first", "second", "third"])
    assert found.verdict.startswith("third has the lowest validation loss, 2.000: 1.000 below second.")
    assert found.differences["train.learning_rate"] == (3.0, 2.0, 2.5)
    page = found.page.read_text("utf-8")
    for part in (
        "training loss by step",
        "training loss by tokens",
        "training loss by time",
        " upon second",
        found.verdict,
    ):
        assert part in page, part
    assert "validation loss by" not in page, "one point is no curve"
    (link,) = re.findall('<a href="([^"]+)"', page)
    assert (found.page.parent / link).read_text() == "a report"


def test_runs_on_different_data_get_no_verdict(artifacts: Artifacts) -> None:
    artifacts.run("first").record.write_text(json.dumps({"status": "finished", "data_fingerprint": "other"}))
    assert "trained on different data" in compare_runs(artifacts, ["first", "second"]).verdict
    with pytest.raises(UsageError, match="needs two runs"):
        compare_runs(artifacts, ["first", "first"])


def test_keeping_the_best_removes_the_others_and_latest_follows(artifacts: Artifacts) -> None:
    doomed = [run.name for run in runs_to_remove(artifacts, keep_best=1)]
    assert sorted(doomed) == ["first", "third"]
    assert remove_runs(artifacts, doomed) > 0
    assert artifacts.run_names() == ["second"]
    assert artifacts.latest_run().name == "second"


def test_removing_without_saying_which_is_a_usage_error(artifacts: Artifacts) -> None:
    with pytest.raises(UsageError):
        runs_to_remove(artifacts)


def test_the_best_are_those_with_the_fewest_bits_per_byte(artifacts: Artifacts) -> None:
    for name, bits in (("first", 1.0), ("second", 2.0), ("third", 1.5)):
        with open(artifacts.run(name).metrics, "w") as file:
            file.write(json.dumps({"step": 2, "validation_loss": 9 - bits, "validation_bits_per_byte": bits}) + "\n")
    assert [run.name for run in runs_to_remove(artifacts, keep_best=1)] == ["third", "second"]


def test_a_killed_run_is_called_killed_and_can_be_removed_one_that_trains_cannot(artifacts: Artifacts) -> None:
    run = artifacts.run("first")
    run.record.write_text(json.dumps({"status": "running", "base": ""}))
    with lock(run.path, "training"):
        assert {found.name: found.status for found in list_runs(artifacts)}["first"] == "running"
        with pytest.raises(UsageError, match="still training"):
            remove_runs(artifacts, ["first"])
    (run.path / ".lock.json").write_text('{"pid": 1}')  # as a SIGKILL leaves it
    assert {found.name: found.status for found in list_runs(artifacts)}["first"] == "killed"
    remove_runs(artifacts, ["first"])
    assert "first" not in artifacts.run_names()


@pytest.mark.parametrize("content", ["{", '{"version": 99}', '{"steps": "many"}'])
def test_a_run_with_a_damaged_record_is_listed_as_unknown_and_the_others_as_before(
    artifacts: Artifacts, content: str
) -> None:
    artifacts.run("second").record.write_text(content)
    assert [(run.name, run.status) for run in sorted(list_runs(artifacts), key=lambda run: run.name)] == [
        ("first", "finished"), ("second", "unknown"), ("third", "finished"),
    ]  # fmt: skip
    assert show_run(artifacts, "second").summary.validation_loss == 2.0


def test_a_damaged_report_leaves_the_bits_per_byte_of_the_training(artifacts: Artifacts) -> None:
    run = artifacts.run("first")
    with open(run.metrics, "w") as file:
        file.write(json.dumps({"step": 2, "validation_bits_per_byte": 1.5}) + "\n")
    run.evaluation.mkdir()
    for report, bits in (('{"models": 1}', 1.5), ('{"models": [{"name": "first", "texts": []}]}', 1.5)):
        (run.evaluation / "report.json").write_text(report)
        assert show_run(artifacts, "first").summary.bits_per_byte == bits
    texts = [{"name": "general", "bits_per_byte": 3.0}, {"name": "validation", "bits_per_byte": 1.25}]
    (run.evaluation / "report.json").write_text(json.dumps({"models": [{"name": "first", "texts": texts}]}))
    assert show_run(artifacts, "first").summary.bits_per_byte == 1.25


def test_a_removal_that_breaks_off_leaves_no_name_of_a_run_that_is_gone(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        with pytest.raises(OSError, match="Input/output"):
            remove_runs(artifacts, ["third"])
    assert artifacts.latest_run().name in ("first", "second")
    remove_runs(artifacts, ["third"])
    assert sorted(artifacts.run_names()) == ["first", "second"]


def test_a_damaged_config_of_a_run_is_an_error_that_names_it(artifacts: Artifacts) -> None:
    artifacts.run("first").config.write_text("[train")
    with pytest.raises(ModelError, match=r"first/config\.toml can't be read"):
        show_run(artifacts, "first")
