"""`ptk doctor --verify` lists every file that isn't as ptk wrote it; whoever opens a damaged model refuses it."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import changed
from pretrain_cli.errors import DataError, ModelError, PtkError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.exporting.run import export
from pretrain_cli.manifest import check_bytes, read_manifest
from pretrain_cli.model.load import load_model
from pretrain_cli.model.names import find_model, open_folders
from pretrain_cli.runs.removal import remove_runs
from pretrain_cli.runs.verification import verify
from pretrain_cli.storage import write_sealed_json
from pretrain_cli.training.keeping.resume import read_config
from pretrain_cli.training.run import train
from tests.support.commands import ptk, refused
from tests.support.runs import prepare_text, small

pytestmark = pytest.mark.slow
FIXTURE = Path(__file__).parents[1] / "fixtures" / "artifacts-0.1.0.tar.gz"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Data, a run with a checkpoint and a report, and an export."""
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    artifacts = prepare_text(tmp_path_factory.mktemp("made"), prose[:12_000])
    config = small(train__max_steps=2, train__save_steps=1, evaluate__sample=1000, evaluate__device="cpu")
    train(config, artifacts, run_name="a")
    evaluate(changed(config, evaluate__precision="fp32"), artifacts)
    export(artifacts, run="a")
    return artifacts


@pytest.fixture
def artifacts(tmp_path: Path, made: Artifacts) -> Artifacts:
    shutil.copytree(made.root, tmp_path / "artifacts")
    return Artifacts(tmp_path / "artifacts")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text and old != new
    path.write_text(text.replace(old, new, 1), "utf-8")


