"""Keeps what is made once of a base under ``artifacts.bases``, and makes it again if it is no longer as it was made."""

from __future__ import annotations

from pathlib import Path

from pretrain_cli.errors import ModelError
from pretrain_cli.published import check_published, record_model
from pretrain_cli.storage import publish_folder


def is_kept(folder: Path, file: str) -> bool:
    """Whether ``folder`` holds ``file``, and every file as it was made; 0.1.0 recorded none."""
    if not (folder / file).is_file():
        return False
    try:
        check_published(folder, tensors=True)
    except ModelError:
        return False
    return True


def keep(staging: Path, folder: Path) -> None:
    """Record the files of ``staging``, and give it its name; it replaces what is damaged there."""
    record_model(staging)
    publish_folder(staging, folder)
