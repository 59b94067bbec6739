"""Puts a new output in the old one's place; at every moment one of the two is complete."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.ours import (
    FOLDERS,
    check_empty,
    check_replaceable,
    clear_staged,
    is_manifest,
    ours_in,
    published_names,
)
from pretrain_cli.manifest import LISTS, MANIFEST, Manifest, write_manifest
from pretrain_cli.refusals import check_no_links, check_writable, writing_to
from pretrain_cli.storage import Replacement, check_access, clear_replaced, publish_all


class Staging:
    """``data/.new``: the tokenizer, rows and lists of a prepare, complete once its manifest is there.

    Until then the last output stays as it is. If a prepare is killed while it moves folders, the next one finishes the
    move.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts, self.folder = artifacts, artifacts.data / ".new"

    def begin(self) -> None:
        """An empty folder."""
        self.check()
        self.folder.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """Check that a new output may be put where the last one is, and be made ready here.

        Raises:
            UsageError: it can't be written, or something is there that no record says ptk wrote; nothing of it was
                touched.
        """
        check_writable(self.artifacts.root)
        check_no_links(self.folder)
        with writing_to(self.artifacts.root):
            for folder in (self.artifacts.root / name for name in FOLDERS):
                if folder.is_dir() and not folder.is_symlink():
                    check_access(folder)
        clear_staged(self.folder)
        check_empty(self.folder)
        check_replaceable(self.artifacts, (MANIFEST, *LISTS, *FOLDERS))

    def split(self, name: str) -> Path:
        """Where the rows of a split are written."""
        return self.folder / name

    @property
    def rejected(self) -> Path:
        return self.folder / self.artifacts.rejected.name

    @property
    def input_list(self) -> Path:
        return self.folder / self.artifacts.input_list.name

    @property
    def manifest(self) -> Path:
        return self.folder / self.artifacts.manifest.name

    def publish(self, tokenizer: Path, manifest: Manifest) -> None:
        """Copy the tokenizer's folder in, write the manifest, and move everything to its place."""
        (self.folder / "tokenizer").mkdir()
        for file in sorted(tokenizer.iterdir()):  # copytree's own error hides the disk's
            shutil.copyfile(file, self.folder / "tokenizer" / file.name)
        write_manifest(self.manifest, manifest)
        self.finish()

    def finish(self) -> None:
        """Move what is staged, if it is complete; a prepare that was killed may have moved some of it, or all.

        Raises:
            OSError: the system refuses; the last output is in its place again.
            UsageError: something is there that no record says ptk wrote, or a link; nothing was moved.
        """
        check_no_links(self.folder)
        complete = is_manifest(self.manifest)  # the last to leave: without it, nothing else that is here is needed
        if not complete:
            clear_staged(self.folder)
        root, names = self.artifacts.root, published_names(self.artifacts)
        files = [(self.folder / Path(name).name, name) for name in (MANIFEST, *LISTS)]  # first to go and last to come
        folders = [(self.folder / Path(name).name, name) for name in FOLDERS]
        pieces = [
            *(Replacement(staged, root / name) for staged, name in files),
            *(Replacement(staged, root / name, partial(ours_in, name, names)) for staged, name in folders),
        ]
        if complete:
            check_replaceable(self.artifacts, [name for staged, name in (*files, *folders) if staged.exists()])
            publish_all(pieces)
            clear_staged(self.folder)
        for piece in reversed(pieces):
            clear_replaced(piece.final, piece.ours)
