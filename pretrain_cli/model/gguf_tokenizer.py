"""Writes a tokenizer.json into a .gguf file, so that llama.cpp makes the same ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_cli.errors import ModelError
from pretrain_cli.model.files import check_vocabulary
from pretrain_cli.storage import read_json
from pretrain_cli.tokenizer.load import TokenizerInfo, read_tokenizer
from pretrain_cli.tokenizer.long_words import SPLIT, longest_word

SPLITTINGS = {SPLIT: "qwen2", SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"): "llama-bpe"}
"""Pattern of a tokenizer's Split -> GGUF's name of it."""

SPACE = "▁"
"""A space in SentencePiece's vocabularies."""

ELSEWHERE = "Export with --to hf, and convert with llama.cpp."


def write_tokenizer(writer: Any, gguf: Any, folder: Path, rows: int) -> None:
    """Add the tokenizer in ``folder`` to a GGUFWriter, with its vocabulary filled up to the embedding's ``rows``.

    Raises:
        ModelError: llama.cpp can't split text as it does, or it has more entries than ``rows``.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    info = read_tokenizer(folder)
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise ModelError(f"A tokenizer of type {model.get('type')} can't be written as GGUF.", ELSEWHERE)
    check_vocabulary(info.vocab_size, rows, str(folder))
    tokens, types = _entries(tokenizer, gguf, rows, model.get("unk_token"))
    merges = [merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        _write_sentencepiece(writer, tokenizer, tokens, merges)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_splitting(tokenizer))
        writer.add_token_list(tokens)
        writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_token_types(types)
    _write_specials(writer, info, model)


def _entries(tokenizer: dict[str, Any], gguf: Any, rows: int, unknown: str | None) -> tuple[list[str], list[int]]:
    """Text and kind of each row of the embedding; rows that the tokenizer doesn't use are filled with names."""
    kinds = gguf.TokenType
    tokens, types = [f"[PAD{index}]" for index in range(rows)], [int(kinds.UNUSED)] * rows
    for text, index in tokenizer["model"]["vocab"].items():
        is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        tokens[index], types[index] = text, int(kinds.BYTE if is_byte else kinds.NORMAL)
    for added in tokenizer.get("added_tokens", []):
        kind = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    if unknown in tokens:
        types[tokens.index(unknown)] = int(kinds.UNKNOWN)
    return tokens, types


def _write_sentencepiece(writer: Any, tokenizer: dict[str, Any], tokens: list[str], merges: list[list[str]]) -> None:
    """BPE with bytes for unknown text, as in Llama 2; llama.cpp first merges the pair with the best score.

    Raises:
        ModelError: text is split before it is merged.
    """
    pre = tokenizer.get("pre_tokenizer") or {}
    steps = (tokenizer.get("normalizer") or {}).get("normalizers", [tokenizer.get("normalizer") or {}])
    marks_spaces = any(step.get("content") == SPACE for step in steps if step.get("type") == "Replace")
    if pre.get("type") != "Metaspace" and (pre or not marks_spaces):
        raise ModelError("The tokenizer splits text in a way that has no name in GGUF files.", ELSEWHERE)
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    prepends = any(step.get("type") == "Prepend" for step in steps) or pre.get("prepend_scheme", "never") != "never"
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(-rank.get(token, len(merges))) for token in tokens])
    writer.add_add_space_prefix(prepends)


def _write_specials(writer: Any, info: TokenizerInfo, model: dict[str, Any]) -> None:
    if info.bos_id is not None:
        writer.add_bos_token_id(info.bos_id)
    if info.eos_id is not None:
        writer.add_eos_token_id(info.eos_id)
    unknown = model["vocab"].get(model.get("unk_token"))
    if unknown is not None:
        writer.add_unk_token_id(unknown)
    writer.add_add_bos_token(info.adds_bos)
    writer.add_add_eos_token(False)


def _splitting(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer splits text before merging; with a wrong one, prompts get other ids.

    Raises:
        ModelError: no such name is known here.
    """
    pre = tokenizer.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    kinds = [step.get("type") for step in steps]
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if longest_word(tokenizer):  # llama.cpp merges words of any length, so the ids of longer ones differ
        kinds = ["Split", "ByteLevel"]
    if kinds == ["Split", "ByteLevel"] and patterns[0] in SPLITTINGS:
        return SPLITTINGS[patterns[0]]
    raise ModelError("The tokenizer splits text in a way that has no name in GGUF files.", ELSEWHERE)
