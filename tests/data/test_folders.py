"""Every file of a folder is accounted for: read, or left out with a reason."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pretrain_cli.data.reading.folders import REASONS, Account
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import read_manifest
from tests.support.mixed import HIDDEN, OTHER, PROGRAM, READ, text, write_mixed
from tests.support.preparing import Preparing
from tests.support.tables import table


def names(folder: Path, account: Account | None = None, paths: Sequence[str] = ()) -> set[str]:
    found = find_files([str(folder), *paths], account=account)
    return {str(Path(file.path).relative_to(folder)) for file in found}


def write(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text(name))
    return folder


def by_reason(account: Account) -> dict[str, int]:
    found: dict[str, int] = {}
    for (reason, _), group in account.skipped.items():
        found[reason] = found.get(reason, 0) + group.files
    return found


def test_the_account_of_twenty_formats_is_what_the_file_system_lists(tmp_path: Path, preparing: Preparing) -> None:
    pytest.importorskip("docx")
    pytest.importorskip("trafilatura")
    folder = write_mixed(tmp_path / "mixed")
    result, artifacts = preparing(folder, on_error="skip", validation_fraction=0)
    account = read_manifest(artifacts).input_files
    assert account is not None and account == result.input_files
    listed = sum(len(files) for _, _, files in os.walk(folder)) + 1  # and what is behind the link
    assert account.files == listed == account.read_files + account.skipped_files
    assert account.read_files == len(READ) and len(account.read) >= 20 - len({"n.txt.gz", "o.jsonl.gz", "UPPER.TXT"})
    reasons = {reason: sum(kinds.values()) for reason, kinds in account.by_reason().items()}
    assert reasons == {
        "unknown_ending": len(OTHER),
        "hidden_folder": len(HIDDEN),
        "program_folder": len(PROGRAM),
        "hidden_file": 1,
        "lock_file": 1,
        "special_file": 1,
        "broken_link": 1,
        "linked_twice": 1,
        "empty": 1,
        "no_text_found": 1,
        "unreadable_file": 2,
    }
    assert account.by_reason()["hidden_folder"] == {".git": 2, ".venv": 1, ".ipynb_checkpoints": 1, ".hidden": 1}
    assert set(map(os.path.basename, account.linked_folders)) == {"again", "loop"}
    assert set(reasons) <= set(REASONS)
    told = json.loads(artifacts.manifest.read_text())["input_files"]
    assert sum(group["files"] for group in (*told["read"].values(), *told["skipped"])) == told["files"]
    assert any("broken.docx" in warning for warning in result.warnings)
    (folder / "new.log").write_text("came later")
    again, _ = preparing(folder, on_error="skip", validation_fraction=0)
    assert again.reused and again.input_files.files == listed + 1
    assert again.input_files.read == account.read


def test_the_list_of_kinds_stays_short_however_many_there_are(tmp_path: Path, preparing: Preparing) -> None:
    write(tmp_path / "a", "a.txt", *(f"file.kind{number}" for number in range(400)))
    result, _artifacts = preparing(tmp_path / "a", validation_fraction=0)
    account = result.input_files
    assert account.files == 401 and account.skipped_files == 400 and len(account.skipped) <= 60
    assert all(len(group.examples) <= 3 for group in account.skipped)


def test_a_file_that_is_named_is_read_whatever_its_ending(tmp_path: Path) -> None:
    write(tmp_path / "a", "a.txt", "b.log", "c.tex")
    account = Account()
    assert names(tmp_path / "a", account, [str(tmp_path / "a" / "b.log")]) == {"a.txt", "b.log"}
    assert by_reason(account) == {"unknown_ending": 1}


SPLITS = {
    "hub": ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"),
    "plain": ("train.txt", "valid.txt", "test.txt"),
    "named": ("wiki.train.txt", "wiki.test.txt", "wiki.dev.txt"),
    "in the middle": ("wiki.train.en.txt", "wiki.test.en.txt", "wiki.dev.en.txt"),
    "underscored": ("book_train.csv", "book_test.csv"),
    "folders": ("train/a/1.txt", "train/b/2.txt", "test/a/1.txt", "validation/3.txt"),
    "compressed": ("x-train.jsonl.gz", "x-test.jsonl.gz", "x-val.jsonl.zst"),
    "two words": ("a_train.txt", "a_held_out.txt", "a_dev-test.txt", "a_holdout.txt", "a_devtest.txt"),
    "inside": ("en/train.jsonl", "en/eval.jsonl", "de/train.jsonl"),
}


@pytest.mark.parametrize("layout", SPLITS)
def test_of_a_data_set_with_splits_only_the_train_split_is_read(tmp_path: Path, layout: str) -> None:
    account = Account()
    found = names(write(tmp_path, *SPLITS[layout]), account)
    assert found == {name for name in SPLITS[layout] if "train" in name}
    assert set(by_reason(account)) <= {"test_split", "validation_split"}


@pytest.mark.parametrize(
    "files",
    [
        ("test.txt", "other.txt"),
        ("test_notes.md", "train-schedule.md"),
        ("test/a.txt", "b.txt"),
        ("latest.txt", "train.txt"),
    ],
)
def test_what_is_called_test_without_a_train_split_beside_it_is_read(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert names(write(tmp_path, *files)) == set(files)


@pytest.mark.parametrize("card", ["---\nlicense: mit\n---\n# A card", "# A card without metadata"])
def test_the_card_of_a_data_set_is_no_text_but_a_readme_among_texts_is(tmp_path: Path, card: str) -> None:
    write(tmp_path / "set", "data/train-0.jsonl", "notes.md")
    (tmp_path / "set" / "README.md").write_text(card)
    assert names(tmp_path / "set") == {"data/train-0.jsonl", "notes.md"}
    assert names(write(tmp_path / "docs", "README.md", "a.txt")) == {"README.md", "a.txt"}


def test_what_ptk_wrote_and_models_within_an_input_are_not_read(tmp_path: Path, preparing: Preparing) -> None:
    text = write(
        tmp_path, "notes/a.txt", "notes/b.txt", "model/config.json", "model/model.safetensors", "model/vocab.txt"
    )
    write(text, "x.egg-info/SOURCES.txt", "$RECYCLE.BIN/old.txt", "notes/config.json")
    for path in (text / "notes").glob("*.txt"):
        path.write_text(f"The text of {path.name} tells of the sea. " * 9)
    (text / "notes" / "config.json").write_text('{"text": "A file that is only called so."}')
    first, artifacts = preparing(text, validation_fraction=0)
    write(artifacts.runs / "run-001", "metrics.jsonl", "model/README.md")
    again, _ = preparing(text, validation_fraction=0)
    assert again.reused, "what a run wrote isn't text that came"
    assert again.input_files is not None and again.input_files.read_files == first.documents == 3
    skipped = again.input_files.by_reason()
    assert skipped["model_folder"] == {"model": 3} and sum(skipped["program_folder"].values()) == 2
    assert skipped["artifact_folder"] == {"artifacts": sum(len(names) for _, _, names in os.walk(artifacts.root))}
    preparing(text, into="other", validation_fraction=0)  # an earlier folder is told by what it holds
    assert preparing(text, into="other", validation_fraction=0)[0].documents == 3


def test_a_folder_of_save_to_disk_gives_its_rows(tmp_path: Path, preparing: Preparing) -> None:
    from datasets import Dataset, DatasetDict

    texts = [text(f"row {number}") for number in range(9)]
    rows = Dataset.from_dict({"id": list(range(9)), "text": texts})
    rows.save_to_disk(str(tmp_path / "one"))
    result, _ = preparing(tmp_path / "one", validation_fraction=0)
    assert result.documents == 9 and result.input_files.by_reason() == {"dataset_metadata": {"json": 2}}
    DatasetDict(train=rows, test=rows.select([0])).save_to_disk(str(tmp_path / "two"))
    result, _ = preparing(tmp_path / "two", into="two", validation_fraction=0)
    assert result.documents == 9 and result.input_files.by_reason()["test_split"] == {"arrow": 1}


def test_a_folder_that_may_not_be_listed_is_an_error_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.txt", "closed/b.txt")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed can't be read: Permission denied") as caught:
        names(tmp_path)
    assert "--on-error skip" in caught.value.hint
    account = Account()
    assert len(find_files([str(tmp_path)], account=account, strict=False)) == 1
    assert account.unreadable_folders == [str(tmp_path / "closed")]


def test_two_links_to_one_folder_outside_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "outside", "x.txt", "inner/y.txt")
    write(tmp_path / "in", "a.txt")
    (tmp_path / "in" / "first").symlink_to(tmp_path / "outside" / "inner")
    (tmp_path / "in" / "second").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    account = Account()
    assert names(tmp_path / "in", account) == {"a.txt", "first/y.txt", "second/x.txt"}
    assert len(account.linked_folders) == 2


def test_a_folder_without_text_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", ".git/c.txt")
    with pytest.raises(DataError, match=r"no text that can be read: .*2 with another ending \(png 2\)"):
        find_files([str(tmp_path)])


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_table_in_an_archive_is_read(tmp_path: Path, kind: str, preparing: Preparing) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"a.{kind}", table(kind, ["A first text.", "A second one."]))
    assert preparing(tmp_path / "a.zip", validation_fraction=0)[0].documents == 2


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="a system without /proc")
@pytest.mark.parametrize("target", ["/proc/kmsg", "/proc/self/environ"])
def test_a_link_to_a_file_of_the_system_is_not_read(tmp_path: Path, target: str) -> None:
    """As a stranger's folder may hold one: reading /proc/kmsg waits for ever."""
    (tmp_path / "a.txt").write_text("Call me Ishmael.")
    (tmp_path / "b.txt").symlink_to(target)
    account = Account()
    files = find_files([str(tmp_path)], 0, account)
    assert [Path(file.path).name for file in files] == ["a.txt"]


def test_links_that_lead_nowhere_in_a_folder_that_is_not_read_end_nothing(preparing: Preparing, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "node_modules").mkdir(parents=True)
    (folder / "a.txt").write_text("Some text. " * 50)
    (folder / "node_modules/itself").symlink_to(folder / "node_modules/itself")
    assert preparing(folder)[0].documents == 1
