"""A folder as people have them: more than twenty formats, hidden folders, links, lock files, what isn't text."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

from tests.support.tables import table

READ = {
    *(
        "a.txt",
        "b.md",
        "c.rst",
        "d.text",
        "e.markdown",
        "f.jsonl",
        "g.ndjson",
        "h.jsonlines",
        "i.json",
        "j.csv",
        "k.tsv",
    ),
    *("l.parquet", "m.arrow", "n.txt.gz", "o.jsonl.gz", "p.html", "q.htm", "r.tar", "s.tgz", "t.zip", "u.docx"),
    *("UPPER.TXT", "sub/deep/v.txt", "linked/x.txt"),
}
OTHER = {"w.log", "x.tex", "y.py", "README", "z.xlsx", "photo.png", "letter.doc", "song.mp3", "data.db"}
HIDDEN = {".git/config", ".git/objects/aa", ".venv/lib/old.txt", ".ipynb_checkpoints/old.txt", "sub/.hidden/old.txt"}
PROGRAM = {"__pycache__/a.pyc", "node_modules/x/readme.md", "env/lib/old.txt", "env/pyvenv.cfg"}
WITHOUT_TEXT = {"empty.txt", "scan.html", "broken.docx", "binary.txt"}


def text(name: str) -> str:
    return f"This is the text of {name}, which is not like that of any other file in this folder.\n" * 3


def docx(content: str) -> bytes:
    import docx as library

    document, sink = library.Document(), io.BytesIO()
    document.add_paragraph(content)
    document.save(sink)
    return sink.getvalue()


def tar(mode: str, *names: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:
        for name in names:
            member, content = tarfile.TarInfo(name), text(name).encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def write_mixed(folder: Path) -> Path:
    """The folder; what a link leads to is beside it."""
    lines = "".join(json.dumps({"text": text(f"lines {number}")}) + "\n" for number in range(3))
    row = text("row").strip().replace("\n", " ")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/zip.txt", text("zip"))
        archive.writestr("in/photo.png", b"\x89PNG")
    made: dict[str, bytes] = {name: text(name).encode() for name in READ | HIDDEN | PROGRAM | OTHER}
    made |= {
        "f.jsonl": lines.encode(),
        "g.ndjson": lines.replace("lines", "more").encode(),
        "h.jsonlines": lines.replace("lines", "most").encode(),
        "i.json": json.dumps({"version": "1", "data": [{"text": text("json")}]}).encode(),
        "j.csv": f'id;text\n1;"{row} of csv"\n'.encode(),
        "k.tsv": f"id\ttext\n1\t{row} of tsv\n".encode(),
        "l.parquet": table("parquet", [text("parquet")]),
        "m.arrow": table("arrow", [text("arrow")]),
        "n.txt.gz": gzip.compress(text("n").encode()),
        "o.jsonl.gz": gzip.compress(lines.replace("lines", "packed").encode()),
        "p.html": f"<html><body><article><p>{text('html')}</p></article></body></html>".encode(),
        "q.htm": f"<html><body><article><p>{text('htm')}</p></article></body></html>".encode(),
        "r.tar": tar("w", "in/tar.txt", "in/tar.md"),
        "s.tgz": tar("w:gz", "in/tgz.txt"),
        "t.zip": packed.getvalue(),
        "u.docx": docx(text("docx")),
        "~$u.docx": b"locked",
        ".DS_Store": b"\0\0",
        "empty.txt": b"",
        "scan.html": b"<html><body></body></html>",
        "broken.docx": b"PK\x03\x04 not a zip",
        "binary.txt": bytes(range(256)) * 9,
        "photo.png": b"\x89PNG",
    }
    for name, content in made.items():
        path = folder.parent / "elsewhere" / "x.txt" if name == "linked/x.txt" else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "same.txt").symlink_to(folder / "a.txt")
    (folder / "lost.txt").symlink_to(folder / "nothing.txt")
    os.mkfifo(folder / "pipe.txt")
    return folder
