"""Trains a byte-level BPE tokenizer on the user's text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pretrain_cli.storage import write_json

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SPECIAL_TOKENS = (BOS, EOS, PAD)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Splits text before merging, as Qwen2 does. Single digits keep numbers from filling a small vocabulary.

Digits() before ByteLevel() would do nearly the same, but fastokens is fast for this pattern only: 200 MB/s on
one core, against 13 MB/s.
"""


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


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE of at most ``vocab_size`` entries (Sennrich et al. 2016, arXiv 1508.07909) and save it.

    Lossless: all 256 bytes are entries, nothing is normalized, no space is added to the front. Entries 0, 1 and 2 are
    BOS, EOS and padding. The folder opens with ``AutoTokenizer.from_pretrained``.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _interruptible(lambda: tokenizer.train_from_iterator(texts, trainer))
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


def _interruptible(work: Callable[[], object]) -> None:
    """Do ``work`` in a thread that dies with the process, so that Ctrl-C works: one call of `tokenizers` takes seconds,
    and the interpreter handles signals only between calls."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # raised again where it is waited for
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
    if failures:
        raise failures[0]
