"""Offers the stages as functions: prepare, train, evaluate, generate. Each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pretrain_cli.version import __version__

if TYPE_CHECKING:
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.config.load import load_config
    from pretrain_cli.data.prepare import prepare
    from pretrain_cli.errors import PtkError
    from pretrain_cli.evaluation.run import evaluate
    from pretrain_cli.generation.run import generate
    from pretrain_cli.progress import Progress
    from pretrain_cli.training.run import train

__all__ = [
    "Artifacts",
    "Progress",
    "PtkError",
    "__version__",
    "evaluate",
    "generate",
    "load_config",
    "prepare",
    "train",
]

if not TYPE_CHECKING:  # type checkers and editors read the imports above
    _HOMES = {
        "Artifacts": "pretrain_cli.artifacts",
        "Progress": "pretrain_cli.progress",
        "PtkError": "pretrain_cli.errors",
        "evaluate": "pretrain_cli.evaluation.run",
        "generate": "pretrain_cli.generation.run",
        "load_config": "pretrain_cli.config.load",
        "prepare": "pretrain_cli.data.prepare",
        "train": "pretrain_cli.training.run",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__():
        return sorted(__all__)
