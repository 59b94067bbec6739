"""Mutates small valid files, and opens each as a command would: there is a result, or an error for users.

``python -m tests.faults.fuzz --examples 2000`` takes so many mutations of each kind of file; names choose kinds.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import functools
import gzip
import io
import json
import lzma
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pretrain_cli.errors import PtkError
from pretrain_cli.quiet import quiet_environment, quiet_libraries
from tests.support.tables import table

LONGEST_S = 60
"""An example that takes longer hangs: undisturbed, each takes less than 50 ms."""
MOST_MEMORY = 6 << 30
"""Bytes of address space: a file of 100 kB has no reason to take more."""
TOKENS = (
    *(b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"{", b"}", b"[" * 2000, b'"', b"\\"),
    *(
        b"null",
        b"-1",
        b"0",
        b"1e999",
        b"99999999999999999999",
        b"NaN",
        b"true",
        b"[]",
        b"{}",
        b'""',
        b'"\\ud800"',
        b"\n",
    ),
    *(
        b",",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"PK\x03\x04",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]>",
        b"&a;",
        b"../../x",
        b"<",
        b">",
    ),
)
"""What formats trip over."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the file.
        content: a small valid one.
        open: reads it.
    """

    name: str
    content: bytes
    open: Callable[[Path], object]


class Mutated(bytes):
    """Bytes that a report doesn't show: `main` keeps them in a file."""

    def __repr__(self) -> str:
        return f"<{len(self):,} bytes>"


@st.composite
def mutations(draw: st.DrawFn, content: bytes) -> Mutated:
    """``content`` after one to four changes; in a zip archive or a gzip stream, also of what is packed in it."""
    if content.startswith(b"PK") and draw(st.booleans()):
        return Mutated(_repacked(draw, content))
    if content.startswith(b"\x1f\x8b") and draw(st.booleans()):
        return Mutated(gzip.compress(_changed(draw, gzip.decompress(content)), mtime=0))
    return Mutated(_changed(draw, content))


def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(result) - 1)))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(("flip", "put", "insert", "delete", "double", "cut", "number")))
        if kind == "flip" and result:
            result[at] ^= 1 << draw(st.integers(0, 7))
        elif kind in ("put", "insert"):
            token = draw(st.sampled_from(TOKENS))
            result[at : at + (len(token) if kind == "put" else 0)] = token
        elif kind == "delete":
            del result[at : at + length]
        elif kind == "double":
            result[at:at] = result[at : at + length] * draw(st.integers(1, 50))
        elif kind == "cut":
            del result[at:]
        elif kind == "number":
            value = draw(st.sampled_from((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)))
            size = draw(st.sampled_from((4, 8)))
            result[at : at + size] = struct.pack("<Q", value)[:size]
    return bytes(result)


def _repacked(draw: st.DrawFn, content: bytes) -> bytes:
    packed = zipfile.ZipFile(io.BytesIO(content))
    chosen = draw(st.sampled_from(packed.namelist()))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in packed.namelist():
            inside = packed.read(name)
            archive.writestr(name, _changed(draw, inside) if name == chosen else inside)
    return sink.getvalue()


def read_records(path: Path) -> None:
    """All records of an input file."""
    from pretrain_cli.data.reading.input_files import Span
    from pretrain_cli.data.reading.inputs import find_files
    from pretrain_cli.data.reading.read import read
    from pretrain_cli.data.reading.settings import ReadSettings

    for file in find_files([str(path)]):
        for _ in read(Span(file), ReadSettings(max_record_bytes=1 << 20)):
            pass


def read_config_file(path: Path) -> None:
    """A config."""
    from pretrain_cli.config.load import load_config

    load_config(file=path)


def read_tokenizer_folder(path: Path) -> None:
    """A tokenizer, and how it encodes."""
    from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer

    (path.parent / "tokenizer_config.json").write_text('{"bos_token": "<|bos|>"}')
    read_tokenizer(path.parent)
    open_tokenizer(path).encode("Call me Ishmael. Café 日本語 🐋\0")


def read_tokenizer_config(path: Path) -> None:
    """A tokenizer's settings, beside a whole tokenizer."""
    from pretrain_cli.tokenizer.load import read_tokenizer

    (path.parent / "tokenizer.json").write_bytes(_tokenizer())
    read_tokenizer(path.parent)


def read_weights_file(path: Path) -> None:
    """Weights, beside a config."""
    from pretrain_cli.model.files import count_weights, read_weights

    (path.parent / "config.json").write_text("{}")
    count_weights(path.parent)
    read_weights([path])


