"""Encodes texts to token ids, fast and exactly as `tokenizers` would."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.fast_engine import FastEngine, Ids, load_fast
from pretrain_cli.data.encoding.vocabulary_bytes import lacks_bytes, token_bytes
from pretrain_cli.errors import panics_told

BEFORE_SPACE = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])")
BEFORE_SPACE_OR_LINE = re.compile(BEFORE_SPACE.pattern + r"|(?<=\S\n)(?=[^\W\d_])")
CUTS = {"space": BEFORE_SPACE_OR_LINE, "drop-space": BEFORE_SPACE}
PIECE_CHARACTERS = 1 << 16
"""A longer text is encoded in pieces, where its tokenizer allows cuts."""


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder is made from; small, so that workers can make their own."""

    file: Path
    engine: str
    parse_special_tokens: bool
    cut: str
    """Where long texts may be cut: "" nowhere, "space" before a space or line, "drop-space" leaving that space out."""


class Encoder:
    """Encodes texts to ids without BOS or EOS; ids equal those of ``tokenizers``."""

    def __init__(self, settings: EncoderSettings, counts_lost: bool = True) -> None:
        self.settings = settings
        self._opened: Any = None
        self._sizes = token_bytes(settings.file) if counts_lost and lacks_bytes(settings.file) else None
        self._fast: FastEngine | None = None
        if settings.engine == "fastokens":
            self._fast = load_fast(settings.file)

    @property
    def _exact(self) -> Any:
        # Opened when first needed: a vocabulary of 32,000 takes 0.12 s.
        if self._opened is None:
            from pretrain_cli.tokenizer.load import open_tokenizer

            self._opened = open_tokenizer(self.settings.file)
            self._opened.encode_special_tokens = not self.settings.parse_special_tokens
        return self._opened

    def encode(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """(ids [n], offsets [len(texts) + 1]): text i's ids are ``ids[offsets[i]:offsets[i + 1]]``."""
        if self._fast is None:
            return self._encode_exact(texts)
        try:
            with panics_told():
                return self._fast.encode(texts, self.settings.parse_special_tokens)
        except Exception:  # a byte without a token: fastokens refuses it, tokenizers leaves it out
            if len(texts) == 1:
                return self._encode_exact(texts)
            middle = len(texts) // 2
            (first, before), (second, after) = self.encode(texts[:middle]), self.encode(texts[middle:])
            return np.concatenate([first, second]), np.concatenate([before, after[1:] + before[-1]])

    def lost_bytes(self, texts: Sequence[str], ids: Ids, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each text that no id stands for, because the vocabulary lacks them: [len(texts)]."""
        if self._sizes is None:
            return np.zeros(len(texts), np.int64)
        written = np.concatenate([[0], np.cumsum(self._sizes[ids])])[offsets]
        return np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts)) - np.diff(written)

    def _encode_exact(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        with panics_told():
            encoded = self._exact.encode_batch_fast(list(texts), add_special_tokens=False)
        lists = [np.array(entry.ids, np.uint32) for entry in encoded]
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        return (np.concatenate(lists) if lists else np.empty(0, np.uint32)), offsets

    @property
    def skips(self) -> int:
        """Characters left out at a cut: with "drop-space" each piece gets its first space from the tokenizer."""
        return int(self.settings.cut == "drop-space")

    def pieces(self, text: str) -> Iterator[str]:
        """``text`` in pieces whose ids, end to end, are the text's ids."""
        if not self.settings.cut or len(text) <= PIECE_CHARACTERS:
            yield text
            return
        start, pattern = 0, CUTS[self.settings.cut]
        while start < len(text):
            found = pattern.search(text, start + PIECE_CHARACTERS) if len(text) - start > PIECE_CHARACTERS else None
            stop = found.start() if found else len(text)
            yield text[start:stop]
            start = stop + self.skips if found else stop

    def last_cut(self, text: str) -> int:
        """The last place where ``text`` may be cut, 0 if there is none. What comes after it can wait for more text."""
        if not self.settings.cut:
            return 0
        for window in (4096, len(text)):
            places = [found.start() for found in CUTS[self.settings.cut].finditer(text, max(0, len(text) - window))]
            if places:
                return places[-1]
        return 0
