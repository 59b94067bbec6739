"""Says what a file is that was to hold tensors and numbers only, and holds something else.

Everything here is read with ``weights_only=True``, which builds tensors and plain values and runs nothing; torch's own
error then advises to switch that off, which is what a stranger's file wants.
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pretrain_cli.errors import ModelError, first_line

ENDINGS = ("*.pt", "*.pth", "*.bin")
OURS = "Use a checkpoint that this machine wrote, or start a new run: ptk train"
PLAIN = ("numpy", "_codecs.encode")
"""What numpy's random state in a checkpoint is made of."""


@contextlib.contextmanager
def reading_tensors(folder: Path, hint: str = OURS) -> Iterator[None]:
    """Turn what reading a file of ``folder`` raises into an error that names the file and says what it is.

    Raises:
        ModelError: a file holds something else than it should; nothing of it has run.
    """
    import torch

    try:
        with pickle_notes_ignored():
            yield
    except torch.OutOfMemoryError:
        raise
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError),
        *(KeyError, TypeError, AttributeError, IndexError),
    ) as error:
        found = next(filter(None, map(foreign, files_of(folder))), "")
        if not found and isinstance(error, pickle.UnpicklingError):
            found = f"A file in {folder} holds Python objects, which could run code when they are loaded"
        found = found or f"The files in {folder} don't fit each other or this model ({first_line(error)})"
        raise ModelError(f"{found}.", hint) from error


@contextlib.contextmanager
def pickle_notes_ignored() -> Iterator[None]:
    """Without torch's warning about a pickle that it then refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        yield


def files_of(folder: Path) -> list[Path]:
    """The files of ``folder`` that torch has written, or should have."""
    return sorted(file for ending in ENDINGS for file in folder.glob(ending))


def foreign(path: Path) -> str:
    """What a file of torch's holds that it shouldn't, in words; empty if there is nothing. Runs nothing of it."""
    import torch

    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            pickled = file.read(1) == b"\x80"
        if pickled:
            return f"{path} is a Python pickle, which could run code when it is loaded: it was not loaded"
        return f"{path} is not a file that torch wrote"
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # of a file that only looks like torch's
        return f"{path} is not a file that torch wrote ({first_line(error)})"
    objects = [name for name in names if not name.startswith(PLAIN)]
    if objects:
        return f"{path} holds Python objects ({objects[0]}), which could run code when loaded: it was not loaded"
    return ""