def swap_a_merge(path: Path) -> None:
    value = json.loads(path.read_text("utf-8"))
    merges = value["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), "utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0x10
    path.write_bytes(content)


def rate(run: RunFolder) -> str:
    return next(line for line in run.config.read_text().splitlines() if line.startswith("learning_rate"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "data/manifest.json": lambda path: replace(path, '"rows": ', '"rows": 1'),
    "data/rejected.jsonl": Path.unlink,
    "data/train/data-00000-of-00001.arrow": flip,
    "data/validation/state.json": lambda path: replace(path, "{", "{ "),
    "tokenizer/tokenizer.json": swap_a_merge,
    "latest": lambda path: replace(path, "a", "b"),
    "runs/a/run.json": lambda path: replace(path, '"tokens": ', '"tokens": 1'),
    "runs/a/config.toml": lambda path: replace(path, "learning_rate = 0", "learning_rate = 1"),
    "runs/a/metrics.jsonl": lambda path: replace(path, '"loss": ', '"loss": 1'),
    "runs/a/curves.png": flip,
    "runs/a/model/model.safetensors": flip,
    "runs/a/model/config.json": lambda path: replace(path, '"rope_theta": 1', '"rope_theta": 2'),
    "runs/a/model/tokenizer.json": swap_a_merge,
    "runs/a/model/README.md": lambda path: path.write_text("mine"),
    "runs/a/model/.ptk-files.json": lambda path: replace(path, '"size": ', '"size": 1'),
    "runs/a/checkpoints/step-000002/optimizer.pt": flip,
    "runs/a/checkpoints/step-000002/manifest.json": lambda path: replace(path, '"step": 2', '"step": 3'),
    "runs/a/evaluation/report.json": lambda path: replace(path, '"perplexity": ', '"perplexity": 1'),
    "runs/a/evaluation/report.html": lambda path: replace(path, "<table", "<tablo"),
    "exports/a-hf/model.safetensors": flip,
}


def test_files_that_are_as_they_were_written_are_the_same(made: Artifacts) -> None:
    found = verify(made)
    assert found.ok and not found.unrecorded and not found.training
    known = [path for path in made.root.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    assert found.files == len(known), known
    assert verify(made, "a").files < found.files


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damaged_file_is_listed(artifacts: Artifacts, name: str) -> None:
    DAMAGES[name](artifacts.root / name)
    found = verify(artifacts)
    assert [finding.path for finding in found.differs] == [artifacts.root / name], found.differs
    assert not found.unrecorded
    assert verify(artifacts, "a").ok == (not name.startswith("runs/a"))


def test_a_damaged_teacher_and_a_damaged_base_are_listed(artifacts: Artifacts) -> None:
    run = artifacts.run("a")
    teacher = run.teachers.run("a1")
    shutil.copytree(run.path, teacher.path, ignore=shutil.ignore_patterns("teachers"))
    base = artifacts.bases / "b-0123"
    shutil.copytree(run.model, base)
    assert verify(artifacts).ok and verify(artifacts, "a").ok
    flip(teacher.model / "model.safetensors")
    flip(base / "model.safetensors")
    paths = [folder / "model.safetensors" for folder in (base, teacher.model)]
    assert sorted(found.path for found in verify(artifacts).differs) == sorted(paths)
    assert [found.path for found in verify(artifacts, "a").differs] == paths[1:]


@pytest.mark.parametrize(
    "name", ["data/manifest.json", "runs/a/run.json", "runs/a/model", "runs/a/model/.ptk-files.json"]
)
def test_a_missing_record_or_model_is_listed(artifacts: Artifacts, name: str) -> None:
    path = artifacts.root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert path in [found.path for found in verify(artifacts).differs]


def test_a_missing_file_is_listed(artifacts: Artifacts) -> None:
    weights = artifacts.run("a").model / "model.safetensors"
    weights.unlink()
    artifacts.run("a").config.unlink()
    told = {finding.path: finding.told for finding in verify(artifacts, "a").differs}
    assert told == {weights: "is missing", artifacts.run("a").config: "is missing"}


def test_a_config_that_has_lost_its_hash_is_listed_where_its_run_has_one(artifacts: Artifacts) -> None:
    config = artifacts.run("a").config
    config.write_text("".join(config.read_text().splitlines(keepends=True)[1:]))
    (finding,) = verify(artifacts).differs
    assert finding.path == config and "lost its hash" in finding.told


def test_what_version_0_1_0_wrote_has_no_hash_on_record(tmp_path: Path) -> None:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    found = verify(Artifacts(tmp_path / "artifacts"))
    assert found.ok and found.unrecorded
    assert {finding.told for finding in found.unrecorded} == {"has no hash on record"}


def test_a_file_that_ptk_did_not_write_is_left_alone(artifacts: Artifacts) -> None:
    for name in ("runs/a/notes.txt", "runs/a/model/notes.txt", "data/notes.txt", "runs/mine/notes.txt"):
        (artifacts.root / name).parent.mkdir(exist_ok=True)
        (artifacts.root / name).write_text("mine")
    assert verify(artifacts).ok


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"])
def test_a_model_with_another_file_is_not_opened(artifacts: Artifacts, name: str) -> None:
    """Sizes are compared by all that open a model, hashes of the weights by those that read all of them."""
    path = artifacts.run("a").model / name
    DAMAGES.get(f"runs/a/model/{name}", flip)(path)
    with pytest.raises(ModelError, match=r"The model is damaged: .* has other bytes than were written") as caught:
        open_folders(find_model("a", artifacts), artifacts)
        load_model(path.parent)
    assert "ptk runs show" in caught.value.hint and ".ptk-files.json" in caught.value.hint
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match="bytes instead of"):
        open_folders(find_model("a", artifacts), artifacts)
    (path.parent / ".ptk-files.json").unlink()
    open_folders(find_model("a", artifacts), artifacts)


def test_a_checkpoint_and_an_export_with_other_weights_are_not_opened(artifacts: Artifacts) -> None:
    run = artifacts.run("a")
    for folder in (run.checkpoint(2), artifacts.exports / "a-hf"):
        load_model(folder)
        flip(folder / "model.safetensors")
        with pytest.raises(ModelError, match="damaged"):
            load_model(folder)


def test_what_a_removal_leaves_of_a_run_is_not_missing_its_record(artifacts: Artifacts) -> None:
    run = artifacts.run("a")
    for place in (run.path, run.model, run.checkpoint(run.checkpoint_steps()[0])):
        (place / "notes.txt").write_text("mine")
    remove_runs(artifacts, ["a"])
    assert (run.model / "notes.txt").is_file() and not run.record.exists()
    assert verify(artifacts).ok


def test_a_run_that_was_removed_while_it_was_scored_can_be_removed_again(artifacts: Artifacts) -> None:
    run = artifacts.run("a")
    kept = shutil.copytree(run.evaluation, artifacts.root / "kept")
    remove_runs(artifacts, ["a"])
    shutil.copytree(kept, run.evaluation)
    remove_runs(artifacts, ["a"])
    assert not run.path.exists()


def test_a_checkpoint_is_opened_beside_a_damaged_model_but_not_with_a_damaged_tokenizer(artifacts: Artifacts) -> None:
    run = artifacts.run("a")
    step = run.checkpoint(run.checkpoint_steps()[0]).name
    flip(run.model / "model.safetensors")
    (run.model / "config.json").unlink()
    assert open_folders(find_model("a", artifacts, step), artifacts)[1] == run.model
    swap_a_merge(run.model / "tokenizer.json")
    with pytest.raises(ModelError, match=r"The tokenizer is damaged: .*tokenizer\.json has other bytes"):
        open_folders(find_model("a", artifacts, step), artifacts)


def test_a_model_card_may_be_edited(artifacts: Artifacts) -> None:
    (artifacts.run("a").model / "README.md").write_text("mine")
    assert open_folders(find_model("a", artifacts), artifacts)


def test_a_manifest_of_somebody_elses_model_is_none_of_ours(artifacts: Artifacts) -> None:
    folder = artifacts.root / "theirs"
    shutil.copytree(artifacts.run("a").model, folder)
    (folder / ".ptk-files.json").unlink()
    (folder / "manifest.json").write_text("[1]")
    assert open_folders(find_model(str(folder), artifacts), artifacts)


def test_damaged_rows_are_refused_by_whoever_reads_them(artifacts: Artifacts) -> None:
    manifest = read_manifest(artifacts)
    flip(artifacts.train_rows / "data-00000-of-00001.arrow")
    with pytest.raises(DataError, match="damaged"):
        check_bytes(artifacts, manifest, "train")
    check_bytes(artifacts, manifest, "validation")


def test_another_learning_rate_in_a_runs_config_is_refused(artifacts: Artifacts) -> None:
    run = artifacts.run("a")
    replace(run.config, rate(run), "learning_rate = 9.0")
    with pytest.raises(PtkError, match="other bytes than ptk wrote"):
        read_config(run)


def test_the_command_lists_what_differs_and_exits_with_3(artifacts: Artifacts) -> None:
    root = ("--artifacts", str(artifacts.root))
    DAMAGES["runs/a/model/config.json"](artifacts.run("a").model / "config.json")
    done = ptk(artifacts.root, "doctor", "--verify", *root)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    first, last = done.stdout.splitlines()
    assert first == f"differs  {artifacts.run('a').model}/config.json has other bytes than were written"
    assert last.startswith("1 file differs from what ptk wrote; ")
    value = json.loads(ptk(artifacts.root, "doctor", "--verify", "a", "--json", *root).stdout)
    assert value["ok"] is False and [entry["path"] for entry in value["differs"]]
    refused(ptk(artifacts.root, "doctor", "a", *root), 2, "--verify")
    refused(ptk(artifacts.root, "doctor", "--verify", "b", *root), 4, "no run 'b'")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_read(artifacts: Artifacts) -> None:
    weights, page = artifacts.run("a").model / "model.safetensors", artifacts.root / "comparisons" / "a.html"
    weights.unlink()
    page.parent.mkdir()
    os.mkfifo(page)
    write_sealed_json(
        artifacts.run("a").model / ".ptk-files.json",
        {"version": 1, "files": {"model.safetensors": {"size": 0, "hash": ""}, "x": {"size": 0, "hash": ""}}},
    )
    os.mkfifo(weights)
    (weights.parent / "x").symlink_to("/dev/zero")
    told = {finding.path: finding.told for finding in verify(artifacts).differs}
    assert told == dict.fromkeys((weights, weights.parent / "x", page), "is no longer a file")
