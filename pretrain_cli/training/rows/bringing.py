"""Brings training rows from object storage: all before the first step, or file by file while the run trains."""

from __future__ import annotations

import filelock

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.rows.distant import DistantRows
from pretrain_cli.data.sharing import ROW_FILES, bring_data
from pretrain_cli.errors import ConfigError
from pretrain_cli.manifest import Manifest
from pretrain_cli.progress import Progress
from pretrain_cli.remote import RemoteFolder

TRAIN = "data/train/"


def bring_train_rows(config: Config, artifacts: Artifacts, progress: Progress) -> None:
    """Fetch the training rows: all of them, unless they are brought while the run trains.

    Raises:
        ConfigError: the config asks for two orders of rows.
        StorageError: a file is missing or damaged, or the storage doesn't answer.
    """
    if config.data.stages and config.train.shuffle_files:
        raise ConfigError(
            "[[data.stages]] draw rows from all files, and train.shuffle_files from a few at a time.",
            "Leave one of them out.",
        )
    if artifacts.remote:
        with filelock.FileLock(artifacts.root / ".bringing.lock"):  # processes of one machine share the copy
            bring_data(artifacts, progress, ("train",), large=not stay_there(config, artifacts))


def stay_there(config: Config, artifacts: Artifacts) -> bool:
    """Whether the rows are in object storage, and come as they are needed."""
    return bool(artifacts.remote) and config.train.shuffle_files > 0


def distant_rows(artifacts: Artifacts, manifest: Manifest, progress: Progress) -> DistantRows:
    """The training rows in object storage.

    Raises:
        DataError: they were made by a ptk that didn't count the rows of each file.
    """
    records = {name.removeprefix(TRAIN): own for name, own in manifest.files.items() if name.startswith(TRAIN)}
    remote = RemoteFolder(f"{artifacts.remote.rstrip('/')}/{TRAIN.rstrip('/')}", progress)
    return DistantRows(artifacts.train_rows, remote, records)


def without_distant(manifest: Manifest) -> Manifest:
    """The manifest without the files of training rows: each is compared with its hash when it comes."""
    files = {
        name: own for name, own in manifest.files.items() if not (name.startswith(TRAIN) and name.endswith(ROW_FILES))
    }
    return manifest.model_copy(update={"files": files})
