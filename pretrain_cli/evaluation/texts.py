"""Which texts are models scored on? Each is a stream of documents that can be read more than once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pretrain_cli.artifacts import Artifacts, read_json
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError, DataError

PACKAGED_SEPARATOR = "\n\n\n"


@dataclass(frozen=True)
class Document:
    """One document; ``name`` says where it stands in its text."""

    name: str
    text: str
    source: str = ""


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
        texts = [_file_text(entry, config) for entry in config.evaluate.on]
    else:
        texts = [_measure("general", read_general)]
        if artifacts.manifest.is_file():
            validation = _measure("validation", lambda: read_validation(artifacts))
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
    """The documents of the general English reference text in the package."""
    text = resources.files("pretrain_cli.texts").joinpath("general.txt").read_text(encoding="utf-8")
    for index, part in enumerate(text.split(PACKAGED_SEPARATOR)):
        if part.strip():
            yield Document(f"general {index + 1}", part.strip("\n"))


def read_validation(artifacts: Artifacts) -> Iterator[Document]:
    """The held-out documents as text: what the stored ids say, without the BOS and EOS put around them."""
    from tokenizers import Tokenizer

    from pretrain_cli.data.store import iterate_documents
    from pretrain_cli.tokenizer.load import read_tokenizer

    info = read_tokenizer(artifacts.tokenizer)
    tokenizer = Tokenizer.from_file(str(info.file))
    source_names = list(read_json(artifacts.manifest).get("sources") or {})
    for stored in iterate_documents(artifacts.validation_rows):
        ids = stored.ids.tolist()
        if ids and ids[0] == info.bos_id:
            ids = ids[1:]
        if ids and ids[-1] == info.eos_id:
            ids = ids[:-1]
        text = tokenizer.decode(ids, skip_special_tokens=False)
        if text:
            source = source_names[stored.source] if 0 <= stored.source < len(source_names) else ""
            yield Document(f"document {stored.index}", text, source)


def draw_sample(text: Text, n_bytes: int, seed: int) -> Text:
    """About ``n_bytes`` of ``text``: whole documents drawn by seed, the last one as a passage of it."""
    if text.n_bytes <= n_bytes:
        return text
    sizes = [len(document.text) for document in text.read()]
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
                start, end = chosen[index]
                yield Document(document.name, document.text[start:end], document.source)

    return _measure(text.name, read)


def _measure(name: str, read: Callable[[], Iterator[Document]]) -> Text:
    n_bytes = n_documents = 0
    for document in read():
        n_bytes += len(document.text.encode("utf-8"))
        n_documents += 1
    return Text(name, read, n_bytes, n_documents)


def _file_text(entry: str, config: Config) -> Text:
    name, equals, path = entry.partition("=")
    if not equals or Path(entry).exists():
        name, path = Path(entry).stem, entry
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "doesn't exist"
        raise DataError(f"{path} {what}, so it can't be scored.", "Give a text file: --on FILE or --on name=FILE.")
    read = _jsonl_reader(file, config.data.text_column) if file.suffix == ".jsonl" else _plain_reader(file, config)
    return _measure(name, read)


def _plain_reader(file: Path, config: Config) -> Callable[[], Iterator[Document]]:
    def read() -> Iterator[Document]:
        text = _read_utf8(file)
        separator = config.data.document_separator.encode().decode("unicode_escape")
        # The separator stays at the end of the document before it, so that no byte goes unscored.
        parts = text.split(separator) if separator else [text]
        for index, part in enumerate(parts):
            whole = part + separator if index < len(parts) - 1 else part
            if whole:
                yield Document(f"{file.name} {index + 1}", whole)

    return read


def _jsonl_reader(file: Path, column: str) -> Callable[[], Iterator[Document]]:
    def read() -> Iterator[Document]:
        for number, line in enumerate(_read_utf8(file).split("\n"), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                key = column if column != "auto" else next(key for key in ("text", "content", "body") if key in record)
                text = record[key]
            except (ValueError, KeyError, StopIteration, TypeError) as error:
                raise DataError(
                    f"{file}, line {number}: no text found ({type(error).__name__}).",
                    "Each line has to be a JSON object with a field 'text', or name it with data.text_column.",
                ) from error
            if isinstance(text, str) and text:
                yield Document(f"{file.name}:{number}", text)

    return read


def _read_utf8(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror}.", "Check that the file is still there.") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} isn't UTF-8 text: byte {error.start} can't be decoded.", "Convert it to UTF-8, or leave it out."
        ) from error
