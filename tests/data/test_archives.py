"""Archives are read file by file, without a byte on the disk, or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pretrain_cli.data.reading import archives, input_files
from pretrain_cli.errors import DataError
from tests.support.mixed import tar, text
from tests.support.preparing import Preparing, check_ledger, texts
from tests.support.reading import read_path

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda raw: raw,
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tbz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
    "tzst": zstandard.compress,
}


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def tarred(ending: str, files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return PACKERS[ending](sink.getvalue())


@pytest.mark.parametrize("ending", PACKERS)
def test_a_tar_archive_gives_the_text_of_its_files(tmp_path: Path, ending: str) -> None:
    raw = tar("w", "a/one.txt", "../../two.md", "/three.txt", "a/photo.png", ".git/four.txt")
    (tmp_path / f"a.{ending}").write_bytes(PACKERS[ending](raw))
    found = read_path(tmp_path / f"a.{ending}")
    assert found.texts == [text(name) for name in ("a/one.txt", "../../two.md", "/three.txt")]
    assert found.settings.notes == [f"{tmp_path}/a.{ending}: 3 files in it read; left out: png 1, hidden 1."]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{ending}"]


def test_a_zip_archive_gives_every_format(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"story": text(f"line {number}")}) + "\n" for number in range(3)).encode()
    files = {
        "a.txt": text("a").encode(),
        "b.jsonl": lines,
        "c.jsonl.gz": gzip.compress(lines.replace(b"line", b"row")),
        "d.csv": b"id;text\n1;a text of a table\n",
        "e.json": json.dumps([{"text": text("e")}]).encode(),
        "f.zip": zipped({"g.txt": b"inside"}),
        "__MACOSX/a.txt": b"not this",
    }
    (tmp_path / "a.zip").write_bytes(zipped(files))
    found = read_path(tmp_path / "a.zip")
    assert len(found.texts) == 9 and set(found.columns) == {"story", "text"}
    assert "left out: zip 1, hidden 1" in found.settings.notes[-1]


PAGES = [f"A page of {number}, with enough words to be told apart from others." for number in range(12)]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("cleaned", [False, True])
def test_a_bad_file_in_an_archive_costs_itself_only(
    tmp_path: Path, ending: str, cleaned: bool, preparing: Preparing
) -> None:
    files = {f"{number:02}.txt": page.encode() for number, page in enumerate(PAGES)}
    late = (PAGES[0].encode() * 12_000)[:700_000] + b"\xff\xfe\xff" * 9  # breaks off in its second block
    bad = {"03a.docx": b"PK\x03\x04 no", "04a.txt": late, "05a.jsonl": b'{"n": 1}\n' * 9}
    members = dict(sorted((files | bad).items()))
    (tmp_path / f"a.{ending}").write_bytes(zipped(members) if ending == "zip" else tarred(ending, members))
    settings = {"cleaning": ["nfc"]} if cleaned else {}
    with pytest.raises(DataError, match="3 of 15 documents can't be used") as caught:
        preparing(tmp_path / f"a.{ending}", **settings)
    assert "03a.docx" in caught.value.message
    result, artifacts = preparing(tmp_path / f"a.{ending}", on_error="skip", **settings)
    assert sorted(texts(artifacts)) == sorted(PAGES)
    check_ledger(artifacts)
    lines = map(json.loads, (artifacts.data / "rejected.jsonl").read_text().splitlines())
    assert [(Path(line["path"]).name, line["reason"]) for line in lines] == [
        (name, "unreadable_member") for name in bad
    ]
    assert any("3 of 15 documents can't be used and are left out" in warning for warning in result.warnings)


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_of_a_data_set_in_an_archive_only_the_train_split_is_read(tmp_path: Path, ending: str) -> None:
    line = '{{"text": "{} of a split."}}\n'.format
    members = {
        "set/README.md": b"---\nlicense: mit\n---\nA card.",
        "set/data/test.jsonl": line("The test").encode(),
        "set/data/train.jsonl": line("The text").encode(),
    }
    (tmp_path / f"a.{ending}").write_bytes(zipped(members) if ending == "zip" else tarred(ending, members))
    found = read_path(tmp_path / f"a.{ending}")
    assert found.texts == ["The text of a split."]
    assert "left out: dataset card 1, test split 1" in found.settings.notes[-1]
    lonely = {name: content for name, content in members.items() if "train" not in name}
    (tmp_path / f"b.{ending}").write_bytes(zipped(lonely) if ending == "zip" else tarred(ending, lonely))
    assert "The test of a split." in read_path(tmp_path / f"b.{ending}").texts


def test_links_and_devices_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("link.txt", tarfile.SYMTYPE),
            ("hard.txt", tarfile.LNKTYPE),
            ("pipe.txt", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    found = read_path(tmp_path / "a.tar")
    assert not found.texts and "links and devices 3" in found.settings.notes[0]


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.setattr(input_files, "LEAST_BOMB_BYTES", 1 << 20)
    content = bytes(b" " * (8 << 20))
    packed = zipped({"a.txt": content})
    if ending != "zip":
        sink, member = io.BytesIO(), tarfile.TarInfo("a.txt")
        member.size = len(content)
        with tarfile.open(fileobj=sink, mode="w:gz") as archive:
            archive.addfile(member, io.BytesIO(content))
        packed = sink.getvalue()
    (tmp_path / f"a.{ending}").write_bytes(packed)
    with pytest.raises(DataError, match="may be a bomb"):
        read_path(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_compressed_text_that_holds_far_more_than_text_packs_to_is_refused_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack
) -> None:
    monkeypatch.setattr(input_files, "LEAST_BOMB_BYTES", 1 << 20)
    ending = {"gzip": "gz", "bz2": "bz2", "lzma": "xz", "zstandard": "zst"}[pack.__module__]
    (tmp_path / f"a.txt.{ending}").write_bytes(pack(b"A line.\n" * (1 << 20)))
    with pytest.raises(DataError, match="may be a bomb"):
        read_path(tmp_path / f"a.txt.{ending}")
    (tmp_path / f"a.txt.{ending}").write_bytes(pack(b"A line.\n" * (1 << 16)))
    assert len("".join(read_path(tmp_path / f"a.txt.{ending}").texts)) >= (1 << 19) - 1


def test_damaged_and_encrypted_archives_are_refused(tmp_path: Path) -> None:
    whole = zipped({"a.txt": text("a").encode() * 99}, zipfile.ZIP_STORED)
    damaged = {
        "a.zip": whole[:200],
        "b.tar": tar("w", "a.txt")[:600],
        "c.tgz": tar("w:gz", "a.txt")[:100],
        "d.tar": b"no archive at all, but a text" * 40,
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="can't be read") as caught:
            read_path(tmp_path / name)
        assert "--on-error skip" in caught.value.hint, name
    flags = whole.index(b"PK\x01\x02") + 8
    (tmp_path / "f.zip").write_bytes(whole[:flags] + b"\x01" + whole[flags + 1 :])
    with pytest.raises(DataError, match="is encrypted"):
        read_path(tmp_path / "f.zip")


def header(name: str, kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_takes_no_more_memory_than_headers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr(archives, "MOST_HEADER_BYTES", 1 << 18)
    long = header("long", kind, 1 << 20) + bytes(1 << 20)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar("w", "one.txt")[:1024] + long + tar("w", "two.txt")))
    with pytest.raises(DataError, match="a header in it takes over 262 kB"):
        read_path(tmp_path / "a.tar.gz")


def test_headers_of_headers_are_refused(tmp_path: Path) -> None:
    link = header("x", tarfile.XHDTYPE, 12) + b"12 a=bcdefg\n".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(link * 2000 + tar("w", "one.txt"))
    with pytest.raises(DataError, match="belong to each other"):
        read_path(tmp_path / "a.tar")


def test_many_files_and_folders_in_a_tar_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_HEADER_BYTES", 1 << 18)
    raw = header("d", tarfile.DIRTYPE, 0) * 2000 + tar("w", "one.txt")
    (tmp_path / "a.tar").write_bytes(raw)
    assert read_path(tmp_path / "a.tar").texts == [text("one.txt")]


def test_a_zip_that_is_compressed_again_is_read_in_memory_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip.gz").write_bytes(gzip.compress(zipped({"one.txt": b"Call me Ishmael.\n"})))
    assert read_path(tmp_path / "a.zip.gz").texts == ["Call me Ishmael.\n"]
    monkeypatch.setattr(archives, "MOST_ZIP_BYTES", 100)
    with pytest.raises(DataError, match="can't be read from the middle"):
        read_path(tmp_path / "a.zip.gz")
