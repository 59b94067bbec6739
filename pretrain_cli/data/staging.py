"""Puts a new output in the old one's place; at every moment one of the two is complete."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pretrain_cli.artifacts import ROW_FILES, TOKENIZER_FILES, Artifacts
from pretrain_cli.manifest import Manifest, write_manifest
from pretrain_cli.storage import publish_folder, sync_folder


class Staging:
    """``data/.new``: the tokenizer, rows and lists of a prepare, complete once its manifest is there.

    Until then the last output stands untouched. A prepare killed while it moves the pieces is finished by the next.
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
        """Take ``tokenizer`` in, write the manifest, and move all to their places."""
        shutil.copytree(tokenizer, self.folder / "tokenizer")
        write_manifest(self.manifest, manifest)
        self.finish()

    def finish(self) -> None:
        """Move what is staged, if it is complete; each step may have been done by a prepare that was killed."""
        if not self.manifest.is_file():
            return
        places: list[tuple[Path, tuple[str, ...]]] = [(self.artifacts.tokenizer, TOKENIZER_FILES)]
        places += [(folder, ROW_FILES) for folder in (self.artifacts.train_rows, self.artifacts.validation_rows)]
        for place, ours in places:
            if (self.folder / place.name).is_dir():
                self.artifacts.manifest.unlink(missing_ok=True)
                publish_folder(self.folder / place.name, place, ours)
        if self.rejected.is_file():
            os.replace(self.rejected, self.artifacts.rejected)
        os.replace(self.manifest, self.artifacts.manifest)
        sync_folder(self.artifacts.data)
        shutil.rmtree(self.folder, ignore_errors=True)
