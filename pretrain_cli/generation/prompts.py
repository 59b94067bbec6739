"""Turns a prompt into ids that fit a model's context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import exact

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretrain_cli.tokenizer.load import TokenizerInfo


def encode_prompt(prompt: str, tokenizer: Tokenizer, info: TokenizerInfo) -> list[int]:
    """The ids the model continues: as its tokenizer makes them, after BOS where documents begin with one.

    An empty prompt is BOS alone, or EOS where there is no BOS: what comes before a new document.

    Raises:
        UsageError: the prompt isn't valid Unicode.
    """
    check_prompt(prompt)
    ids: list[int] = tokenizer.encode(prompt).ids
    # A tokenizer that closes each text with EOS would end the story before it begins.
    if len(ids) > 1 and info.eos_id is not None and ids[-1] == info.eos_id and not prompt.endswith("|>"):
        ids = ids[:-1]
    if info.adds_bos and info.bos_id is not None and ids[:1] != [info.bos_id]:
        ids = [info.bos_id, *ids]
    return ids or [info.first_id]


def check_prompt(prompt: str) -> None:
    """Raise UsageError if ``prompt`` isn't valid Unicode."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The prompt isn't valid Unicode: a lone surrogate at character {error.start}.",
            "Check the encoding of the terminal or file that it came from.",
        ) from error


def fit_prompt(ids: list[int], context: int, max_tokens: int, bos_id: int | None = None) -> tuple[list[int], str]:
    """``ids`` cut from the left so that something can be written within ``context``, and a warning or "".

    A BOS at the beginning stays there: the model never saw a text without it.
    """
    room = min(max_tokens, max(1, context // 2))
    keep = max(1, context - room)
    if len(ids) <= keep:
        return ids, ""
    front = ids[:1] if keep > 1 and ids[0] == bos_id else []
    return [*front, *ids[len(ids) - keep + len(front) :]], cut_warning(len(ids), context, len(ids) - keep)


def cut_warning(tokens: int, context: int, left_out: int) -> str:
    """What is said about a prompt that had to be cut."""
    return (
        f"The prompt has {exact(tokens)} tokens and the context is {exact(context)}: "
        f"the first {exact(left_out)} were left out."
    )
