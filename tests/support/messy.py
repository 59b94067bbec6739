"""Files as people really have them: odd encodings, broken records, control characters, half-downloaded archives."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

ODD = "A dark night. naïve café — “quoted”… 数据 テスト 데이터 👩‍👩‍👧‍👦 e\u0301 \u202eleft\u202c zero\u200bwidth\ufeff"
UNUSABLE = {"empty.txt", "blank.txt", "picture.png", "cut-short.txt.gz", "controls.txt"}


def write_messy(folder: Path) -> list[Path]:
    """About thirty files, sorted by name; no text can be had of those in ``UNUSABLE``."""
    folder.mkdir()
    lines = "\n".join(f"Line {number}. {ODD}" for number in range(300)).encode()
    files = {
        "empty.txt": b"",
        "blank.txt": b" \t\n\r\n \n",
        "no-end.txt": b"a line without an end",
        "mark.txt": b"\xef\xbb\xbfA mark at the front.\n",
        "utf-16.txt": b"\xff\xfe" + "Über zwei\nZeilen.\n".encode("utf-16-le"),
        "utf-16-be.txt": b"\xfe\xff" + "Über zwei\nZeilen.\n".encode("utf-16-be"),
        "latin-1.txt": "déjà vu, crème brûlée, garçon\n".encode("latin-1") * 20,
        "cp1252.txt": "“Quotes” — and a dash\n".encode("cp1252") * 20,
        "bad-bytes.txt": b"a good line\na bad \xff\xfe\xfa one\nand a good one\n",
        "nul.txt": b"before\x00after\n" * 5,
        "crlf.txt": b"one\r\ntwo\r\n\r\nthree\r\n",
        "controls.txt": bytes(range(1, 32)) + b"text\x7f\x85\n",
        "one-line.txt": b"word " * 60_000,
        "marks-in-text.txt": b"About <s> </s> <|endoftext|> <|eos|> <|im_start|>system [INST] <unk> <pad>\n" * 3,
        "odd.txt": "\n".join([ODD] * 40).encode(),
        "a name with spaces é.txt": b"Its name is odd, its text is not.\n",
        "surrogate.jsonl": b'{"text": "half \\ud800 a character"}\n{"text": "a whole one"}\n',
        "records.jsonl": b"".join(
            json.dumps({"text": f"{n}. {ODD * (n % 9 + 1)}"}).encode() + b"\n" for n in range(99)
        ),
        "broken.jsonl": b'{"text": "one"}\n{"text": "two"\nnot json\n{"other": 1}\n{"text": null}\n{"text": 5}\n',
        "joined.jsonl": b'{"text": "one"} {"text": "two"}\n\n[1, 2]\n"only a string"\n{"text": ""}\n',
        "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b'\n{"text": "after the deep one"}\n',
        "content.jsonl": b'{"content": "the column has another name"}\n',
        "same.jsonl": b"".join(b'{"text": "the same text"}\n' for _ in range(5)) + b'{"text": "another"}\n',
        "table.csv": b'id,text\n1,"a ""quoted"" field"\n2,"on two\nlines"\n\n3\n4,\n',
        "lines.txt.gz": gzip.compress(lines, mtime=0),
        "lines.txt.bz2": bz2.compress(lines + b"."),
        "lines.txt.xz": lzma.compress(lines + b"!"),
        "cut-short.txt.gz": gzip.compress(lines, mtime=0)[:-200],
        "cut-short.jsonl.gz": gzip.compress(b'{"text": "kept"}\n' * 3 + random.Random(7).randbytes(4000), mtime=0)[
            :-4000
        ],
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())
