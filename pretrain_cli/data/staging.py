"""Puts a new output in the old one's place; at every moment one of the two is complete."""

from __future__ import annotations

import shutil
from pathlib import Path

from pretrain_cli.artifacts import ROW_FILES, TOKENIZER_FILES, Artifacts
from pretrain_cli.manifest import Manifest, write_manifest
from pretrain_cli.storage import Replacement, publish_all


class Staging:
    """``data/.new``: the tokenizer, rows and lists of a prepare, complete once its manifest is there.

    Until then the last output stays as it is. If a prepare is killed while it moves folders, the next one finishes the
    move.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts, self.folder = artifacts, artifacts.data / ".new"

    def begin(self) -> None:
        """An empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def split(self, name: str) -> Path:
        """Where the rows of a split are written."""
        return self.folder / name

    @property
    def rejected(self) -> Path:
        return self.folder / self.artifacts.rejected.name

    @property
    def manifest(self) -> Path:
        return self.folder / self.artifacts.manifest.name

    def publish(self, tokenizer: Path, manifest: Manifest) -> None:
        """Copy the tokenizer's folder in, write the manifest, and move everything to its place."""
        shutil.copytree(tokenizer, self.folder / "tokenizer")
        write_manifest(self.manifest, manifest)
        self.finish()

    def finish(self) -> None:
        """Move what is staged, if it is complete; a prepare that was killed may have moved some of it, or all.

        Raises:
            OSError: the system refuses; the last output is in its place again.
        """
        if not self.manifest.is_file():  # the last to leave: nothing else that is here is needed
            shutil.rmtree(self.folder, ignore_errors=True)
        pieces = [
            Replacement(self.manifest, self.artifacts.manifest),  # first to go and last to come
            Replacement(self.rejected, self.artifacts.rejected),
            Replacement(self.folder / "tokenizer", self.artifacts.tokenizer, TOKENIZER_FILES),
            Replacement(self.split("train"), self.artifacts.train_rows, ROW_FILES),
            Replacement(self.split("validation"), self.artifacts.validation_rows, ROW_FILES),
        ]
        publish_all(pieces)
        shutil.rmtree(self.folder, ignore_errors=True)
