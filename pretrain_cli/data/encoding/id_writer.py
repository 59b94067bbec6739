"""Encodes texts and writes their ids to a file, while the next texts are read."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.interruptible import interruptible

WAITING_BATCHES = 1
LONG_CALL_CHARACTERS = 1 << 20
"""Encoding more than this may take seconds. Only a long text without a place to cut makes it necessary."""
Position = tuple[int, int]
"""(bytes of the file, batches)."""


class IdWriter:
    """Encodes batches of texts and writes their ids in a separate thread, in order, at most ``WAITING_BATCHES`` behind.

    ``made``: for each batch the documents its texts belong to, the tokens they gave, and the bytes that gave none.
    """

    def __init__(self, encoder: Encoder, dtype: str, sink: BinaryIO, stop: threading.Event) -> None:
        self.encoder, self.dtype, self.sink, self.stop = encoder, dtype, sink, stop
        self.made: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def submit(self, texts: list[str], owners: npt.NDArray[np.int64]) -> None:
        while len(self._waiting) >= WAITING_BATCHES:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._encode, texts, owners))

    def _encode(self, texts: list[str], owners: npt.NDArray[np.int64]) -> None:
        if sum(map(len, texts)) > LONG_CALL_CHARACTERS:
            ids, offsets = interruptible(lambda: self.encoder.encode(texts), self.stop)
        else:
            ids, offsets = self.encoder.encode(texts)
        self.sink.write(ids.astype(self.dtype, copy=False).data)
        lost = self.encoder.lost_bytes(texts, ids, offsets)
        # One entry a document: a long one comes in many pieces.
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        self.made.append((owners[firsts], np.add.reduceat(np.diff(offsets), firsts), np.add.reduceat(lost, firsts)))

    def drain(self) -> None:
        """Wait until all batches are written."""
        while self._waiting:
            self._waiting.popleft().result()

    def position(self) -> Position:
        """How much has been written so far, for ``rewind``."""
        self.drain()
        return self.sink.tell(), len(self.made)

    def rewind(self, position: Position) -> None:
        """Take back all that was written since ``position``."""
        self.drain()
        self.sink.seek(position[0])
        self.sink.truncate()
        del self.made[position[1] :]

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
