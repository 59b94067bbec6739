"""How does text become token ids, fast and exactly as `tokenizers` would?"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain_cli.errors import first_line

Ids = npt.NDArray[np.uint32]
BEFORE_SPACE = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])")
BEFORE_SPACE_OR_LINE = re.compile(BEFORE_SPACE.pattern + r"|(?<=\S\n)(?=[^\W\d_])")
CUTS = {"space": BEFORE_SPACE_OR_LINE, "drop-space": BEFORE_SPACE}
PIECE_CHARACTERS = 1 << 16
CUT_CHARACTERS = 20_000
CUT_PROBE = "one  two three's four.\n\nfive 6 seven\tacht n\u00e9uf \u6570 ten el\u0301 a b.\nc\nd \ne,\nf"
ADVERSARIAL = (
    *("", " ", "  ", "\n", "\r\n\r\n", "\t x", "a", " a", "a ", "  a  b   c", "naïve café — “quoted”…"),
    *(
        "e\u0301 e\u0301\u0301",
        "数据 テスト 데이터",
        "👩‍👩‍👧‍👦 🏳️‍🌈",
        "\u202eright-to-left\u202c",
        "zero\u200bwidth\ufeffbom",
    ),
    *("\x00\x01\x7f\x85", "1234567890 3.14 1,000", "don't I'LL we've", "x" * 300, "▁ ▁a", "مرحبا عليكم", "हिन्दी क्षि"),
    "<s> </s> <|endoftext|> <|im_start|>system [INST] <unk> <pad> <|bos|><|eos|>",
    *(
        "def f(x):\n    return x**2  # 2\n",
        "\u00a0\u2003 \u3000",
        "ﬁ ① ㍿",
        "a\u0000b",
        "ÀÈ\u0340",
        "...!!!???",
        "\U0010ffff",
    ),
)


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder is made from; small, so that workers can make their own."""

    file: Path
    engine: str
    parse_special_tokens: bool
    cut: str
    """How long texts may be cut: "" never, "space" before a space or a line, "drop-space" leaving that space out."""


