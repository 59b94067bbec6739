"""What runs recorded about themselves is read and summed up."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from pretrain_cli import foreign
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.locking import lock
from pretrain_cli.published import record_model
from pretrain_cli.records import record_files
from pretrain_cli.run_files import name_latest
from pretrain_cli.runs.comparison import compare_runs
from pretrain_cli.runs.removal import remove_runs, runs_to_remove
from pretrain_cli.runs.summary import list_runs, show_run
from pretrain_cli.storage import write_sealed_json
from pretrain_cli.training.keeping.checkpoints import clear_staging
from pretrain_cli.training.keeping.metrics import cut_lines, keep_other_lines


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
    doomed = doomed_by_keeping(artifacts, 1)
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
    assert doomed_by_keeping(artifacts, 1) == ["third", "second"]


def doomed_by_keeping(artifacts: Artifacts, best: int) -> list[str]:
    return [run.name for run in runs_to_remove(artifacts, keep_best=best).runs]


def measured(artifacts: Artifacts, name: str, bits: float, **record: object) -> None:
    """A run whose training measured ``bits``."""
    run = artifacts.run(name)
    run.metrics.write_text(json.dumps({"step": 2, "validation_loss": bits, "validation_bits_per_byte": bits}) + "\n")
    run.record.write_text(json.dumps({"status": "finished", "steps": 2, **record}))


def evaluated(artifacts: Artifacts, name: str, bits: float) -> None:
    folder = artifacts.run(name).evaluation
    folder.mkdir()
    texts = [{"name": "general", "bits_per_byte": 3.0}, {"name": "validation", "bits_per_byte": bits}]
    (folder / "report.json").write_text(json.dumps({"models": [{"name": name, "texts": texts}]}))


def test_runs_are_ranked_by_what_their_trainings_measured_whichever_of_them_were_evaluated(
    artifacts: Artifacts,
) -> None:
    for name, bits in (("first", 2.388), ("second", 2.402), ("third", 2.5)):
        measured(artifacts, name, bits)
    evaluated(artifacts, "first", 2.444)  # on more text than the training had time for
    assert doomed_by_keeping(artifacts, 1) == ["second", "third"]
    found = compare_runs(artifacts, ["second", "first"])
    assert found.verdict.startswith("first has the lowest bits per byte, 2.388: 0.014 below second.")
    assert [run.evaluated_bits_per_byte for run in found.runs] == [None, 2.444]
    assert "bits per byte, evaluated" in found.page.read_text("utf-8")


def test_a_finished_run_is_ranked_by_the_model_it_kept_not_by_the_step_it_stopped_at(artifacts: Artifacts) -> None:
    result = {
        "run": "first", "status": "finished", "steps": 2, "tokens": 64, "train_loss": 1.0, "validation_loss": 1.5,
        "validation_bits_per_byte": 1.5, "tokens_per_second": 1.0, "seconds": 1.0, "model": "m", "model_step": 1,
    }  # fmt: skip
    measured(artifacts, "first", 2.2, result=result)
    measured(artifacts, "second", 2.0)
    measured(artifacts, "third", 2.1)
    assert doomed_by_keeping(artifacts, 1) == ["second", "third"]


def test_a_named_run_and_the_best_to_keep_may_be_the_same(artifacts: Artifacts) -> None:
    measured(artifacts, "first", 1.0)
    with pytest.raises(UsageError, match="contradict"):
        runs_to_remove(artifacts, ("first",), keep_best=1)


def test_the_best_of_each_data_are_kept_and_it_is_said(artifacts: Artifacts) -> None:
    for name, bits, data in (("first", 1.0, "one"), ("second", 3.0, "other"), ("third", 2.0, "one")):
        measured(artifacts, name, bits, data_fingerprint=data)
    removal = runs_to_remove(artifacts, keep_best=1)
    assert [run.name for run in removal.runs] == ["third"]
    assert removal.remarks == ("These runs were trained on 2 different data: the best of each are kept.",)


def test_a_verdict_says_which_runs_are_unfinished_and_where_validations_differ(artifacts: Artifacts) -> None:
    plan = {
        "steps": None, "seconds": 60.0, "expected_steps": 640, "micro_batch": 1, "accumulation": 1, "batch_tokens": 64,
        "optimizer": "adamw", "schedule": "wsd", "warmup_steps": 1, "save_every": None, "eval_every": None,
        "logging_every": 1, "gradient_checkpointing": False, "learning_rate": 0.1, "matrix_learning_rate": 0.1,
        "embedding_learning_rate": 0.1,
    }  # fmt: skip
    result = {
        "run": "", "status": "finished", "steps": 2, "tokens": 64, "train_loss": 1.0, "validation_loss": 1.5,
        "validation_bits_per_byte": 1.5, "tokens_per_second": 1.0, "seconds": 1.0, "model": "m",
    }  # fmt: skip
    measured(artifacts, "first", 1.5, result=result | {"validation_rows": 40})
    measured(artifacts, "second", 1.5, result=result | {"validation_rows": 64})
    measured(artifacts, "third", 1.4, status="interrupted", plan=plan)
    verdict = compare_runs(artifacts, ["first", "second", "third"]).verdict
    assert verdict.startswith("third has the lowest bits per byte, 1.400: 0.100 below first. ")
    assert "third is unfinished: interrupted after 2 steps of about 640 planned." in verdict
    assert "took different numbers of rows: first 40, second 64." in verdict


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
    for report in ('{"models": 1}', '{"models": [{"name": "first", "texts": []}]}'):
        (run.evaluation / "report.json").write_text(report)
        summary = show_run(artifacts, "first").summary
        assert (summary.bits_per_byte, summary.evaluated_bits_per_byte) == (1.5, None)


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


def test_a_damaged_run_is_named_in_lists_and_never_removed_for_its_figures(artifacts: Artifacts) -> None:
    for name, bits in (("first", 2.4), ("second", 2.3), ("third", 2.5)):
        measured(artifacts, name, bits)
    best = artifacts.run("second")
    write_sealed_json(best.record, {"status": "finished", "steps": 2})
    best.record.write_text(best.record.read_text().replace('"steps": 2', '"steps": 3'))
    assert doomed_by_keeping(artifacts, 1) == ["third"]
    assert any("'second' is kept" in remark for remark in runs_to_remove(artifacts, keep_best=1).remarks)
    told = {run.name: run.damage for run in list_runs(artifacts)}
    assert "other bytes than ptk wrote" in told["second"] and not told["first"]
    first = artifacts.run("first")
    files = {name: each.model_dump() for name, each in record_files(first.path, ["metrics.jsonl"]).items()}
    write_sealed_json(first.record, {"status": "finished", "steps": 2, "files": files})
    first.metrics.write_text(first.metrics.read_text().replace("2.4", "1.4"))
    assert "metrics.jsonl has other bytes" in next(run.damage for run in list_runs(artifacts) if run.name == "first")


def test_a_folder_that_was_never_a_run_is_not_removed(artifacts: Artifacts) -> None:
    folder = artifacts.runs / "mystuff"
    folder.mkdir()
    (folder / "f").write_text("thesis")
    for remove in (lambda: runs_to_remove(artifacts, ("mystuff",)), lambda: remove_runs(artifacts, ["mystuff"])):
        with pytest.raises(UsageError, match="is not a run: it has neither") as caught:
            remove()
        assert caught.value.hint
    assert (folder / "f").read_text() == "thesis"


def test_a_removal_that_was_killed_is_ended_by_the_next(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    run, real = artifacts.run("first"), Path.rmdir

    def killed(folder: Path) -> None:
        if folder == run.path:
            raise OSError(errno.EIO, "Input/output error")
        real(folder)

    monkeypatch.setattr(Path, "rmdir", killed)
    with pytest.raises(OSError, match="Input/output"):
        remove_runs(artifacts, ["first"])
    assert list(run.path.iterdir()) == []
    monkeypatch.undo()
    assert runs_to_remove(artifacts, ("first",)).runs[0].bytes_on_disk == 0
    remove_runs(artifacts, ["first"])
    assert not run.path.exists()


@pytest.mark.skipif(os.name == "nt", reason="no lock is held there while the files are removed")
def test_no_training_begins_on_a_run_while_it_is_removed(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    run, real, tried = artifacts.run("first"), foreign._remove, []

    def attempted(folder: Path, name: str) -> None:
        if name not in (".lock", run.config.name, run.record.name):
            with pytest.raises(UsageError, match="already"), lock(run.path, "training"):
                pass
            tried.append(name)
        real(folder, name)

    with lock(run.path, "training"):
        pass
    monkeypatch.setattr(foreign, "_remove", attempted)
    remove_runs(artifacts, ["first"])
    assert tried and not run.path.exists()


def test_of_a_run_only_what_ptk_wrote_is_removed_and_the_rest_is_named(artifacts: Artifacts, tmp_path: Path) -> None:
    run, elsewhere = artifacts.run("first"), tmp_path / "elsewhere"
    for name in ("model.safetensors", "tokenizer.json", "README.md"):
        (run.model / name).write_text("ptk's")
    record_model(run.model)
    (run.model / "README.md").write_text("a card that somebody edited is still the run's")
    step = run.checkpoint(2)
    step.mkdir(parents=True)
    (step / "model.safetensors").write_text("ptk's")
    write_sealed_json(step / "manifest.json", {"step": 2, "files": {"model.safetensors": [5, "x"]}})
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").write_text("mine")
    mine = ["notes.txt", "model/extra.safetensors", "model/tokenizer_train.py", "checkpoints/step-000002/notes.txt"]
    mine += ["checkpoints/step-000009/mine.txt", "plots/a.png", "evaluation/mine.html"]
    for name in mine:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("mine")
    (run.path / "plots" / "link").symlink_to(elsewhere)
    run.adapter.symlink_to(elsewhere)
    (kept,) = runs_to_remove(artifacts, ("first",)).remarks
    assert "keeps what ptk didn't write: adapter, checkpoints/step-000002/notes.txt" in kept and "more" in kept
    assert remove_runs(artifacts, ["first"]) > 0
    left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert left == set(mine), left
    assert (elsewhere / "model.safetensors").read_text() == "mine" and run.adapter.is_symlink()
    assert "first" not in artifacts.run_names()


def test_a_record_that_lists_files_elsewhere_removes_none_of_them(artifacts: Artifacts, tmp_path: Path) -> None:
    run, mine = artifacts.run("first"), tmp_path / "thesis.txt"
    mine.write_text("mine")
    (run.model / "notes.txt").write_text("mine")
    files = {
        str(name): record_files(tmp_path, ["thesis.txt"])["thesis.txt"].model_dump()
        for name in ("../../../thesis.txt", mine)
    }
    write_sealed_json(run.model / ".ptk-files.json", {"version": 1, "files": files})
    step = run.checkpoint(2)
    step.mkdir(parents=True)
    (step / "notes.txt").write_text("mine")
    write_sealed_json(step / "manifest.json", {"step": 2, "files": {"../../../../thesis.txt": [4, "x"]}})
    remove_runs(artifacts, ["first"])
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("content", ["Notes of today\n", "notes\n", "x" * 100_000, "\udcff\udcfe"])
def test_a_file_latest_of_somebody_else_is_kept_aside(tmp_path: Path, content: str) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.latest.write_bytes(content.encode(errors="surrogateescape"))
    assert "latest.old" in name_latest(artifacts, "first")
    assert artifacts.latest.read_text() == "first\n"
    assert (tmp_path / "latest.old").read_bytes() == content.encode(errors="surrogateescape")


def test_latest_is_written_anew_where_it_names_a_run(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    for name in ("first", "second"):
        artifacts.run(name).path.mkdir(parents=True)
        assert name_latest(artifacts, name) == ""
    assert artifacts.latest.read_text() == "second\n" and not (tmp_path / "latest.old").exists()


THEIRS = (
    *(".old-notes/n.txt", ".old-readme.txt", ".staging-mine/x", "wandb/notes.md", "wandb/run-notes.md"),
    *("tensorboard/notes.md", "checkpoints/.old-mine/x", "checkpoints/.staging-mine/x", "evaluation/report-mine.json"),
    *("evaluation/report-2024.html", "diverged-step-notes.jsonl", "notes.md"),
)
OURS = (
    *("checkpoints/.staging-000100-ab12_xyz/x", "checkpoints/.old-step-000100/x", ".ptk-model-abcdefgh/x"),
    *("wandb/offline-run-20261130_201500-abc/run.wandb", "wandb/debug-internal.log", "diverged-step-000123.jsonl"),
    *("tensorboard/events.out.tfevents.1.host", "tensorboard/1.2/events.out.tfevents.1.host.2"),
)


def test_a_removal_knows_its_own_by_exact_names_and_seals(artifacts: Artifacts) -> None:
    run = artifacts.run("first")
    for name in (*THEIRS, *OURS):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    write_sealed_json(run.evaluation / "report-own.json", {"texts": []})
    remove_runs(artifacts, ["first"])
    left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert left == set(THEIRS)


@pytest.mark.parametrize("record", [None, "", "[]", '{"name": "mine"}', "1", "{" * 5000])
def test_a_folder_that_never_was_a_run_is_not_removed(tmp_path: Path, record: str | None) -> None:
    artifacts = Artifacts(tmp_path)
    run = artifacts.run("project")
    run.path.mkdir(parents=True)
    files = {"config.toml": "x = 1", "metrics.jsonl": "mine", "curves.png": "mine"}
    for name, text in {**files, **({} if record is None else {"run.json": record})}.items():
        (run.path / name).write_text(text)
    with pytest.raises(UsageError, match="is not a run"):
        remove_runs(artifacts, ["project"])
    assert (run.path / "metrics.jsonl").read_text() == "mine"


def test_a_resume_clears_what_a_kill_left_and_nothing_else(artifacts: Artifacts) -> None:
    run = artifacts.run("first")
    for name in (*THEIRS, *OURS):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    clear_staging(run)
    assert all((run.path / name).is_file() for name in THEIRS)
    assert not any((run.path / name).exists() for name in OURS[:3])


def test_lines_of_somebody_else_in_a_runs_files_are_kept(artifacts: Artifacts) -> None:
    samples = artifacts.run("first").samples
    samples.write_text('{"step": 1}\n{"half')
    assert keep_other_lines(samples) == ""
    samples.write_text("My samples\n\nof today\n")
    assert "samples.jsonl.old" in keep_other_lines(samples)
    cut_lines(samples, 1)
    assert samples.read_text() == "" and "of today" in samples.with_name("samples.jsonl.old").read_text()
