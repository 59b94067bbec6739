"""Chooses the engine that encodes: the fastest one that gives the ids of `tokenizers`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pretrain_cli.config.model import Config
from pretrain_cli.data.encoding.encoder import CUTS, Encoder, EncoderSettings
from pretrain_cli.data.encoding.fast_engine import load_fast
from pretrain_cli.data.encoding.vocabulary_bytes import entries_of, read_spec
from pretrain_cli.data.reading.documents import texts_of
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.read import read_all
from pretrain_cli.errors import first_line
from pretrain_cli.tokenizer.bounds import misnumbered
from pretrain_cli.tokenizer.load import shared_tokenizer

CHECKED_FILES = 8
CHECK_CHARACTERS = 1 << 18
CHECK_BYTES = 1 << 17
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


def choose_encoder(file: Path, wanted: str, parse_special: bool, sample: Sequence[str]) -> tuple[EncoderSettings, str]:
    """The fastest engine that gives the ids of ``tokenizers`` on ``sample`` and the adversarial set.

    Args:
        file: the tokenizer.json.
        wanted: an engine's name, or "auto".
        parse_special: read control tokens written in a text as control tokens.
        sample: texts of the input.

    Returns:
        The settings and, if the exact engine had to be taken, the reason ("" otherwise).
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
    if told := misnumbered(shared_tokenizer(file), read_spec(file)):
        return f"the added token {told}"
    try:
        fast = load_fast(file)
    except Exception as error:
        return f"fastokens can't load this tokenizer ({first_line(error)})"
    ids, offsets = exact.encode(texts)  # in one call, which uses all cores
    for text, (start, stop) in zip(texts, itertools.pairwise(offsets.tolist()), strict=True):
        try:
            own, _ = fast.encode([text], parse_special)
        except Exception:  # bytes outside the vocabulary: encode() sends such texts to tokenizers
            continue
        if not np.array_equal(own, ids[start:stop]):
            return "fastokens and tokenizers give different ids on a sample of this text"
    return ""


def _find_cut(encoder: Encoder, file: Path, sample: Sequence[str]) -> str:
    """Where texts can be cut without a change of ids (see `EncoderSettings.cut`), tried on the sample."""
    spec = read_spec(file)
    if spec.get("truncation"):
        return ""
    # Without a pre-tokenizer a merge may span a space. No sample can rule that out, but the vocabulary can.
    if not spec.get("pre_tokenizer") and any(re.search("[^▁]▁", token) for token in entries_of(spec)):
        return ""
    probe = [text[:CUT_CHARACTERS] for text in sample] + [CUT_PROBE]
    uncut = encoder.encode(probe)[0]
    for cut, pattern in CUTS.items():
        pieces: list[str] = []
        for text in probe:
            step = 1 if text is CUT_PROBE else 7
            places = [0, *(found.start() for found in list(pattern.finditer(text))[::step]), len(text)]
            ends = itertools.pairwise(places)
            pieces += [text[a + (a > 0 and cut == "drop-space") : b] for a, b in ends]
        if np.array_equal(uncut, encoder.encode(pieces)[0]):
            return cut
    return ""


def check_sample(files: FileTable, config: Config) -> list[str]:
    """The beginnings of up to eight files spread over the input: what the fast engine is checked on."""
    chosen = files[:: max(1, len(files) // CHECKED_FILES)][:CHECKED_FILES]
    sample: list[str] = []
    for file in chosen:
        used = 0
        for record in read_all(file, config.data, strict=False):
            for text in texts_of(record):
                sample.append(text[:CHECK_CHARACTERS])
                used += len(sample[-1])
                if used > CHECK_BYTES // len(chosen):
                    break
            if used > CHECK_BYTES // len(chosen):
                break
    return sample
