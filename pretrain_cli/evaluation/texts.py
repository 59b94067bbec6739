"""Which texts are models scored on? Each is a stream of documents that can be read more than once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.reading.documents import Batch, Record, Rejected, place
from pretrain_cli.data.reading.files import STDIN, InputFile, Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.manifest import Manifest, check_still, read_manifest

VALIDATION, GENERAL = "validation", "general"
"""Names that `--on` knows without a file: the held-out rows, and the reference text in the package."""


@dataclass(frozen=True)
class Document:
    """One document; ``name`` says where it stands in its text.

    ``parts`` are its text in order, a long one's in several; they are read once, before the next document.
    """

    name: str
    parts: Iterator[str]
    source: str = ""

    @staticmethod
    def of(name: str, text: str, source: str = "") -> Document:
        """A document that is held whole."""
        return Document(name, iter((text,)), source)

    def opening(self, characters: int) -> tuple[str, int]:
        """(its first ``characters``, its length in characters); reads it to its end."""
        opening, length = "", 0
        for part in self.parts:
            opening += part[: max(0, characters - length)]
            length += len(part)
        return opening, length


@dataclass(frozen=True)
class Text:
    """A named text. ``read()`` starts a fresh pass over its documents; ``n_bytes`` is their UTF-8 size."""

    name: str
    read: Callable[[], Iterator[Document]]
    n_bytes: int
    n_documents: int


def collect_texts(config: Config, artifacts: Artifacts) -> list[Text]:
    """The texts that ``config.evaluate`` asks for.

    Without ``evaluate.on``: the validation rows, where something is prepared, and the packaged general text.

    Raises:
        DataError: a file that isn't there, isn't text, or is too short to score.
        ConfigError: two texts of one name.
    """
    if config.evaluate.on:
        texts = [_named_text(entry, config, artifacts) for entry in config.evaluate.on]
    else:
        texts = [_measure(GENERAL, read_general)]
        if artifacts.manifest.is_file():
            validation = _validation(artifacts)
            texts = [validation, *texts] if validation.n_bytes else texts
    names = [text.name for text in texts]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two texts have one name: {', '.join(names)}.", "Name them: --on name=path.")
    for text in texts:
        if text.n_bytes < 2:
            raise DataError(f"The text '{text.name}' is too short to score.", "Give a text of at least two tokens.")
    if config.evaluate.sample:
        texts = [draw_sample(text, config.evaluate.sample, config.evaluate.seed) for text in texts]
    return texts


def read_general() -> Iterator[Document]:
    """The documents of the general English reference text in the package: novels, technical and informal prose."""
    lines = resources.files("pretrain_cli.texts").joinpath("general.jsonl").read_text(encoding="utf-8")
    for record in map(json.loads, lines.splitlines()):
        yield Document.of(record["from"], record["text"], record["source"])


def read_validation(artifacts: Artifacts, manifest: Manifest) -> Iterator[Document]:
    """The held-out documents as text: what the stored ids say, without the BOS and EOS put around them.

    Raises:
        DataError: a prepare has replaced the rows that ``manifest`` describes.
    """
    from tokenizers import Tokenizer

    from pretrain_cli.data.rows.store import iterate_documents
    from pretrain_cli.tokenizer.load import read_tokenizer

    info = read_tokenizer(artifacts.tokenizer)
    tokenizer = Tokenizer.from_file(str(info.file))
    source_names = list(manifest.sources)
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
            yield Document.of(f"document {stored.index}", text, source)


def draw_sample(text: Text, n_bytes: int, seed: int) -> Text:
    """About ``n_bytes`` of ``text``: whole documents drawn by seed, the last one as a passage of it."""
    if text.n_bytes <= n_bytes:
        return text
    sizes = [document.opening(0)[1] for document in text.read()]
    generator = random.Random(seed)
    order = list(range(len(sizes)))
    generator.shuffle(order)
    share = n_bytes / text.n_bytes
    left = max(64, round(share * sum(sizes)))
    chosen: dict[int, tuple[int, int]] = {}
    for index in order:
        if left <= 0:
            break
        length = min(sizes[index], left)
        start = generator.randrange(sizes[index] - length + 1)
        chosen[index] = (start, start + length)
        left -= length

    def read() -> Iterator[Document]:
        for index, document in enumerate(text.read()):
            if index in chosen:
                yield Document(document.name, _passage(document.parts, *chosen[index]), document.source)
            _drain(document)

    return _measure(text.name, read)


def _passage(parts: Iterable[str], start: int, end: int) -> Iterator[str]:
    """Characters ``start`` to ``end`` of the parts laid end to end."""
    at = 0
    for part in parts:
        inside = part[max(0, start - at) : max(0, end - at)]
        at += len(part)
        if inside:
            yield inside
        if at >= end:
            return


def _drain(document: Document) -> None:
    for _ in document.parts:
        pass


def _measure(name: str, read: Callable[[], Iterator[Document]]) -> Text:
    n_bytes = n_documents = 0
    for document in read():
        n_bytes += sum(len(part.encode("utf-8")) for part in document.parts)
        n_documents += 1
    return Text(name, read, n_bytes, n_documents)


def _validation(artifacts: Artifacts) -> Text:
    manifest = read_manifest(artifacts)
    return _measure(VALIDATION, lambda: read_validation(artifacts, manifest))


def _named_text(entry: str, config: Config, artifacts: Artifacts) -> Text:
    name, equals, path = entry.partition("=")
    if not equals or "://" in name or Path(entry).exists():
        name, path = Path(entry).name.partition(".")[0] or entry, entry
    if entry in (VALIDATION, GENERAL) and not Path(entry).exists():
        if entry == GENERAL:
            return _measure(GENERAL, read_general)
        return _validation(artifacts)
    if path == STDIN:
        raise DataError("Standard input can be read only once.", "Write it to a file: --on FILE.")
    files = find_files([path])
    return _measure(name, lambda: read_files(files, config))


def read_files(files: list[InputFile], config: Config) -> Iterator[Document]:
    """The documents of files in every format that `ptk prepare` reads; of a plain text one part after the other.

    Raises:
        DataError: a file that can't be read, or a record without text.
    """
    for file in files:
        records = read(Span(file), ReadSettings.of(config.data))
        number = 0
        for record in records:
            if isinstance(record, Rejected):
                _refuse(record)
                continue
            texts = record.texts if isinstance(record, Batch) else [record.text]
            if isinstance(record, Batch) or record.final:
                for text in texts:
                    number += 1
                    yield Document.of(f"{Path(file.path).name} {number}", text)
                continue
            number += 1
            document = Document(f"{Path(file.path).name} {number}", _rest(record.text, records))
            yield document
            _drain(document)


def _rest(first: str, records: Iterator[Record]) -> Iterator[str]:
    """The parts of a long document: its first, and the records up to its final one."""
    yield first
    for record in records:
        assert not isinstance(record, (Batch, Rejected))
        yield record.text
        if record.final:
            return


def _refuse(record: Rejected) -> None:
    """An empty record is no text; any other that gives none is an error."""
    if record.reason not in ("empty", "no_text_found"):
        raise DataError(
            f"{place(record)}: {record.reason.replace('_', ' ')}.",
            "Mend the record, or name its field with --set data.text_column=NAME.",
        )
