"""Extends a base's vocabulary for the text, and measures what that saves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing.tokenizer_sample import draw_sample, nothing_left
from pretrain_cli.data.encoding.engine_choice import check_sample
from pretrain_cli.data.encoding.vocabulary_bytes import read_spec
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size
from pretrain_cli.manifest_records import ExtensionRecord, TokenCount
from pretrain_cli.progress import Progress
from pretrain_cli.storage import read_json, write_json
from pretrain_cli.tokenizer.extend import Extension, check_extensible, extend_tokenizer
from pretrain_cli.tokenizer.load import EXTENSION, open_tokenizer


def check_extension(config: Config) -> None:
    """A vocabulary is extended where there is one: that of a base.

    Raises:
        UsageError: there is none, or another replaces it.
    """
    if not config.tokenizer.extend_vocab:
        return
    if not config.model.base:
        raise UsageError(
            "--extend-vocab continues the tokenizer of a base, but there is none.",
            "Name one with --base MODEL. From scratch, --vocab-size says how many entries there are.",
        )
    if config.tokenizer.path:
        raise UsageError(
            "--extend-vocab continues the base's tokenizer, and --tokenizer replaces it.", "Leave one of the two out."
        )


def extend_vocabulary(config: Config, folder: Path, sources: Sources, progress: Progress) -> None:
    """Continue the merges of the base's tokenizer in ``folder``, in place, and record what that saves.

    Raises:
        ModelError: its vocabulary can't be extended.
        DataError: no text is left.
    """
    check_extensible(read_spec(folder / "tokenizer.json"), config.model.base)
    progress.stage("extending the vocabulary")
    sample = draw_sample(sources.own_files, config, folder.parent)
    if not sample.texts:
        raise nothing_left(sample)
    before = open_tokenizer(folder / "tokenizer.json")
    made = extend_tokenizer(folder, config.model.base, sample.texts, config.tokenizer.extend_vocab)
    after = open_tokenizer(folder / "tokenizer.json")
    counts, used = {}, np.zeros(made.first + made.added, bool)
    for index, name in enumerate(sources.names):
        texts = check_sample(sources.files.of_source(index), config)
        old, new = (each.encode_batch_fast(texts, add_special_tokens=False) for each in (before, after))
        counts[name] = TokenCount(
            bytes=sum(len(text.encode()) for text in texts),
            base_tokens=sum(len(encoding.ids) for encoding in old),
            tokens=sum(len(encoding.ids) for encoding in new),
        )
    for encoding in after.encode_batch_fast(sample.texts, add_special_tokens=False):
        used[encoding.ids] = True
    _record(folder, made, int(used[made.first :].sum()), counts)
    progress.end_stage()
    if not made.added:
        progress.warn("No entry is added to the vocabulary: none would save enough tokens of this text.")
    if sample.bytes < 0.9 * sample.total_bytes:
        progress.note(
            f"The vocabulary is extended from {byte_size(sample.bytes)}, "
            f"drawn evenly from {byte_size(sample.total_bytes)}."
        )


def _record(folder: Path, made: Extension, used: int, counts: dict[str, TokenCount]) -> None:
    record = ExtensionRecord(first=made.first, added=made.added, characters=made.characters, used=used, sources=counts)
    write_json(folder / EXTENSION, record.model_dump(mode="json"))


def read_extension(folder: Path) -> ExtensionRecord | None:
    """What was added to the tokenizer in ``folder``; None where nothing was."""
    file = folder / EXTENSION
    return ExtensionRecord.model_validate(read_json(file)) if file.is_file() else None
