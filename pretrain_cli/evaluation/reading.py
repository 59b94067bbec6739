"""Reads documents to score: the held-out rows, the general text of the package, and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from pretrain_cli.addresses import redact_address
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.documents import (
    HARMLESS_REASONS,
    DocumentBatch,
    Record,
    Rejected,
    bad_record,
    texts_of,
)
from pretrain_cli.data.reading.input_files import InputFile, Span
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError
from pretrain_cli.evaluation.text_documents import TextDocument
from pretrain_cli.manifest import Manifest, check_still


def read_general() -> Iterator[TextDocument]:
    """The documents of the general English text in the package: novels, satire, technical and informal prose."""
    lines = resources.files("pretrain_cli.texts").joinpath("general.jsonl").read_text(encoding="utf-8")
    for record in map(json.loads, lines.split("\n")[:-1]):
        yield TextDocument.whole(record["from"], record["text"], record["source"])


def read_validation(artifacts: Artifacts, manifest: Manifest) -> Iterator[TextDocument]:
    """The held-out documents as text: what the stored ids say, without the BOS and EOS around them.

    Raises:
        DataError: a prepare has replaced the rows that ``manifest`` describes.
    """
    from tokenizers import Tokenizer

    from pretrain_cli.data.rows.unpacking import iterate_documents
    from pretrain_cli.tokenizer.load import read_tokenizer

    info = read_tokenizer(artifacts.tokenizer)
    tokenizer = Tokenizer.from_file(str(info.file))
    source_names = list(manifest.sources)
    files = manifest.held_out.documents if manifest.held_out is not None else {}
    for number, stored in enumerate(iterate_documents(artifacts.validation_rows)):
        if number == 0:  # the rows are open now
            check_still(artifacts, manifest)
        ids = stored.ids.tolist()
        if ids and ids[0] == info.bos_id:
            ids = ids[1:]
        if ids and ids[-1] == info.eos_id:
            ids = ids[:-1]
        text = tokenizer.decode(ids, skip_special_tokens=False)
        if text:
            source = source_names[stored.source] if 0 <= stored.source < len(source_names) else ""
            file = files.get(str(stored.index))
            yield TextDocument.whole(f"{f'{file}, ' if file else ''}document {stored.index}", text, source)


def read_files(
    files: Sequence[InputFile], data: DataConfig, lost: list[str] | None = None, doubts: list[str] | None = None
) -> Iterator[TextDocument]:
    """The documents of files in every format that `ptk prepare` reads; a plain text comes part by part.

    Args:
        files: to read.
        data: how they are read.
        lost: is told what ``data.on_error`` = "skip" leaves out, a sentence for each file or record.
        doubts: is told what may be wrong in how a file is read, in sentences.

    Raises:
        DataError: a file that can't be read, or a record without text, unless ``data.on_error`` is "skip".
    """
    lost = [] if lost is None else lost
    for file in files:
        settings = ReadSettings.of(data)
        try:
            yield from _read_file(file, data, settings, lost)
        except DataError as error:
            _leave_out(error, data, lost)
        if doubts is not None:
            doubts += settings.doubts


def _read_file(file: InputFile, data: DataConfig, settings: ReadSettings, lost: list[str]) -> Iterator[TextDocument]:
    records = read(Span(file), settings)
    number = 0
    for record in records:
        if isinstance(record, Rejected):
            if record.reason not in {*HARMLESS_REASONS, "no_text_found"}:
                _leave_out(bad_record(record), data, lost)
            continue
        if isinstance(record, DocumentBatch) or record.final:
            for text in texts_of(record):
                number += 1
                yield TextDocument.whole(f"{Path(redact_address(file.path)).name} {number}", text)
            continue
        number += 1
        parts = _rest(record.text, records, data, lost)
        document = TextDocument(f"{Path(redact_address(file.path)).name} {number}", parts)
        yield document
        document.read_to_end()


def _rest(first: str, records: Iterator[Record], data: DataConfig, lost: list[str]) -> Iterator[str]:
    """The parts of a long document: its first, and the records up to its final one, or to where it is damaged."""
    yield first
    try:
        for record in records:
            if isinstance(record, Rejected):  # it breaks off, within an archive that goes on
                _leave_out(bad_record(record), data, lost)
                return
            assert not isinstance(record, DocumentBatch)
            yield record.text
            if record.final:
                return
    except DataError as error:
        _leave_out(error, data, lost)


def _leave_out(error: DataError, data: DataConfig, lost: list[str]) -> None:
    if data.on_error != "skip":  # a figure is of all the text that it names, unless asked
        raise error
    lost.append(error.message)
