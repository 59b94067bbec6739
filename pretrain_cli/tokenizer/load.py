"""Brings any tokenizer into the artifact folder, and says what ptk needs to know of one that is there."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from tokenizers import Tokenizer

from pretrain_cli.base import Base
from pretrain_cli.errors import DataError, ModelError, first_line
from pretrain_cli.storage import read_json, user_path, write_json

COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "added_tokens.json")
OLDER_FORMS = ("tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
BOS_NAMES = ("<|bos|>", "<s>", "<|begin_of_text|>", "<bos>", "[BOS]")
EOS_NAMES = ("<|eos|>", "</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "<|im_end|>", "[EOS]")
PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|endoftext|>")
NO_LIMIT = 10_000_000


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
        adds_bos: the tokenizer itself puts BOS in front.
        fingerprint: hash of what decides ids.
        max_length: tokens its model was made for, where it says so.
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

    @property
    def id_dtype(self) -> str:
        """The smallest unsigned type that holds every id: uint16 where the vocabulary allows it, else uint32."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"

    @property
    def first_id(self) -> int:
        """What comes before a document where something has to: BOS, or EOS where there is no BOS."""
        first = self.bos_id if self.bos_id is not None else self.eos_id
        return 0 if first is None else first


def read_tokenizer(folder: Path) -> TokenizerInfo:
    """Describe the tokenizer in ``folder``.

    Raises:
        DataError: there is none, or its file is damaged.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"No tokenizer in {folder}.", "Prepare some text first: ptk prepare data.txt")
    tokenizer = _look_at(file)
    settings = _settings(folder)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    bos_id = _special(settings.get("bos_token"), BOS_NAMES, vocabulary, declared="bos_token" in settings)
    eos_id = _special(settings.get("eos_token"), EOS_NAMES, vocabulary, declared="eos_token" in settings)
    pad_id = _special(settings.get("pad_token"), PAD_NAMES, vocabulary, declared=bool(settings.get("pad_token")))
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
        fingerprint=xxhash.xxh3_128_hexdigest(file.read_bytes() + repr((bos_id, eos_id, adds_bos)).encode()),
        max_length=int(limit) if isinstance(limit, (int, float)) and 0 < limit < NO_LIMIT else None,
    )


def open_tokenizer(file: Path) -> Tokenizer:
    """The `tokenizers` object in a tokenizer.json, which neither cuts texts nor fills them up, whatever the file says.

    Raises:
        DataError: it isn't one.
    """
    with _reading(file):
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library raises bare Exception
        raise DataError(
            f"{file} is no tokenizer.json that can be read: {error}.",
            "Replace the file, or give another: ptk prepare --tokenizer FILE.",
        ) from error


def _look_at(file: Path) -> Tokenizer:
    """The tokenizer, not to be changed: files with the same content share it."""
    with _reading(file):
        return _parse(file.read_bytes())


@functools.lru_cache(maxsize=1)  # a vocabulary of 32 000 takes 0.12 s, and is copied, then described
def _parse(content: bytes) -> Tokenizer:
    return Tokenizer.from_buffer(content)


def copy_tokenizer(source: str | Path | Base, folder: Path) -> None:
    """Save the tokenizer of ``source`` (a folder, a tokenizer.json, or a base) into ``folder``.

    Raises:
        DataError: the path holds no tokenizer.
        ModelError: the base has none that can be loaded.
    """
    if isinstance(source, Base) and source.kind != "folder":
        _save_from_base(source, folder)
        return
    path = user_path(str(source.location if isinstance(source, Base) else source))
    if not path.exists():
        raise DataError(f"No tokenizer at {path}.", "Give a tokenizer.json, or a folder that holds one.")
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        if isinstance(source, Base) and not any((path / name).is_file() for name in OLDER_FORMS):
            # transformers would make one without a single entry up from config.json
            raise ModelError(f"The base {source.name} has no tokenizer.", "Give one with --tokenizer tokenizer.json.")
        if isinstance(source, Base) or (path / "tokenizer_config.json").is_file():
            _save_from_base(Base(str(path), "folder", str(path)), folder)  # transformers converts older formats
            return
        raise DataError(f"No tokenizer.json in {path}.", "Give a tokenizer.json, or a folder that holds one.")
    tokenizer = _look_at(file)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "tokenizer.json")
    for name in COMPANIONS:
        if (file.parent / name).is_file():
            shutil.copyfile(file.parent / name, folder / name)
    if not (folder / "tokenizer_config.json").is_file():
        _write_settings(folder, tokenizer)


def _write_settings(folder: Path, tokenizer: Tokenizer) -> None:
    """A config for a bare tokenizer.json, so that AutoTokenizer opens the folder and knows its BOS and EOS."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for key, names in (("bos_token", BOS_NAMES), ("eos_token", EOS_NAMES), ("pad_token", PAD_NAMES)):
        found = next((name for name in names if name in vocabulary), None)
        if found:
            settings[key] = found
    write_json(folder / "tokenizer_config.json", settings)


def _save_from_base(base: Base, folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        if base.kind == "gguf":
            path = Path(base.location)
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(base.location)
    except Exception as error:  # transformers raises many kinds, all meaning that it can't be loaded
        raise ModelError(
            f"The tokenizer of {base.name} can't be loaded: {first_line(error)}.",
            "Give one with --tokenizer tokenizer.json.",
        ) from error
    tokenizer.save_pretrained(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"The tokenizer of {base.name} has no fast form.", "Give one with --tokenizer tokenizer.json.")


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings.update(read_json(folder / name))
    return settings


def _special(value: Any, names: tuple[str, ...], vocabulary: dict[str, int], *, declared: bool) -> int | None:
    """Id of the special token that the config names, as text or as a record; of the usual name where it names none."""
    text = value.get("content") if isinstance(value, dict) else value
    if isinstance(text, str):
        return vocabulary.get(text)
    if declared:
        return None
    return next((vocabulary[name] for name in names if name in vocabulary), None)
