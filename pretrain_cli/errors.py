"""The errors a user can meet: each says what happened, what to do, and how the process ends."""

from __future__ import annotations


class PtkError(Exception):
    """A failure that the user can act on.

    Attributes:
        message: what went wrong and where, one sentence.
        hint: what to do about it, one sentence; may be empty.
        exit_code: the process's exit status. 0 done, 1 a bug, 2 usage or config, 3 data, 4 model or
            checkpoint, 5 training diverged, 6 an optional dependency is missing, 130 Ctrl-C.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

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


class DivergedError(PtkError):
    """Training that left the range of finite, falling losses: exit code 5."""

    exit_code = 5
    kind = "diverged"


class MissingDependencyError(PtkError):
    """An optional package that the request needs isn't installed: exit code 6."""

    exit_code = 6
    kind = "dependency"


class Interrupted(PtkError):
    """The user, or a scheduler, asked to stop: exit code 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""

    exit_code = 130
    kind = "interrupted"

    def __init__(self, message: str, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[PtkError], tuple[str, str, int]]:  # type: ignore[override]
        return type(self), (self.message, self.hint, self.exit_code)
