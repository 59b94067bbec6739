"""Offers prepare, train, evaluate, generate and export to scripts and notebooks, each imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pretrain_cli.version import __version__

if TYPE_CHECKING:
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.config.load import load_config
    from pretrain_cli.errors import PtkError
    from pretrain_cli.progress import Progress
    from pretrain_cli.python.calls import all_runs, evaluate, export, generate, prepare, train

__all__ = [
    "Artifacts",
    "Progress",
    "PtkError",
    "__version__",
    "all_runs",
    "evaluate",
    "export",
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
        "load_config": "pretrain_cli.config.load",
        **dict.fromkeys(
            ("all_runs", "evaluate", "export", "generate", "prepare", "train"), "pretrain_cli.python.calls"
        ),
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__():
        return sorted(__all__)
