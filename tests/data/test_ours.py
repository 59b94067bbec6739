"""Prepare removes and replaces what its records say that it wrote, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.staging import Staging
from pretrain_cli.errors import UsageError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.storage import write_json
from tests.support.commands import ptk, refused
from tests.support.preparing import everything, small_config
from tests.support.runs import Heard

SENTENCES = "Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in everything(folder).items() if not Path(name).name.startswith(".lock")}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(SENTENCES)
    return file


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "p")


def put(artifacts: Artifacts, name: str, content: str = "thesis") -> Path:
    file = artifacts.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


IN_THE_WAY = [
    *("tokenizer/tokenizer_train.py", "tokenizer/merges.txt", "tokenizer/tokenizer.json", "tokenizer/notes/a.txt"),
    *("data/train/my.arrow", "data/train/state.json", "data/validation/data-00000-of-00001.arrow"),
    *("data/manifest.json", "data/rejected.jsonl", "data/inputs.arrow", "data/.new/train/mine.txt", "data/.new/mine"),
    "data/.new/manifest.json",
    *("tokenizer", "data/train", "data/manifest.json/mine"),
]


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_without_a_record_a_file_in_the_way_is_refused_by_its_name(artifacts: Artifacts, text: Path, name: str) -> None:
    put(artifacts, name)
    before = contents(artifacts.root)
    with pytest.raises(UsageError, match="no record says that ptk wrote it: it would be lost") as caught:
        prepare(small_config(text), artifacts)
    assert str(artifacts.root / name).removesuffix("/mine") in caught.value.message
    assert "--artifacts DIR" in caught.value.hint
    assert contents(artifacts.root) == before


def test_the_command_says_it_in_two_lines(tmp_path: Path, artifacts: Artifacts, text: Path) -> None:
    mine = [put(artifacts, "tokenizer/tokenizer_train.py"), put(artifacts, "data/train/my.arrow")]
    done = ptk(tmp_path, "prepare", str(text), "--artifacts", str(artifacts.root))
    refused(done, 2, "tokenizer_train.py is in the way", "--artifacts DIR")
    assert [file.read_text() for file in mine] == ["thesis"] * 2


def test_a_link_in_the_way_is_refused_and_what_it_names_stays(tmp_path: Path, artifacts: Artifacts, text: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "tokenizer.json").write_text("thesis")
    artifacts.root.mkdir()
    artifacts.tokenizer.symlink_to(mine)
    with pytest.raises(UsageError, match=r"tokenizer\.json is in the way"):
        prepare(small_config(text), artifacts)
    assert artifacts.tokenizer.is_symlink() and (mine / "tokenizer.json").read_text() == "thesis"


def test_with_a_record_other_files_are_kept_through_any_number_of_prepares(artifacts: Artifacts, text: Path) -> None:
    prepare(small_config(text), artifacts)
    names = ("tokenizer/merges.txt", "tokenizer/tokenizer_train.py", "data/train/my.arrow", "data/validation/x/y.arrow")
    for name in (*names, "data/.work/precious", "data/mine.json"):
        put(artifacts, name)
    for length in (64, 32, 48):
        prepare(small_config(text, length), artifacts)
        for name in (*names, "data/.work/precious", "data/mine.json"):
            assert (artifacts.root / name).read_text() == "thesis", name
        assert not set(names) & set(read_manifest(artifacts).files)
    assert prepare(small_config(text, 48), artifacts).reused


def test_files_in_the_work_folder_are_kept_where_a_prepare_fails_and_where_it_ends(
    artifacts: Artifacts, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(_: Staging) -> None:
        raise Killed

    for name in ("precious", "shards-of-mine/a", "tokenizer-mine/a"):
        put(artifacts, f"data/.work/{name}")
    put(artifacts, "data/.shards-notes/a")
    before = contents(artifacts.root)
    with monkeypatch.context() as patched:
        patched.setattr(Staging, "begin", kill)
        with pytest.raises(Killed):
            prepare(small_config(text), artifacts)
    assert before.items() <= contents(artifacts.root).items()
    prepare(small_config(text), artifacts)
    assert before.items() <= contents(artifacts.root).items()
    left = {entry.name for entry in (artifacts.data / ".work").iterdir()}
    assert left == {"precious", "shards-of-mine", "tokenizer-mine"}


def test_rows_without_files_on_record_are_replaced_by_their_exact_names(artifacts: Artifacts, text: Path) -> None:
    """As 0.1.0 left them."""
    prepare(small_config(text), artifacts)
    manifest = json.loads(artifacts.manifest.read_text())
    del manifest["files"], manifest["xxh3"]
    write_json(artifacts.manifest, manifest)
    names = ("tokenizer/merges.txt", "tokenizer/tokenizer_train.py", "data/train/my.arrow")
    for name in names:
        put(artifacts, name)
    prepare(small_config(text, 64), artifacts)
    undisturbed = Artifacts(artifacts.root.parent / "undisturbed")
    prepare(small_config(text, 64), undisturbed)
    mine = {str(Path(name)): b"thesis" for name in names}
    found, wanted = contents(artifacts.root), contents(undisturbed.root)
    assert set(found) == {*wanted, *mine}
    assert all(found[name] == content for name, content in mine.items())


@pytest.mark.parametrize("damage", ["", '{"xxh3": "', "cut"])
def test_a_damaged_manifest_of_ptks_is_replaced(artifacts: Artifacts, text: Path, damage: str) -> None:
    prepare(small_config(text), artifacts)
    content = artifacts.manifest.read_text()
    artifacts.manifest.write_text(content[:500] if damage == "cut" else damage)
    assert not prepare(small_config(text), artifacts).reused
    assert prepare(small_config(text), artifacts).reused
    assert not [name for name in contents(artifacts.root) if name.endswith(".old")]


@pytest.mark.parametrize("kept", ["rows", "nothing"])
def test_rows_that_lost_their_manifest_are_known_by_their_state(artifacts: Artifacts, text: Path, kept: str) -> None:
    prepare(small_config(text), artifacts)
    for path in (artifacts.manifest, artifacts.rejected, artifacts.input_list):
        path.unlink(missing_ok=True)
    shutil.rmtree(artifacts.tokenizer if kept == "rows" else artifacts.train_rows)
    if kept == "rows":
        assert not prepare(small_config(text), artifacts).reused
        return
    with pytest.raises(UsageError, match=r"tokenizer.*is in the way"):
        prepare(small_config(text), artifacts)


def test_small_files_that_somebody_changed_are_kept_by_the_next_prepare(artifacts: Artifacts, text: Path) -> None:
    prepare(small_config(text), artifacts)
    changed = [
        artifacts.tokenizer / "tokenizer.json",
        artifacts.tokenizer / "tokenizer_config.json",
        artifacts.rejected,
    ]
    for file in changed:
        file.write_text("mine")
    text.write_text(SENTENCES + "Another line.\n")
    heard = Heard()
    prepare(small_config(text), artifacts, heard)
    assert [file.with_name(f"{file.name}.old").read_text() for file in changed] == ["mine"] * 3
    assert len([told for told in heard.warnings if "wasn't as ptk wrote it" in told]) == 3
    text.write_text(SENTENCES)
    prepare(small_config(text), artifacts)
    assert not list(artifacts.root.rglob("*.old.old"))
