"""Says which bytes the tokens of a vocabulary stand for."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def read_spec(file: Path) -> dict[str, Any]:
    """The JSON of a tokenizer.json, not to be changed: it is shared."""
    return _read_spec(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_spec(file: Path, modified_ns: int) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return spec


def entries_of(spec: dict[str, Any]) -> set[str]:
    """The texts in the model's vocabulary, which Unigram lists with their scores."""
    return {entry if isinstance(entry, str) else entry[0] for entry in spec["model"].get("vocab", ())}


def is_byte_level(file: Path) -> bool:
    """Whether each character of a token stands for one byte (GPT-2's way)."""
    return '"ByteLevel"' in file.read_text(encoding="utf-8")


def lacks_bytes(file: Path) -> bool:
    """Whether this is a byte-level BPE without a token for every byte, such as SmolLM2's, which lacks 21."""
    spec = read_spec(file)
    if spec.get("normalizer") or '"ByteLevel"' not in json.dumps(spec.get("pre_tokenizer")):
        return False
    from tokenizers import pre_tokenizers

    return not set(pre_tokenizers.ByteLevel.alphabet()) <= entries_of(spec)


def byte_names() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself if it is visible (GPT-2)."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


def token_contents(file: Path) -> list[bytes]:
    """The UTF-8 bytes each id stands for; specials none. Exact for byte-level and byte-fallback BPE."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    byte_of = {name: byte for byte, name in enumerate(byte_names())} if is_byte_level(file) else {}
    contents = [b""] * (max(vocabulary.values()) + 1)
    for token, index in vocabulary.items():
        if index in added:
            contents[index] = b"" if added[index].special else token.encode()
        elif byte_of:
            contents[index] = bytes(byte_of[name] for name in token if name in byte_of)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            contents[index] = bytes([int(token[3:5], 16)])
        else:
            contents[index] = token.replace("▁", " ").encode()
    return contents


def token_bytes(file: Path) -> npt.NDArray[np.int64]:
    """How many bytes each id stands for, see `token_contents`: [vocabulary]."""
    return np.array([len(content) for content in token_contents(file)], np.int64)
