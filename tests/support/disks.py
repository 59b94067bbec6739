"""Mounts small disks, fills them and frees them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*arguments: str) -> bool:
    return (
        shutil.which("mount") is not None and not subprocess.run(["mount", *arguments], capture_output=True).returncode
    )


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own on ``folder``; skips the test where that isn't permitted."""
    folder.mkdir(exist_ok=True)
    if not mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)):
        pytest.skip("mounting a small disk isn't permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take every free byte."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            while True:
                try:
                    if not file.write(b"x" * size):
                        break
                except OSError:
                    break


def free(folder: Path) -> None:
    (folder / "filler").unlink()
