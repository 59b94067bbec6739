"""Makes sure that a tokenizer.json that was made of a SentencePiece model gives its ids."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pretrain_cli.errors import MissingDependencyError, ModelError
from pretrain_cli.optional import to_install
from pretrain_cli.storage import read_json, write_json

NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
TEXTS = (
    "Call me Ishmael. Some years ago, never mind how long precisely, it's said: 3.5 miles",
    "The sea",
    "In 1851  two spaces,\ta tab\nand a line",
    "naïve café, Ωmega, 日本語 🐋! WHALE's\n\n    x = 2048",
)
SPACE = "▁"


def sentencepiece_file(folder: Path) -> Path | None:
    """The SentencePiece model in ``folder``; None where there is none, or another file says what text becomes."""
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        return None
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None or found.read_bytes()[:1] != b"\n":  # tiktoken's files have the name too, and hold lines of text
        return None
    return found


def need_sentencepiece(file: Path) -> None:
    """Raise MissingDependencyError where the package that reads ``file`` isn't installed."""
    if importlib.util.find_spec("sentencepiece") is None:
        raise MissingDependencyError(
            f"Reading {file.name} needs the package sentencepiece.",
            f"Install it: {to_install(extra='sentencepiece')}",
        )


def check_ids(file: Path, folder: Path) -> None:
    """Compare the tokenizer.json in ``folder`` with the SentencePiece model it was made of, and correct what is known.

    transformers leaves the space out that SentencePiece puts before a text, where no tokenizer_config.json asks for it.

    Raises:
        ModelError: they give other ids.
    """
    made = folder / "tokenizer.json"
    if _same(file, made):
        return
    spec = read_json(made)
    write_json(made, _with_prefix(spec))
    if not _same(file, made):
        raise ModelError(
            f"{file} can't be turned into a tokenizer.json that gives the same ids.",
            "Give one with --tokenizer tokenizer.json.",
        )


def _same(file: Path, made: Path) -> bool:
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(model_file=str(file))
    tokenizer = Tokenizer.from_file(str(made))
    return all(own.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS)


def _with_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    """``spec`` with a space before each text, taken off again where ids become text."""
    old = spec.get("normalizer")
    steps = (old.get("normalizers") or [old]) if old else []
    decoder = spec.get("decoder")
    decoders = (decoder.get("decoders") or [decoder]) if decoder else []
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        **spec,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, *steps]},
        "decoder": {"type": "Sequence", "decoders": [*decoders, strip]},
    }
