"""What a stage tells its caller while it works; the command line draws it, a script may ignore it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping


class Progress:
    """Receives what a front door reports. This base class is silent: a caller overrides what it shows.

    One stage is active at a time. Numbers in ``facts`` are plain (tokens_per_second=812.0); the receiver
    formats them.
    """

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        """A new stage begins ("reading", "training", ...); ``total`` in ``unit``s where it is known.

        ``unit`` is "bytes", "steps", "seconds", "tokens", "rows" or "".
        """

    def advance(self, completed: float, **facts: float | str) -> None:
        """The active stage has done ``completed`` of its total; ``facts`` stand beside the bar."""

    def end_stage(self) -> None:
        """The active stage is done."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One logged training step: the same values as the line in metrics.jsonl."""

    def note(self, text: str) -> None:
        """Something worth one line: a choice and its reason."""

    def warn(self, text: str) -> None:
        """Something the user should know and may want to act on."""

    def status(self, name: str, text: str, said: bool = False) -> None:
        """A lasting state shown beside the bars, such as ("wandb", "online"); empty: no longer.

        ``said``: a note tells it in words, or a log needn't have it.
        """

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show ``what`` beside the bars for as long as the block takes: it holds up the stage."""
        self.status("now", what, said=True)
        try:
            yield
        finally:
            self.status("now", "", said=True)

    def sample(self, prompt: str, text: str, step: int) -> None:
        """Text the model wrote during training."""


SILENT = Progress()
