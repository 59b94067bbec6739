"""A stranger's folder runs no code: trust comes from the command line, and files hold data only."""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pretrain_cli
from pretrain_cli.artifacts import CHECKPOINT_RECORD, Artifacts, RunFolder
from pretrain_cli.config.load import changed, load_config, to_toml
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import _work_folder
from pretrain_cli.errors import ModelError
from pretrain_cli.exporting.blend import blend
from pretrain_cli.exporting.run import export
from pretrain_cli.locking import lock
from pretrain_cli.processes import safe_path
from pretrain_cli.run_record import write_run_config
from pretrain_cli.storage import open_own, write_sealed_json
from pretrain_cli.tokenizer.copy import COMPANIONS, copy_tokenizer
from pretrain_cli.training.keeping.metrics import Metrics
from pretrain_cli.training.keeping.resume import merge, read_config
from pretrain_cli.training.run import train
from tests.support.commands import ENVIRONMENT, ptk, refused
from tests.support.runs import hashes, prepare_text, small
from tests.support.tiny import make_model

TRUST = "model.trust_remote_code"
IN_A_FILE = "[model]\ntrust_remote_code = true\n"
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({mark!r}).write_text("this code ran")

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def with_own_code(folder: Path, mark: Path, tokenizer_of: Path) -> Path:
    """A base whose code writes the file ``mark`` as soon as it is imported, with the tokenizer of the rows."""
    make_model(folder, vocab_size=400)
    shutil.copyfile(tokenizer_of / "tokenizer.json", folder / "tokenizer.json")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "own", "architectures": ["OwnModel"]}
    settings["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    return folder


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and a run of two steps."""
    folder = tmp_path_factory.mktemp("trust")
    artifacts = prepare_text(folder, "Call me Ishmael. Some years ago.\n\nNever mind how long precisely.\n\n" * 80)
    train(small(train__max_steps=2, train__save_steps=1), artifacts, run_name="a")
    return folder


@pytest.fixture
def stranger(tmp_path: Path, first_run: Path) -> SimpleNamespace:
    """The same folder after a stranger has made its run's config name a base with code, and trust it."""
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    shutil.copytree(first_run, folder)
    base = with_own_code(tmp_path / "base", mark, folder / "artifacts" / "tokenizer")
    config = folder / "artifacts" / "runs" / "a" / "config.toml"
    text = re.sub(r'base = ".*"', f'base = "{base}"', config.read_text())
    text = text.replace("trust_remote_code = false", "trust_remote_code = true")
    write_run_config(RunFolder(config.parent), text.split("\n", 1)[1])  # a stranger knows how to hash
    assert str(base) in config.read_text() and "trust_remote_code = true" in config.read_text()
    return SimpleNamespace(folder=folder, mark=mark, base=base, config=config)


@pytest.mark.slow
def test_a_resume_runs_no_code_that_the_run_itself_trusts(stranger: SimpleNamespace) -> None:
    done = ptk(stranger.folder, "train", "--resume", "a", "--max-steps", "4")
    refused(done, 4, "comes with its own model code", f"--set {TRUST}=true")
    assert not stranger.mark.exists()


@pytest.mark.slow
def test_a_resume_runs_code_that_this_command_line_trusts(stranger: SimpleNamespace) -> None:
    done = ptk(stranger.folder, "train", "--resume", "a", "--max-steps", "4", "--set", f"{TRUST}=true")
    assert stranger.mark.exists(), done.stderr
    assert "has no effect" not in done.stderr


@pytest.mark.slow
def test_a_file_given_with_config_trusts_nothing(stranger: SimpleNamespace) -> None:
    done = ptk(stranger.folder, "train", "--config", str(stranger.config), "--run", "b", "--max-steps", "2")
    refused(done, 4, "comes with its own model code")
    assert f"sets {TRUST}, which has no effect there" in done.stderr
    assert not stranger.mark.exists()


@pytest.mark.slow
def test_no_command_but_train_and_plan_opens_a_base_with_code(stranger: SimpleNamespace) -> None:
    trusts = ("--set", f"{TRUST}=true")
    for words in (["generate", "x", "--model"], ["evaluate"], ["export"], ["prepare", "text.txt", "--base"]):
        ptk(stranger.folder, *words, str(stranger.base), *(trusts if words[0] == "prepare" else ()), stdin="y\n")
        assert not stranger.mark.exists(), words


def test_trust_comes_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(assignments=[f"{TRUST}=true"]).config.model.trust_remote_code
    assert not load_config(assignments=[f"{TRUST}=true"]).notes
    assert load_config(flags={TRUST: True}).config.model.trust_remote_code


def test_no_process_imports_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers, training processes and the plan's measurement are started with -c or -m."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    mark = tmp_path / "mark"
    for name in ("pickle", "random", "tempfile"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.setenv(*safe_path().popitem())
    for how in (["-c", "import pickle"], ["-m", "tokenize", str(tmp_path / "pickle.py")]):
        subprocess.run([sys.executable, *how], check=True, capture_output=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1
    assert not mark.exists()


def test_a_script_that_plans_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ptk` sets the variable for all that it starts, a user's own script doesn't."""
    from pretrain_cli.planning import probe

    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(probe, "_fill", lambda *_: None)
    started = []

    def run(line: list[str], **options: dict[str, str]) -> subprocess.CompletedProcess[str]:
        started.append(options["env"]["PYTHONSAFEPATH"])
        return subprocess.CompletedProcess(line, 1, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelError):
        probe.measure(Config(), None, rows=None, prepared=Artifacts(tmp_path), seconds=1.0)
    assert started == ["1"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A stranger's folder may hold links to the user's own files, under names that ptk writes to."""
    mine, artifacts = tmp_path / "mine", Artifacts(tmp_path / "artifacts")
    mine.write_text("precious")
    run, work = artifacts.run("a"), artifacts.data / ".work"
    shards = work / "shards-0123456789abcdef"
    for folder in (run.path, shards):
        folder.mkdir(parents=True)
    links = [run.path / ".lock.json", work / "rejected.jsonl", shards / "task-000000.ids", work / "mine"]
    links += [run.metrics, run.samples, run.path / "diverged-step-000002.jsonl"]
    for link in links:
        link.symlink_to(mine)
    with lock(run.path, "training"):
        pass
    assert _work_folder(artifacts) == work and [entry for entry in work.rglob("*") if entry.is_symlink()] == [links[3]]
    Metrics(run.metrics).close()
    run.metrics.unlink()
    run.metrics.symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="symbolic link"):
        Metrics(run.metrics)
    for path in links[-2:]:
        for mode in ("w", "a"):
            with pytest.raises(OSError, match="symbolic link"):
                open_own(path, mode)
    assert mine.read_text() == "precious" and not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("line", [["plan", "--measure", "0.5"], ["train", "--processes", "2"]], ids=str)
def test_a_command_runs_no_code_of_its_working_folder(first_run: Path, tmp_path: Path, line: list[str]) -> None:
    mark = tmp_path / "mark"
    for name in ("json", "pickle", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")
    shutil.copytree(first_run / "artifacts", tmp_path / "artifacts")
    command = [sys.executable, "-P", "-m", "pretrain_cli", *line, "--max-steps", "2", "--size", "micro"]
    command += ["--device", "cpu", "--set", "tracking.report_to=none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_trust_in_the_working_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ptk.toml").write_text(IN_A_FILE)
    for found in (load_config(), load_config(file=Path("./ptk.toml"))):
        assert found.config.model.trust_remote_code
        assert found.notes == ("ptk.toml lets a base's own code run (model.trust_remote_code = true).",)
    assert not load_config(assignments=[f"{TRUST}=false"]).notes
    done = ptk(tmp_path, "config", "show", "--quiet", "--json")
    assert done.returncode == 0 and "ptk.toml lets a base's own code run" in done.stderr


def test_trust_in_the_environment_is_said() -> None:
    found = load_config(environ={"PTK_MODEL__TRUST_REMOTE_CODE": "true"})
    assert found.config.model.trust_remote_code
    assert found.notes[0].startswith("PTK_MODEL__TRUST_REMOTE_CODE lets a base's own code run")


@pytest.mark.parametrize("text", ['"model.trust_remote_code" = true', "[model]\ntrust_remote_code = true"])
@pytest.mark.parametrize("name", ["x.toml", "PTK_MODEL__TRUST_REMOTE_CODE", "--set", "PTK_x.toml"])
def test_no_spelling_and_no_name_of_a_file_makes_it_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    found = load_config(file=Path(name), environ={})
    assert not found.config.model.trust_remote_code
    assert "has no effect there" in found.notes[0]


@pytest.mark.parametrize(
    "text", ['"evaluate.tasks" = ["theirs", "arc_easy"]', '[evaluate]\ntasks = ["theirs", "arc_easy"]']
)
def test_a_folder_of_tasks_is_named_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "x.toml").write_text(text)
    found = load_config(file=Path("x.toml"), environ={})
    assert found.config.evaluate.tasks == ("arc_easy",)
    assert "names folders in evaluate.tasks" in found.notes[0]
    assert load_config(assignments=['evaluate.tasks=["theirs"]'], environ={}).config.evaluate.tasks == ("theirs",)


@pytest.mark.parametrize("value", ["true", "1", '"yes"'])
def test_trust_in_any_other_file_has_no_effect(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("mine.toml", "sub/ptk.toml"):
        (tmp_path / name).write_text(IN_A_FILE.replace("true", value))
        found = load_config(file=Path(name))
        assert not found.config.model.trust_remote_code
        assert f"{name} sets {TRUST}, which has no effect there" in found.notes[0]
        given = load_config(file=Path(name), assignments=[f"{TRUST}=true"])
        assert given.config.model.trust_remote_code and not given.notes


def test_every_opening_of_a_model_or_tokenizer_says_whether_it_trusts_code() -> None:
    """Left out, transformers would ask on the terminal whether to run the code."""
    found = []
    for file in Path(pretrain_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="from_pretrained" | "from_config")):
                    if owner.startswith("Auto") and "trust_remote_code" not in {word.arg for word in node.keywords}:
                        found.append(f"{file.name}:{node.lineno}")
    assert not found


def test_a_resume_sends_nothing_that_only_the_run_asks_to_send(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    asks = {"push_to_hub": True, "hub_model_id": "owner/name", "hub_strategy": "every_save"}
    elsewhere = {"output_dir": str(tmp_path / "elsewhere"), "dataloader_num_workers": 1000, "save_strategy": "steps"}
    run.config.write_text(to_toml(changed(Config(), trainer={**asks, **elsewhere, "dataloader_pin_memory": False})))
    kept = read_config(run)
    assert kept.trainer == {"dataloader_pin_memory": False}
    assert merge(kept, Config()).trainer == kept.trainer
    asked_now = merge(kept, changed(Config(), trainer={**asks, "dataloader_pin_memory": False}))
    assert asked_now.trainer == {**asks, "dataloader_pin_memory": False}


class Asks:
    """Pickled, it asks to write a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.mark, "this pickle ran")


def pickled(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Asks(mark)))


def in_torch_format(path: Path, mark: Path) -> None:
    torch.save({"state": Asks(mark)}, path)


def of_another_kind(path: Path, mark: Path) -> None:
    path.write_text("no tensors at all")


def other_tensors(path: Path, mark: Path) -> None:
    torch.save([torch.ones(3)], path)


@pytest.fixture
def run(tmp_path: Path, first_run: Path) -> RunFolder:
    shutil.copytree(first_run, tmp_path / "folder")
    return Artifacts(tmp_path / "folder" / "artifacts").run("a")


def resume_with(run: RunFolder, name: str) -> ModelError:
    """Resume after the file ``name`` of the newest checkpoint was made to match its manifest."""
    folder = run.checkpoint(run.checkpoint_steps()[-1])
    manifest = json.loads((folder / CHECKPOINT_RECORD).read_text())
    files = hashes(folder)
    files.pop(CHECKPOINT_RECORD)
    write_sealed_json(folder / CHECKPOINT_RECORD, manifest | {"files": files})
    with pytest.raises(ModelError) as caught:
        train(small(train__max_steps=4), Artifacts(run.path.parents[1]), resume="a")
    assert name in caught.value.message
    assert "weights_only" not in str(caught.value) + caught.value.hint
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (pickled, "is a Python pickle, which could run code"),
        (in_torch_format, "holds Python objects"),
        (of_another_kind, "is not a file that torch wrote"),
        (other_tensors, "don't fit each other or this model"),
    ],
)
def test_a_foreign_file_in_a_checkpoint_is_refused_and_named(run, tmp_path, name, make, words) -> None:
    mark = tmp_path / "mark"
    make(run.checkpoint(run.checkpoint_steps()[-1]) / name, mark)
    error = resume_with(run, "checkpoints/step-" if make is other_tensors else name)
    assert words in error.message and "ptk train" in error.hint
    assert not mark.exists()


@pytest.mark.slow
def test_the_index_of_a_sharded_checkpoint_runs_nothing(run: RunFolder, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    shards = run.checkpoint(run.checkpoint_steps()[-1]) / "sharded"
    shards.mkdir()
    pickled(shards / ".metadata", mark)
    resume_with(run, "hold something else than a checkpoint's tensors")
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_values_of_a_sharded_checkpoint_run_nothing(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import DefaultSavePlanner
    from torch.distributed.checkpoint.state_dict_saver import save

    from pretrain_cli.training.processes.sharding import _read_shards

    mark = tmp_path / "mark"
    save({"a": torch.ones(2), "b": 3.5, "c": (1, "two")}, checkpoint_id=tmp_path / "good", planner=DefaultSavePlanner())
    into = {"a": torch.zeros(2), "b": 0.0, "c": None}
    _read_shards(tmp_path / "good", into)
    assert into["b"] == 3.5 and into["c"] == (1, "two") and into["a"].sum() == 2
    save({"b": Asks(mark)}, checkpoint_id=tmp_path / "bad", planner=DefaultSavePlanner())
    with pytest.raises(ModelError, match="were not loaded"):
        _read_shards(tmp_path / "bad", {"b": 0.0})
    assert not mark.exists()


@pytest.mark.parametrize(
    ("make", "words"), [(pickled, "is a Python pickle"), (in_torch_format, "holds Python objects")]
)
def test_pickled_weights_are_refused_and_named(tmp_path: Path, make, words: str) -> None:
    from pretrain_cli.model.load import load_model

    mark, folder = tmp_path / "mark", make_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    make(folder / "pytorch_model.bin", mark)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert words in caught.value.message and "safetensors" in caught.value.hint
    assert not mark.exists()


@pytest.mark.slow
def test_a_foreign_file_is_no_bug_in_ptk(run: RunFolder, tmp_path: Path) -> None:
    folder = run.checkpoint(run.checkpoint_steps()[-1])
    (folder / "trainer_state.json").write_bytes(b"\x80\x04no json")
    manifest = json.loads((folder / CHECKPOINT_RECORD).read_text())
    files = hashes(folder)
    files.pop(CHECKPOINT_RECORD)
    write_sealed_json(folder / CHECKPOINT_RECORD, manifest | {"files": files})
    done = ptk(run.path.parents[2], "train", "--resume", "a", "--max-steps", "4")
    refused(done, 3, "trainer_state.json can't be read")


def test_no_library_imports_kernels_of_the_hub(tmp_path: Path) -> None:
    """bitsandbytes asks for one wherever the package is installed, and the processor knows AVX512-BF16."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("def get_kernel(*names, **more): ...\n", encoding="utf-8")
    lines = (
        "from pretrain_cli.quiet import quiet_environment",
        "quiet_environment()",
        "from transformers.utils import is_kernels_available",
        "print(is_kernels_available())",
        "from kernels import get_kernel",
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n" and "import of kernels halted" in done.stderr
    done = subprocess.run([sys.executable, "-c", lines[-1]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"])
def test_a_link_in_a_model_passes_on_no_file_of_mine(tmp_path: Path, name: str) -> None:
    """As a clone may bring one to a key, or to the variables of this process, with all tokens in them."""
    model, artifacts = make_model(tmp_path / "model"), Artifacts(tmp_path / "artifacts")
    secret = tmp_path / "id_rsa"
    secret.write_text("{}")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    with pytest.raises(ModelError, match="is a link to another kind of file"):
        export(artifacts, run=str(model))
    with pytest.raises(ModelError, match="is a link to another kind of file"):
        blend(artifacts, first=str(model), second=str(model))
    if name in COMPANIONS:
        with pytest.raises(ModelError, match="is a link to another kind of file"):
            copy_tokenizer(model, tmp_path / "tokenizer")
    assert not any(path.read_bytes() == b"{}" for path in artifacts.root.rglob("*") if path.is_file())


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_model_made_of_links_to_another_one_is_exported(tmp_path: Path) -> None:
    model, artifacts = make_model(tmp_path / "model"), Artifacts(tmp_path / "artifacts")
    blobs, cached, links = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc", tmp_path / "links"
    for folder in (blobs, cached, links):
        folder.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copyfile(file, blobs / str(number))
        (cached / file.name).symlink_to(blobs / str(number))
        (links / file.name).symlink_to(file)
    for folder in (cached, links):
        assert export(artifacts, run=str(folder)).path.is_dir()