def read_gguf(path: Path) -> None:
    """A model for llama.cpp."""
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.model.gguf_reading import convert_gguf

    convert_gguf(path, Artifacts(path.parent / "artifacts"))


def read_records_of(path: Path) -> None:
    """The records of an artifact folder: one of them is damaged."""
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.evaluation_report import read_report
    from pretrain_cli.exporting.owned import check_all_ours
    from pretrain_cli.manifest import read_manifest
    from pretrain_cli.run_record import read_run_config, read_run_record
    from pretrain_cli.runs.summary import list_runs, show_run
    from pretrain_cli.training.keeping.checkpoints import fault
    from pretrain_cli.training.keeping.resume import read_config
    from pretrain_cli.training.keeping.state import load_state

    artifacts = Artifacts(path.parent / "artifacts")
    run = artifacts.run("a")
    checkpoint = run.checkpoint(1)
    places = {
        "manifest.json": artifacts.manifest,
        "run.json": run.record,
        "metrics.jsonl": run.metrics,
        "report.json": run.evaluation / "report.json",
        "config.toml": run.config,
        "checkpoint.json": checkpoint / "manifest.json",
        "ptk.json": checkpoint / "ptk.json",
        "export.json": path.parent / "export" / ".ptk-export.json",
    }
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    run.record.write_text('{"status": "finished"}')
    places[path.name].write_bytes(path.read_bytes())
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_manifest(artifacts),
        lambda: read_run_record(run),
        lambda: read_run_config(run),
        lambda: read_config(run),
        lambda: read_report(run.evaluation),
        lambda: fault(checkpoint),
        lambda: load_state(checkpoint),
        lambda: check_all_ours(path.parent / "export"),
        lambda: show_run(artifacts, "a"),
    )
    for reader in readers:
        with contextlib.suppress(PtkError):
            reader()
    list_runs(artifacts)  # of a damaged run too: the others are still listed


@functools.cache
def _tokenizer() -> bytes:
    from tests.support.tiny import make_tokenizer

    with tempfile.TemporaryDirectory() as name:
        make_tokenizer(Path(name), 300)
        return (Path(name) / "tokenizer.json").read_bytes()


def kinds() -> list[Kind]:
    """A small valid file of each kind."""
    texts = ["The first document.", 'The second, "quoted"\nand on two lines.', "Die dritte: äöü 数据"]
    lines = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)).encode()
    plain = "\n".join(texts * 20).encode()
    page = (
        b"<html><head><title>x</title></head><body><article><p>"
        + b"A paragraph of text. " * 20
        + b"</p></article></html>"
    )
    made = {
        "a.txt": plain,
        "a.jsonl": lines,
        "a.json": json.dumps([{"text": text} for text in texts]).encode(),
        "a.csv": b'id,text\n1,"one ""quoted"""\n2,"two\nlines"\n',
        "a.tsv": b"id\ttext\n1\tone\n2\ttwo\n",
        "a.parquet": table("parquet", texts),
        "a.arrow": table("arrow", texts),
        "a.html": page,
        "a.pdf": _pdf(),
        "a.docx": _docx(),
        "a.epub": _epub(),
        "b.txt.gz": gzip.compress(plain, mtime=0),
        "b.jsonl.gz": gzip.compress(lines, mtime=0),
        "b.jsonl.bz2": bz2.compress(lines),
        "b.jsonl.xz": lzma.compress(lines),
        "b.jsonl.zst": zstandard.compress(lines),
    }
    found = [Kind(name, content, read_records) for name, content in made.items()]
    from pretrain_cli.config.load import to_toml
    from pretrain_cli.config.model import Config

    found += [
        Kind("ptk.toml", to_toml(Config()).encode(), read_config_file),
        Kind("tokenizer.json", _tokenizer(), read_tokenizer_folder),
        Kind(
            "tokenizer_config.json",
            b'{"bos_token": {"content": "<|bos|>"}, "model_max_length": 512}',
            read_tokenizer_config,
        ),
        Kind("model.safetensors", _weights(), read_weights_file),
        Kind("a.gguf", _gguf(), read_gguf),
    ]
    return [*found, *(Kind(name, content, read_records_of) for name, content in _records().items())]


