"""Writes what is said in a chat as a model's own template has it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.storage import read_bounded, read_json
from pretrain_cli.tokenizer.rendering import Renderer

TEMPLATE = "chat_template.jinja"
TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
MOST_TEMPLATE_BYTES = 10_000_000
Message = dict[str, str]
"""``role``, "user" or "assistant", and ``content``."""


@dataclass(frozen=True)
class ChatTemplate:
    """A model's template, in Jinja, and the control tokens that it may name."""

    text: str
    tokens: tuple[tuple[str, str], ...]

    def prompts(self, conversations: Iterable[Sequence[Message]]) -> list[str]:
        """The text after which the model answers the last message of each; without BOS, which its tokenizer adds.

        Raises:
            ModelError: the template is damaged, doesn't take these messages, or takes too long.
        """
        bos = dict(self.tokens).get("bos_token") or ""
        renderer = _renderer(self)
        try:
            return [renderer.render(messages).removeprefix(bos) for messages in conversations]
        except BaseException:
            renderer.close()
            _renderer.cache_clear()  # its process may have ended, or may still work on what nobody waits for
            raise


@functools.lru_cache(maxsize=1)  # starting its process takes a second; a conversation asks it turn by turn
def _renderer(template: ChatTemplate) -> Renderer:
    return Renderer(template.text, dict(template.tokens))


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """The template beside the tokenizer in ``folder``; None where there is none.

    Raises:
        ModelError: it can't be read.
        DataError: the tokenizer's config is damaged.
    """
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.is_file() else {}
    file = folder / TEMPLATE
    text = _read(file) if os.path.lexists(file) else _named(settings.get("chat_template"))
    if not text:
        return None
    special = folder / "special_tokens_map.json"
    known = (read_json(special) if special.is_file() else {}) | settings
    tokens = ((name, _content(known.get(name))) for name in TOKENS)
    return ChatTemplate(text, tuple((name, token) for name, token in tokens if token))


def _read(file: Path) -> str:
    try:
        return read_bounded(file, MOST_TEMPLATE_BYTES)
    except UsageError as error:
        raise ModelError(error.message, error.hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The chat template {file} can't be read: {error}.", "Replace the file.") from error


def need_chat_template(folder: Path, name: str) -> ChatTemplate:
    """The template beside the tokenizer of model ``name``.

    Raises:
        ModelError: there is none.
    """
    found = read_chat_template(folder)
    if found is None:
        raise ModelError(
            f"'{name}' has no chat template: it continues texts, and answers nothing.",
            "Leave out --chat, or use a model that was tuned for chat.",
        )
    return found


def _named(template: object) -> str:
    """Older configs may have several, by name."""
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _content(token: object) -> str:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
