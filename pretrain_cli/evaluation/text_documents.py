"""Holds the texts that models are scored on, as streams of documents that can be read more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class TextDocument:
    """One document of a text.

    Attributes:
        name: where it is in its text.
        parts: its text in order, of a long one in several parts; read once, before the next document.
        source: what it comes from, where the text has several sources.
    """

    name: str
    parts: Iterator[str]
    source: str = ""

    @staticmethod
    def whole(name: str, text: str, source: str = "") -> TextDocument:
        """A document that is in memory."""
        return TextDocument(name, iter((text,)), source)

    def opening(self, characters: int) -> tuple[str, int]:
        """(its first ``characters``, its length in characters); reads it to its end."""
        opening, length = "", 0
        for part in self.parts:
            opening += part[: max(0, characters - length)]
            length += len(part)
        return opening, length

    def read_to_end(self) -> None:
        """Skip what is left of it, so that the next document can be read."""
        for _ in self.parts:
            pass


Documents = Callable[[], Iterator[TextDocument]]
"""Starts a fresh pass over the documents of a text."""


@dataclass(frozen=True)
class Text:
    """A named text. ``read()`` starts a fresh pass over its documents; ``n_bytes`` is their size in UTF-8.

    ``held_out`` says in words what a held-out text is of, ``unread`` which files of a folder aren't read, ``lost`` in
    sentences what of the others can't be, ``doubts`` what may be wrong in how they are.
    """

    name: str
    read: Documents
    n_bytes: int
    n_documents: int
    held_out: str = ""
    unread: str = ""
    lost: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @staticmethod
    def measured(name: str, read: Documents, held_out: str = "") -> Text:
        """A text whose size one pass over its documents measures."""
        n_bytes = n_documents = 0
        for document in read():
            n_bytes += sum(len(part.encode("utf-8")) for part in document.parts)
            n_documents += 1
        return Text(name, read, n_bytes, n_documents, held_out)
