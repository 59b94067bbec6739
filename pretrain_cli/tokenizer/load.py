"""Opens a saved tokenizer, and describes it."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from tokenizers import Tokenizer

from pretrain_cli.errors import DataError, first_line, panics_told
from pretrain_cli.refusals import denied
from pretrain_cli.small_files import small_bytes
from pretrain_cli.storage import read_json
from pretrain_cli.tokenizer.bounds import check_added, check_bounds

BOS_NAMES = ("<|bos|>", "<s>", "<|begin_of_text|>", "<bos>", "[BOS]")
EOS_NAMES = ("<|eos|>", "</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "<|im_end|>", "[EOS]")
PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|endoftext|>")
NO_LIMIT = 10_000_000
EXTENSION = "extension.json"
"""File beside a tokenizer.json that continues the merges of a base's: what was added."""


@dataclass(frozen=True)
class TokenizerInfo:
    """What a saved tokenizer is.

    Attributes:
        folder: holds tokenizer.json and its config.
        file: the tokenizer.json.
        vocab_size: number of ids, added tokens included: one more than the highest id.
        bos_id: begin-of-document id, or None.
        eos_id: end-of-document id, or None.
        pad_id: padding id, or None.
        adds_bos: the tokenizer itself adds BOS to the front.
        fingerprint: hash of what decides the ids.
        max_length: tokens that its model was made for, if it says so.
        grown_from: number of ids of the base's tokenizer, where this one continues its merges; else None.
    """

    folder: Path
    file: Path
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    adds_bos: bool
    fingerprint: str
    max_length: int | None
    grown_from: int | None = None

    @property
    def id_dtype(self) -> str:
        """The smallest unsigned type that holds every id: uint16 where the vocabulary allows it, else uint32."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"

    @property
    def first_id(self) -> int:
        """What comes before a document if something must: BOS, or EOS if there is no BOS."""
        first = self.bos_id if self.bos_id is not None else self.eos_id
        return 0 if first is None else first


def read_tokenizer(folder: Path) -> TokenizerInfo:
    """Describe the tokenizer in ``folder``.

    Raises:
        DataError: there is no tokenizer, or its file is damaged.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"No tokenizer in {folder}.", "Prepare some text first: ptk prepare data.txt")
    tokenizer = shared_tokenizer(file)
    settings = _settings(folder)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    bos_id = _special(settings.get("bos_token"), BOS_NAMES, vocabulary, declared="bos_token" in settings)
    eos_id = _special(settings.get("eos_token"), EOS_NAMES, vocabulary, declared="eos_token" in settings)
    pad_id = _special(settings.get("pad_token"), PAD_NAMES, vocabulary, declared=bool(settings.get("pad_token")))
    with panics_told():
        first = tokenizer.encode("a", add_special_tokens=True).ids[:1]
    adds_bos = bos_id is not None and (first == [bos_id] or bool(settings.get("add_bos_token")))
    limit = settings.get("model_max_length")
    return TokenizerInfo(
        folder=folder,
        file=file,
        vocab_size=max(vocabulary.values()) + 1,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
        adds_bos=adds_bos,
        fingerprint=xxhash.xxh3_128_hexdigest(small_bytes(file) + repr((bos_id, eos_id, adds_bos)).encode()),
        max_length=int(limit) if isinstance(limit, (int, float)) and 0 < limit < NO_LIMIT else None,
        grown_from=_grown_from(folder / EXTENSION),
    )


def _grown_from(extension: Path) -> int | None:
    """Raise DataError where the record of what was added is damaged."""
    first = read_json(extension).get("first") if extension.is_file() else None
    if extension.is_file() and not (isinstance(first, int) and first > 0):
        raise DataError(f"{extension} doesn't say which entries were added.", "Prepare the text again.")
    return first


def open_tokenizer(file: Path) -> Tokenizer:
    """The `tokenizers` object in a tokenizer.json, without truncation or padding, whatever the file says.

    Raises:
        DataError: it isn't one.
    """
    with _reading(file):
        return _open(small_bytes(file))


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        with panics_told():
            yield
    except PermissionError as error:
        raise DataError(*denied(error, file)) from error
    except Exception as error:  # the library raises bare Exception
        raise DataError(
            f"{file} isn't a tokenizer.json that can be read: {first_line(error)}.",
            "Replace the file, or give another: ptk prepare --tokenizer FILE.",
        ) from error


def shared_tokenizer(file: Path) -> Tokenizer:
    """The `tokenizers` object in a tokenizer.json, without truncation or padding, and not to be changed: files with
    the same content share it.

    Raises:
        DataError: it isn't one.
    """
    with _reading(file):
        return _parse(small_bytes(file))


@functools.lru_cache(maxsize=1)  # a vocabulary of 32,000 takes 0.12 s, and is copied, then described
def _parse(content: bytes) -> Tokenizer:
    return _open(content)


def _open(content: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(content)
    check_bounds(tokenizer)
    check_added(tokenizer, json.loads(content))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings.update(read_json(folder / name))
    return settings


def _special(value: object, names: tuple[str, ...], vocabulary: dict[str, int], *, declared: bool) -> int | None:
    """The id of the special token that the config names, as text or as a record; of a usual name if it names none."""
    text = value.get("content") if isinstance(value, dict) else value
    if isinstance(text, str):
        return vocabulary.get(text)
    if declared:
        return None
    return next((vocabulary[name] for name in names if name in vocabulary), None)
