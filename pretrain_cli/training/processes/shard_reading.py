"""Reads a sharded checkpoint as data: what its pickles ask for is looked up in a list and not run.

torch.distributed.checkpoint reads its index with ``pickle.load`` and its plain values with ``weights_only=False``: a
checkpoint that somebody else made could run anything.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

INDEX = ".metadata"
RECORDS = "torch.distributed.checkpoint.metadata"
ALLOWED = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("collections", "OrderedDict"),
    *((RECORDS, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((RECORDS, name) for name in ("BytesStorageMetadata", "ChunkStorageMetadata", "TensorStorageMetadata")),
    (RECORDS, "_MEM_FORMAT_ENCODING"),
}
"""Everything that an index is made of, in addition to torch's dtypes."""


class PlainUnpickler(pickle.Unpickler):
    """Builds the records of a checkpoint's index, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, if an index may hold it."""
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a checkpoint")
        return super().find_class(module, name)


class PlainReader(FileSystemReader):
    """torch's reader of a checkpoint's folder, with an index that runs nothing."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The checkpoint's index.

        Raises:
            UnpicklingError: it holds something else.
        """
        with open(Path(self.path) / INDEX, "rb") as file:
            metadata = PlainUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it holds no index of a checkpoint")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class PlainPlanner(DefaultLoadPlanner):
    """torch's plan of what is read from where, with numbers and texts as the only values beside tensors."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Read one value.

        Raises:
            UnpicklingError: it is something else.
        """
        plain = torch.load(value, weights_only=True)
        again = io.BytesIO()
        torch.save(plain, again)
        again.seek(0)
        super().load_bytes(read_item, again)
