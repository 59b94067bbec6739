"""Writes text turn by turn: the model continues everything that was typed and written before."""

from __future__ import annotations

import time
from collections.abc import Callable

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.generation.opening import open_model
from pretrain_cli.generation.prompts import check_prompt
from pretrain_cli.generation.results import GeneratedText
from pretrain_cli.model.names import find_model, open_folders
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.tokenizer.chat import Message, need_chat_template


class Conversation:
    """A model in memory and the text so far. Turn i draws with seed + i.

    Raises:
        ModelError: the model isn't there, or is damaged.
    """

    def __init__(
        self,
        config: Config,
        artifacts: Artifacts,
        progress: Progress = SILENT,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
    ) -> None:
        self.config = config.generate.model_copy(update={"samples": 1})
        self.progress = progress
        named = find_model(model, artifacts, checkpoint)
        self.template = None
        if self.config.chat:
            self.template = need_chat_template(open_folders(named, artifacts)[1], named.name)
        self.writer = open_model(named, self.config, artifacts, progress)
        self.text = ""
        self.messages: list[Message] = []
        self.turns = 0

    def say(self, typed: str, on_text: Callable[[str], None] | None = None) -> GeneratedText:
        """Add what was typed and continue from there; where the writing is interrupted, what was shown is kept.

        Raises:
            UsageError: ``typed`` isn't valid Unicode.
        """
        check_prompt(typed)
        if self.template is not None:
            self.messages += [{"role": "user", "content": typed}, {"role": "assistant", "content": ""}]
            (prompt,) = self.template.prompts([self.messages[:-1]])
        else:
            prompt = self.text + typed
        self.text = prompt

        def add(_: int, piece: str) -> None:
            self.text += piece
            if self.messages:
                self.messages[-1]["content"] += piece
            if on_text is not None:
                on_text(piece)

        config = self.config.model_copy(update={"seed": self.config.seed + self.turns})
        self.turns += 1
        return self.writer.write([prompt], config, self.progress.warn, add, time.perf_counter())[0]

    def forget(self) -> None:
        """Begin a new text."""
        self.text, self.messages, self.turns = "", [], 0
