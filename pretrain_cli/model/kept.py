"""Keeps what is made once of a base under ``artifacts.bases``, and makes it again if it is no longer as it was made."""

from __future__ import annotations

from pathlib import Path

from pretrain_cli.errors import ModelError
from pretrain_cli.published import check_published, record_model
from pretrain_cli.refusals import check_no_links
from pretrain_cli.storage import publish_folder
from pretrain_cli.trees import everything_in


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
    """Record the files of ``staging``, and give it its name; damage there is replaced, what others put there stays.

    Raises:
        UsageError: ``folder`` is a link to another one.
    """
    record_model(staging)
    check_no_links(folder)
    own = {path.relative_to(staging).as_posix() for path in everything_in(staging) if path.is_file()}
    publish_folder(staging, folder, lambda old: {name for name in own if (old / name).is_file()})