def _pdf() -> bytes:
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    page = writer.add_blank_page(300, 300)
    content = DecodedStreamObject()
    content.set_data(b"BT /F1 12 Tf 20 200 Td (A page of text.) Tj ET")
    font = DictionaryObject(
        {NameObject(key): NameObject(value) for key, value in (("/Type", "/Font"), ("/Subtype", "/Type1"))}
    )
    page[NameObject("/Contents")] = writer._add_object(content)
    page[NameObject("/Resources")] = DictionaryObject(
        {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
    )
    sink = io.BytesIO()
    writer.write(sink)
    return sink.getvalue()


def _docx() -> bytes:
    import docx

    document, sink = docx.Document(), io.BytesIO()
    document.add_paragraph("Before the table.")
    document.add_table(1, 2).cell(0, 0).text = "left"
    document.save(sink)
    return sink.getvalue()


def _epub() -> bytes:
    from ebooklib import epub

    book = epub.EpubBook()
    book.set_title("A book")
    chapter = epub.EpubHtml(title="One", file_name="1.xhtml")
    chapter.content = "<html><body><p>The text of chapter 1.</p></body></html>"
    book.add_item(chapter)
    book.add_item(epub.EpubNcx())
    book.spine = [chapter]
    with tempfile.TemporaryDirectory() as name:
        epub.write_epub(f"{name}/a.epub", book)
        return (Path(name) / "a.epub").read_bytes()


def _weights() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a": torch.arange(6.0), "b": torch.ones(2, 3)})


def _gguf() -> bytes:
    from pretrain_cli.model.gguf_writing import write_gguf
    from tests.support.tiny import make_model

    with tempfile.TemporaryDirectory() as name:
        folder = make_model(Path(name) / "model", num_hidden_layers=1)
        write_gguf(folder, Path(name) / "a.gguf", "f16")
        return (Path(name) / "a.gguf").read_bytes()


def _records() -> dict[str, bytes]:
    from tests.support.runs import prepare_text

    with tempfile.TemporaryDirectory() as name:
        manifest = prepare_text(Path(name), "Call me Ishmael. Some years ago.\n\n" * 40).manifest.read_bytes()
    entry = {"size": 3, "hash": "0" * 32}
    from pretrain_cli.config.load import to_toml
    from pretrain_cli.config.model import Config

    made: dict[str, object] = {
        "run.json": {"run": "a", "status": "finished", "steps": 3, "wandb": {"url": "x"}, "resumes": [{"at": "now"}]},
        "metrics.jsonl": {"step": 1, "loss": 2.5, "validation_loss": 2.0, "elapsed_s": 1.0},
        "report.json": {"models": [{"name": "a", "texts": [{"name": "validation", "bits_per_byte": 1.5}]}]},
        "checkpoint.json": {"step": 1, "files": {"ptk.json": [2, "0"]}},
        "ptk.json": {"step": 1, "tokens": 5, "recent_losses": [1.0], "settings": {"rows": 3}},
        "export.json": {"version": 1, "files": {"a.gguf": entry}, "replaced": {}},
    }
    found = {name: json.dumps(value).encode() for name, value in made.items()}
    return {**found, "manifest.json": manifest, "config.toml": to_toml(Config()).encode()}


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(kind: Kind, content: bytes) -> None:
    """Open a file of ``kind`` with ``content``; anything but a result or a `PtkError` gets out."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / kind.name
        path.write_bytes(content)
        with limited(LONGEST_S), contextlib.suppress(PtkError):
            kind.open(path)


def fuzz(kind: Kind, examples: int, number: int | None = None, kept: Path | None = None) -> None:
    """Check so many mutations of a kind.

    Args:
        kind: of file.
        examples: mutations.
        number: the seed; None: the same mutations each time.
        kept: where the last file that failed is left.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=number is None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
        report_multiple_bugs=False,
    )
    @given(mutations(kind.content))
    def run(content: bytes) -> None:
        try:
            check(kind, content)
        except BaseException as error:  # a panic of a Rust library is no Exception
            if kept is not None:
                kept.write_bytes(content)
            raise AssertionError(f"{type(error).__name__}: {str(error)[:300]}") from error

    check(kind, kind.content)
    (seed(number)(run) if number is not None else run)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="kinds of files, such as a.pdf; all where none is named")
    parser.add_argument("--examples", type=int, default=1000, help="mutations of each kind")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the mutations")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for files that fail")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))
    quiet_environment()
    quiet_libraries()
    print(f"seed {options.seed}")
    failed = 0
    for kind in kinds():
        if options.names and kind.name not in options.names:
            continue
        began, kept = time.monotonic(), options.keep / f"fault-{kind.name}"
        print(f"{kind.name}: ", end="", flush=True)
        try:
            fuzz(kind, options.examples, options.seed, kept)
            print(f"{options.examples:,} mutations held, {time.monotonic() - began:.0f} s", flush=True)
        except AssertionError as error:
            failed += 1
            cause = error.__cause__ or error
            print(f"FAULT ({kept}): {error}", *traceback.format_tb(cause.__traceback__)[-5:], sep="\n", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
