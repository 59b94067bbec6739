"""Makes tokenizers of two kinds, and reads back what prepare wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import PrepareResult
from pretrain_cli.data.rows.unpacking import iterate_documents
from pretrain_cli.manifest import read_manifest

PROSE = "Call me Ishmael. Some years ago - never mind how long precisely - having little or no money in my purse, "
Preparing = Callable[..., tuple[PrepareResult, Artifacts]]


def train_byte_level(folder: Path) -> Path:
    """A byte-level BPE of 400 entries with <|bos|>, <|eos|> and <|pad|>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|bos|>", "<|eos|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROSE] * 5, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def train_sentencepiece_style(folder: Path) -> Path:
    """A BPE with `▁` for a space and byte fallback, the shape of Llama 2's, with <unk>, <s> and </s>."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {
        token: index
        for index, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, "▁", *"abcdefgh", "▁a", "▁b", "ab"])
    }
    merges = [("▁", "a"), ("▁", "b"), ("a", "b")]
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def small_config(text: Path, length: int = 32) -> Config:
    """Prepares a text in the shortest time: a small vocabulary, and one process."""
    settings: dict[str, Any] = {
        "data__inputs": (str(text),),
        "data__sequence_length": length,
        "data__workers": 1,
        "tokenizer__vocab_size": 300,
        "tokenizer__engine": "tokenizers",
    }
    return changed(Config(), **settings)


def everything(folder: Path) -> dict[str, bytes]:
    """Path in ``folder`` → content, of every file in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_jsonl(path: Path, documents: list[str]) -> Path:
    """A file with a record for each document."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


def check_ledger(artifacts: Artifacts) -> None:
    ledger = read_manifest(artifacts).ledger
    documents, size, tokens = ledger.documents, ledger.bytes, ledger.tokens
    assert documents.read == documents.kept + sum(documents.dropped.values())
    assert size.read == size.kept + sum(size.dropped.values()) + size.changed_by_cleaning
    assert tokens.made == tokens.train + tokens.validation + sum(tokens.dropped.values())
    assert tokens.made == tokens.encoded + tokens.marks + tokens.repeated + tokens.rearranged


def texts(artifacts: Artifacts, split: Path | None = None) -> list[str]:
    """The documents of one split, or of train then validation, decoded; BOS and EOS checked and left out."""
    tokenizer = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    found = []
    for folder in [split] if split else [artifacts.train_rows, artifacts.validation_rows]:
        for document in iterate_documents(folder):
            ids = document.ids.tolist()
            assert ids[0] in (0, 1) and ids[-1] in (1, 2), "no BOS or EOS"
            found.append(tokenizer.decode(ids[1:-1], skip_special_tokens=False))
    return found


def row_bytes(artifacts: Artifacts) -> dict[str, bytes]:
    """Every file of the rows, by name."""
    return {
        str(path.relative_to(artifacts.data)): path.read_bytes()
        for folder in (artifacts.train_rows, artifacts.validation_rows)
        for path in sorted(folder.iterdir())
    }
