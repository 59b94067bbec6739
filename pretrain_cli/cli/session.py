"""Opens what a command works with: the merged config, the artifact folder, the console."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.console import Console
from pretrain_cli.cli.shared_folder import find_artifacts
from pretrain_cli.config.load import Resolved, changed, load_config
from pretrain_cli.config.model import Config
from pretrain_cli.progress import Progress
from pretrain_cli.quiet import quiet_environment, quiet_import
from pretrain_cli.refusals import check_decodable


@dataclass(frozen=True)
class Session:
    """What a command works with: the merged config, the artifact folder, the console, and the line that was typed."""

    resolved: Resolved
    artifacts: Artifacts
    console: Console
    command: tuple[str, ...]

    @property
    def config(self) -> Config:
        return self.resolved.config

    def chose(self, key: str) -> bool:
        """Whether a layer above the defaults set ``key``."""
        return self.resolved.origins.get(key, "default") != "default"

    def with_config(self, **values: Any) -> Session:
        """A session with other config values: ``session.with_config(model__base="smollm2")``."""
        return replace(self, resolved=replace(self.resolved, config=changed(self.config, **values)))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Draws the stages of this command; the terminal is left as it was, however the body ends."""
        from pretrain_cli.cli.progress import LiveProgress, make_progress

        progress = make_progress(self.console, every_line=self.chose("train.logging_steps"))
        try:
            yield progress
        finally:
            if isinstance(progress, LiveProgress):
                progress.close()


@contextlib.contextmanager
def loading(progress: Progress) -> Iterator[None]:
    """Say while torch and transformers are imported what the command waits for: that takes seconds."""
    progress.stage("loading the libraries")
    with quiet_import():
        yield
    progress.end_stage()


def open_session(
    console: Console,
    artifacts: Path,
    config: Path | None = None,
    preset: str | None = None,
    assignments: Sequence[str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Session:
    """Merge the config's layers and keep the libraries quiet.

    Args:
        console: the command's output.
        artifacts: ``--artifacts``.
        config: ``--config``.
        preset: ``--preset``.
        assignments: each ``--set``.
        flags: dotted key → value; None for a flag that wasn't given.

    Raises:
        ConfigError: a layer is wrong.
    """
    check_decodable(artifacts, "Rename the folder, or choose another one with --artifacts DIR.")
    resolved = load_config(file=config, preset=preset, assignments=assignments or (), flags=flags)
    quiet_environment(console.debug)
    for note in resolved.notes:
        console.warn(note, even_quiet=True)
    return Session(resolved, find_artifacts(artifacts), console, ("ptk", *sys.argv[1:]))
