"""Turns a prompt into ids that fit a model's context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_cli.errors import UsageError, panics_told
from pretrain_cli.formatting import exact
from pretrain_cli.tokenizer.middles import encode_part, need_middle_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretrain_cli.config.model import GenerateConfig
    from pretrain_cli.tokenizer.load import TokenizerInfo


def encode_prompt(prompt: str, tokenizer: Tokenizer, info: TokenizerInfo) -> list[int]:
    """The ids the model continues: as its tokenizer makes them, after BOS where documents begin with one.

    An empty prompt is BOS alone, or EOS where there is no BOS: what comes before a new document.

    Raises:
        UsageError: the prompt isn't valid Unicode.
    """
    check_prompt(prompt)
    with panics_told():
        ids: list[int] = tokenizer.encode(prompt).ids
    # A tokenizer that closes each text with EOS would end the story before it begins.
    if len(ids) > 1 and info.eos_id is not None and ids[-1] == info.eos_id and not prompt.endswith("|>"):
        ids = ids[:-1]
    if info.adds_bos and info.bos_id is not None and ids[:1] != [info.bos_id]:
        ids = [info.bos_id, *ids]
    return ids or [info.first_id]


def prompt_ids(
    prompt: str, config: GenerateConfig, tokenizer: Tokenizer, info: TokenizerInfo, context: int, name: str
) -> tuple[list[int], str]:
    """The ids that the model ``name`` continues, cut to fit its context, and a warning or "".

    With ``config.suffix`` they are ``prompt``, suffix and the token after which the middle is written.

    Raises:
        UsageError: the prompt isn't valid Unicode, or the model has no control tokens for a middle.
    """
    if not config.suffix:
        return fit_prompt(encode_prompt(prompt, tokenizer, info), context, config.max_tokens, info.bos_id)
    check_prompt(prompt + config.suffix)
    tokens = need_middle_tokens(tokenizer, name)
    bos = [info.bos_id] if info.adds_bos and info.bos_id is not None else []
    with panics_told():
        before = tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else []
    after = encode_part(config.suffix, tokenizer, tokens)
    keep = max(2, context - min(config.max_tokens, max(1, context // 2)) - len(bos) - 3)
    left = max(keep - len(after), keep // 2)  # half of the room for each, and what the other leaves of it
    right = keep - min(left, len(before))
    cut = max(0, len(before) - left) + max(0, len(after) - right)
    warning = f"The text around the middle is too long for the context of {exact(context)}: its ends were left out."
    ids = tokens.arranged(before[max(0, len(before) - left) :], [], after[:right], suffix_first=False)
    return [*bos, *ids], warning if cut else ""


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
