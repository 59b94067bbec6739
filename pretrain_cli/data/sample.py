"""Which text is the tokenizer trained on, and which checks the engine? A bounded, seeded part of the input."""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

from pretrain_cli.config.model import Config
from pretrain_cli.data.documents import Batch, Document
from pretrain_cli.data.inputs import InputFile
from pretrain_cli.data.readers import ReadSettings, Span, read
from pretrain_cli.errors import DataError

PIECE = 1 << 16
CHECK_CHARACTERS = 1 << 18


def _texts(files: list[InputFile], config: Config) -> Iterator[str]:
    """The text of the input in pieces, bad records left out: they are judged when the data is read for good."""
    data = config.data
    for file in files:
        settings = ReadSettings(data.document_separator, data.text_column, data.encoding)
        try:
            for record in read(Span(file), settings):
                texts = record.texts if isinstance(record, Batch) else []
                if isinstance(record, Document):
                    texts = [record.text]
                for text in texts:
                    for start in range(0, len(text), PIECE):
                        yield text[start : start + PIECE]
        except DataError:
            if data.on_error == "fail":
                raise


def training_sample(files: list[InputFile], config: Config, total: int) -> Iterator[str]:
    """About ``tokenizer.sample_bytes`` of text, drawn evenly: each piece by a hash of its text and the seed."""
    limit = config.tokenizer.sample_bytes
    share = min(1.0, limit / max(1, total))
    used = 0
    for text in _texts(files, config):
        if share < 1 and xxhash.xxh3_64_intdigest(text[:4096].encode(), config.data.seed) / 2**64 >= share:
            continue
        used += len(text)
        yield text
        if used > 1.2 * limit:  # compressed input is larger than its size on disk says
            return


def head_sample(files: list[InputFile], config: Config) -> list[str]:
    """The first pieces of up to eight files spread over the input: what the fast engine is checked on."""
    step = max(1, len(files) // 8)
    sample: list[str] = []
    for file in files[::step][:8]:
        used = 0
        try:
            for text in _texts([file], config):
                sample.append(text[:CHECK_CHARACTERS])
                used += len(text)
                if used > CHECK_CHARACTERS // 2:
                    break
        except DataError:
            continue
    return sample