class Encoder:
    """Encodes texts to ids without BOS or EOS; ids equal those of ``tokenizers``."""

    def __init__(self, settings: EncoderSettings, counts_lost: bool = True) -> None:
        self.settings = settings
        self._opened: Any = None
        self._sizes = token_bytes(settings.file) if counts_lost and lacks_bytes(settings.file) else None
        self._fast: Any = None
        if settings.engine == "fastokens":
            self._fast = load_fast(settings.file)

    @property
    def _exact(self) -> Any:
        # Opened when first needed: a vocabulary of 32 000 takes 0.12 s.
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
            return encode_fast(self._fast, texts, self.settings.parse_special_tokens)
        except Exception:  # a byte the vocabulary can't write: fastokens refuses, tokenizers leaves it out
            if len(texts) == 1:
                return self._encode_exact(texts)
            middle = len(texts) // 2
            (first, before), (second, after) = self.encode(texts[:middle]), self.encode(texts[middle:])
            return np.concatenate([first, second]), np.concatenate([before, after[1:] + before[-1]])

    def lost_bytes(self, texts: Sequence[str], ids: Ids, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each text that the vocabulary can't write, so that no id stands for them: [len(texts)]."""
        if self._sizes is None:
            return np.zeros(len(texts), np.int64)
        written = np.concatenate([[0], np.cumsum(self._sizes[ids])])[offsets]
        return np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts)) - np.diff(written)

    def _encode_exact(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
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
        """The last place where ``text`` may be cut, 0 if there is none: what comes after can wait for more text."""
        if not self.settings.cut:
            return 0
        for window in (4096, len(text)):
            places = [found.start() for found in CUTS[self.settings.cut].finditer(text, max(0, len(text) - window))]
            if places:
                return places[-1]
        return 0


def load_fast(file: Path) -> Any:
    """fastokens' tokenizer of a tokenizer.json, without truncation or padding."""
    return _load_fast(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)  # a vocabulary of 32 000 takes 0.16 s: the check and the work share one
def _load_fast(file: Path, modified_ns: int) -> Any:
    import fastokens

    fast = fastokens.Tokenizer.from_file(str(file))
    fast.no_truncation()
    fast.no_padding()
    return fast


def encode_fast(fast: Any, texts: Sequence[str], parse_special: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
    ids, offsets = fast.encode_batch_flat(list(texts), split_special_tokens=not parse_special)
    return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)


def choose_encoder(file: Path, wanted: str, parse_special: bool, sample: Sequence[str]) -> tuple[EncoderSettings, str]:
    """The fastest engine that gives the ids of ``tokenizers`` on ``sample`` and the adversarial set, and why.

    Returns:
        The settings and, where the exact engine had to be taken, the reason ("" otherwise).
    """
    exact = Encoder(EncoderSettings(file, "tokenizers", parse_special, ""), counts_lost=False)
    if wanted == "tokenizers":
        return replace(exact.settings, cut=_find_cut(exact, file, sample)), ""
    reason = _why_not_fast(file, parse_special, exact, [*sample, *ADVERSARIAL])
    if reason:
        return replace(exact.settings, cut=_find_cut(exact, file, sample)), reason
    fast = Encoder(replace(exact.settings, engine="fastokens"), counts_lost=False)
    return replace(fast.settings, cut=_find_cut(fast, file, sample)), ""


def _why_not_fast(file: Path, parse_special: bool, exact: Encoder, texts: Sequence[str]) -> str:
    """What is wrong with fastokens' ids of ``texts``, "" if nothing is."""
    try:
        fast = load_fast(file)
    except Exception as error:
        return f"fastokens can't load this tokenizer ({first_line(error)})"
    ids, offsets = exact.encode(texts)  # in one call, which uses all cores
    for text, (start, stop) in zip(texts, itertools.pairwise(offsets.tolist()), strict=True):
        try:
            own, _ = encode_fast(fast, [text], parse_special)
        except Exception:  # bytes outside the vocabulary: encode() sends such texts to tokenizers
            continue
        if not np.array_equal(own, ids[start:stop]):
            return "fastokens gives other ids than tokenizers on a sample of this text"
    return ""


def _find_cut(encoder: Encoder, file: Path, sample: Sequence[str]) -> str:
    """Whether, and how, texts can be cut without a change of ids: tried out on the sample."""
    spec = _read_spec(file, file.stat().st_mtime_ns)
    if spec.get("truncation"):
        return ""
    # Without a pre-tokenizer a merge may reach over a space, which no sample can rule out: the vocabulary can.
    if not spec.get("pre_tokenizer") and any(re.search("[^▁]▁", token) for token in spec["model"].get("vocab", ())):
        return ""
    probe = [text[:CUT_CHARACTERS] for text in sample] + [CUT_PROBE]
    whole = encoder.encode(probe)[0]
    for way, pattern in CUTS.items():
        parts: list[str] = []
        for text in probe:
            step = 1 if text is CUT_PROBE else 7
            places = [0, *(found.start() for found in list(pattern.finditer(text))[::step]), len(text)]
            ends = itertools.pairwise(places)
            parts += [text[a + (a > 0 and way == "drop-space") : b] for a, b in ends]
        if np.array_equal(whole, encoder.encode(parts)[0]):
            return way
    return ""


@functools.lru_cache(maxsize=1)
def _read_spec(file: Path, modified_ns: int) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def lacks_bytes(file: Path) -> bool:
    """Whether this is a byte-level BPE without a token for every byte, as SmolLM2's: it lacks 21."""
    spec = _read_spec(file, file.stat().st_mtime_ns)
    if spec.get("normalizer") or '"ByteLevel"' not in json.dumps(spec.get("pre_tokenizer")):
        return False
    from tokenizers import pre_tokenizers

    return not set(pre_tokenizers.ByteLevel.alphabet()) <= set(spec["model"].get("vocab", {}))


def byte_names() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself where it can be seen (GPT-2)."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(hidden)) for byte in range(256)]


def token_bytes(file: Path) -> npt.NDArray[np.int64]:
    """The UTF-8 bytes each id stands for, [vocabulary]; specials 0. Exact for byte-level and byte-fallback BPE."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    byte_level = '"ByteLevel"' in file.read_text(encoding="utf-8")
    sizes = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, index in vocabulary.items():
        if index in special:
            continue
        if byte_level:
            sizes[index] = len(token)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            sizes[index] = 1
        else:
            sizes[index] = len(token.replace("▁", " ").encode())
    return sizes
