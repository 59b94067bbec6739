"""Defines the errors that a user can meet: what happened, what to do, and the exit status of the process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pretrain_cli.addresses import redact

EXIT_CODES = {
    0: "done",
    1: "a bug in ptk",
    2: "usage or config",
    3: "data",
    4: "model or checkpoint",
    5: "training diverged",
    6: "an optional dependency is missing",
    130: "Ctrl-C (143: SIGTERM, 138: SIGUSR1, 129: the terminal was closed)",
}

ASKED_FOR = (129, 130, 138, 143)
"""Exit codes of SIGHUP, Ctrl-C, SIGUSR1 and SIGTERM."""


class PtkError(Exception):
    """A failure that the user can act on.

    Attributes:
        message: what went wrong and where, in one sentence.
        hint: what to do about it, in one sentence; may be empty.
        exit_code: the exit status of the process, one of `EXIT_CODES`.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = redact(message), redact(hint)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type[PtkError], tuple[str, str]]:
        # Worker processes send their errors back pickled; the default would lose the hint.
        return type(self), (self.message, self.hint)


class UsageError(PtkError):
    """A command used in a way that can't work: exit code 2."""

    exit_code = 2
    kind = "usage"


class ConfigError(UsageError):
    """A config key or value that isn't valid: exit code 2."""

    kind = "config"


class DataError(PtkError):
    """Input text or prepared data that can't be used: exit code 3."""

    exit_code = 3
    kind = "data"


class ModelError(PtkError):
    """A model, base or checkpoint that can't be used: exit code 4."""

    exit_code = 4
    kind = "model"


class OutOfMemoryError(PtkError):
    """A model and batch that don't fit the memory: exit code 4."""

    exit_code = 4
    kind = "memory"


class DivergedError(PtkError):
    """Training whose loss exploded or stopped being finite: exit code 5."""

    exit_code = 5
    kind = "diverged"


class MissingDependencyError(PtkError):
    """An optional package that is needed but not installed: exit code 6."""

    exit_code = 6
    kind = "dependency"


class Interrupted(PtkError):
    """The user, or a scheduler, asked to stop: exit code 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""

    exit_code = 130
    kind = "interrupted"

    def __init__(self, message: str, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code

    @property
    def asked_for(self) -> bool:
        """Whether a person or a scheduler said so; a process that was killed is an error."""
        return self.exit_code in ASKED_FOR

    def __reduce__(self) -> tuple[type[PtkError], tuple[str, str, int]]:  # type: ignore[override]
        return type(self), (self.message, self.hint, self.exit_code)


def first_line(error: BaseException) -> str:
    """What another library's exception says, in one line without a full stop; its type where it says nothing."""
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # pydantic's first line tells nothing
        wrong = error.errors()[0]
        return f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}".removeprefix(": ")
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def panic_of(error: BaseException) -> DataError | None:
    """What to say of a panic in a tokenizer's Rust code, which is no `Exception`; None for any other error."""
    if type(error).__name__ != "PanicException":
        return None
    return DataError(
        f"The tokenizer can't work on this text: {first_line(error)}.",
        "A pattern in its tokenizer.json is damaged or takes too long: use another tokenizer.",
    )


@contextlib.contextmanager
def panics_told() -> Iterator[None]:
    """Turn what a tokenizer's Rust code raises into a `DataError`: a panic, which is no `Exception` and can't be
    pickled, or a bare `Exception`, as of a tokenizer that has no entry for a word."""
    try:
        yield
    except BaseException as error:
        if (told := panic_of(error)) is None and type(error) is not Exception:
            raise
        raise told or DataError(
            f"The tokenizer can't work on this text: {first_line(error)}.", "Use another tokenizer."
        ) from None
