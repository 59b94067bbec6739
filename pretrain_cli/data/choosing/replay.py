"""Takes general text to mix into the user's own, called replay, so that a base forgets less of what it knew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import xxhash
from pydantic import JsonValue

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, DataConfig
from pretrain_cli.data.fingerprint import fingerprint
from pretrain_cli.data.reading.documents import texts_of
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.input_files import InputFile
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.read import read_all
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import byte_size
from pretrain_cli.progress import Progress
from pretrain_cli.storage import replacing

NAME = "replay"
"""Of the source, in the manifest and in the loss by source."""
CHOSEN = 0.05
"""`auto`: in a trial on one book it avoided two thirds of the forgetting, at no visible cost on the book."""
STRETCH = 8192
"""Characters of a document that are drawn together: a long one isn't taken whole."""
MOST_USES = 4.0
"""A text that is too short for the share is used at most as often."""


def add_replay(sources: Sources, config: Config, artifacts: Artifacts, progress: Progress) -> Sources:
    """``sources`` with one more, of general text that is ``data.replay`` of all text to train on.

    The text is drawn once and kept in the artifact folder. None of it is held out: validation stays that of the user's
    own text.

    Raises:
        DataError: the size of the text isn't known, there is no general text, or it is empty.
    """
    if not config.data.replay:
        return sources
    wanted = wanted_bytes(sources, config.data)
    if config.data.replay_source:
        file = _drawn(config.data, artifacts, wanted, progress)
    else:
        file = own_samples(config, artifacts, wanted)
        if not file.is_file():
            raise DataError(
                "There is no general text to mix in as replay.",
                "Name some with --replay-source, or let the base write it: ptk prepare … --base MODEL --replay auto",
            )
    number = len(sources.names)
    files = find_files([str(file)], number, sources.account)
    found = sum(each.size for each in files)
    if not found:
        raise DataError(f"{config.data.replay_source} has no text to mix in.", "Name other text: --replay-source")
    whole = FileTable()
    whole.extend(sources.files)
    whole.extend(files)
    uses = wanted / found
    if uses > MOST_USES:
        progress.warn(
            f"The replay text has {byte_size(found)} of the {byte_size(wanted)} wanted: it is used {MOST_USES:g} times."
        )
    return replace(
        sources,
        files=whole,
        names=[*sources.names, NAME],
        weights=[*sources.weights, min(MOST_USES, uses)],
        replay=number,
    )


def wanted_bytes(sources: Sources, data: DataConfig) -> int:
    """Bytes of general text that are the share ``data.replay`` of all text to train on.

    Raises:
        DataError: the size of the user's text isn't known before it is read.
    """
    share = CHOSEN if data.replay == "auto" else data.replay
    own = 0.0
    for file in sources.files:
        if file.size < 0:
            raise DataError(
                f"The size of {file.name} isn't known before it is read, so neither is that of its replay.",
                "Write it to a file first.",
            )
        own += sources.weights[file.source] * file.likely_bytes
    return max(1, int(own * (1 - data.validation_fraction) * share / (1 - share)))


def own_samples(config: Config, artifacts: Artifacts, wanted: int) -> Path:
    """Where what the base itself writes is kept, for so many bytes of it."""
    key = fingerprint({"base": config.model.base, "bytes": wanted, "seed": config.data.seed})
    return artifacts.replay / f"base-{key[:16]}.jsonl"


def write_texts(file: Path, texts: Iterator[str]) -> None:
    """Write ``texts`` to ``file``, a record each, complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        for text in texts:
            handle.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _drawn(data: DataConfig, artifacts: Artifacts, wanted: int, progress: Progress) -> Path:
    """About ``wanted`` bytes of ``data.replay_source``, drawn evenly; of a Hub data set its beginning."""
    files = find_files([data.replay_source])
    told: list[JsonValue] = [[each.name, each.size, each.modified_ns] for each in files]
    key = fingerprint({"files": told, "bytes": wanted, "seed": data.seed, "column": data.text_column})
    file = artifacts.replay / f"text-{key[:16]}.jsonl"
    if not file.is_file():
        progress.stage("drawing general text to mix in")
        write_texts(file, _draw(files, data, wanted))
        progress.end_stage()
    return file


def _draw(files: Sequence[InputFile], data: DataConfig, wanted: int) -> Iterator[str]:
    known = all(each.size >= 0 for each in files)
    total = sum(each.likely_bytes for each in files)
    share = min(1.0, wanted / max(1.0, total)) if known else 1.0
    taken = 0
    for text in _stretches(files, data):
        if xxhash.xxh3_64_intdigest(text.encode(), data.seed) / 2**64 >= share:
            continue
        yield text
        taken += len(text.encode())
        if taken >= wanted:
            return


def _stretches(files: Sequence[InputFile], data: DataConfig) -> Iterator[str]:
    for file in files:
        for record in read_all(file, data, strict=True):
            for text in texts_of(record):
                for start in range(0, len(text), STRETCH):
                    if not (stretch := text[start : start + STRETCH]).isspace():
                        yield stretch
