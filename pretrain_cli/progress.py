"""Receives what a stage reports while it works: the command line shows it, a script may ignore it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping


class Progress:
    """Receives what a stage reports. This base class is silent; a subclass overrides what it shows.

    One stage is active at a time. Numbers in ``facts`` are plain (tokens_per_second=812.0); the receiver
    formats them.
    """

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        """A stage starts, such as "reading" or "training"; ``total`` in ``unit``, if it is known.

        ``unit`` is "bytes", "steps", "seconds", "tokens", "rows" or "".
        """

    def advance(self, completed: float, **facts: float | str) -> None:
        """The active stage has completed this much of its total; ``facts`` are shown next to the bar."""

    def end_stage(self) -> None:
        """The active stage is done."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A training step was logged, with the same values as in metrics.jsonl."""

    def note(self, text: str) -> None:
        """Something worth one line, such as a choice and its reason."""

    def warn(self, text: str) -> None:
        """Something the user should know and may want to act on."""

    def status(self, name: str, text: str, said: bool = False) -> None:
        """A lasting state, shown next to the bars, such as ("wandb", "online"); empty text removes it.

        ``said``: a note has already said it, or a log doesn't need it.
        """

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show ``what`` next to the bars while the block runs and the stage waits for it."""
        self.status("now", what, said=True)
        try:
            yield
        finally:
            self.status("now", "", said=True)

    def sample(self, prompt: str, text: str, step: int) -> None:
        """The model wrote this text during training."""


SILENT = Progress()
