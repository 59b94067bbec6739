"""Trains a byte-level BPE tokenizer on the user's text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pretrain_cli.interruptible import interruptible
from pretrain_cli.storage import write_json
from pretrain_cli.tokenizer.long_words import LONGEST_WORD, SPLIT, may_hold_long_word, split_long

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SPECIAL_TOKENS = (BOS, EOS, PAD)
LONG_CHARACTERS = 1 << 20
"""Characters of texts with long words that are trained on whole: pieces of such words hardly ever repeat, so that each
costs as much as a new word does: 4 s for a million characters of Chinese."""
_RUN = re.compile(r"[^\W\d_]+|(?:[^\w\s]|_)+|\s+")


def choose_vocab_size(corpus_bytes: int) -> int:
    """Vocabulary for a text of this many bytes: a power of two from 512 to 16,384.

    Measured on presidents' addresses (10.8 MB), 2,048 and 8,192 entries stay within 0.03 bits per byte of 4,096, so
    only the order of magnitude matters. A small text can't fill a large table, and a large text would waste context
    with a small one.
    """
    for limit, size in ((50_000, 512), (200_000, 1024), (2_000_000, 2048), (50_000_000, 4096), (1_000_000_000, 8192)):
        if corpus_bytes < limit:
            return size
    return 16_384


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path, more: Sequence[str] = ()) -> None:
    """Train a byte-level BPE of at most ``vocab_size`` entries (Sennrich et al. 2016, arXiv 1508.07909) and save it.

    Lossless: all 256 bytes are entries, nothing is normalized, no space is added to the front. Entries 0, 1 and 2 are
    BOS, EOS and padding; ``more`` control tokens follow. A word of more than ``LONGEST_WORD`` characters is split by
    every reader of the file.
    The folder opens with ``AutoTokenizer.from_pretrained``.
    """
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    pieces = pre_tokenizers.Split(Regex(split_long(LONGEST_WORD)), "isolated")
    # Splitting long words takes a third of the training's time again, so it is done for texts that hold any.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (*SPECIAL_TOKENS, *more)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    interruptible(
        lambda: tokenizer.train_from_iterator(
            _without_long_words(texts, pre_tokenizers.Sequence([words, pieces])), trainer
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pieces, byte_level])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        },
    )
    write_json(folder / "special_tokens_map.json", {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})


def _without_long_words(texts: Iterable[str], split: pre_tokenizers.PreTokenizer) -> Iterator[str]:
    """The texts; those with long words in pieces, after ``LONG_CHARACTERS`` only the beginning of each long word."""
    left = LONG_CHARACTERS
    for text in texts:
        if not may_hold_long_word(text, LONGEST_WORD):
            yield text
        elif left > 0:
            left -= len(text)
            yield from (piece for piece, _ in split.pre_tokenize_str(text))
        else:
            yield _RUN.sub(lambda run: run[0][:LONGEST_WORD], text)
