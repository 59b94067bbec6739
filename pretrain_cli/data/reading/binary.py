"""Tells what isn't text: files of known kinds by their first bytes, and text by its share of NUL and control bytes."""

from __future__ import annotations

import re

from pretrain_cli.errors import DataError

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    *(
        (start, "a picture", "")
        for start in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"RIFF", b"8BPS")
    ),
    (b"\xd0\xcf\x11\xe0", "an old Office file (.doc, .xls, .ppt)", "Save it as .docx or .txt."),
    (b"{\\rtf", "an RTF file", "Save it as .docx or .txt."),
    (
        b"PK\x03\x04",
        "a zip archive, or a file packed as one (.docx, .xlsx, .epub, .odt)",
        "Give it the ending of its kind.",
    ),
    (b"PK\x05\x06", "an empty zip archive", ""),
    (b"\x1f\x8b", "compressed by gzip", "Give it the ending .gz, or pipe it: zcat FILE | ptk prepare -"),
    (b"BZh", "compressed by bzip2", "Give it the ending .bz2."),
    (b"\xfd7zXZ", "compressed by xz", "Give it the ending .xz."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "Give it the ending .zst."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it."),
    (b"Rar!\x1a", "a rar archive", "Unpack it."),
    (b"PAR1", "a Parquet file", "Give it the ending .parquet."),
    (b"ARROW1", "an Arrow file", "Give it the ending .arrow."),
    (b"%PDF", "a PDF file", "Give it the ending .pdf."),
    (b"SQLite format 3", "a SQLite data base", "Write its text to a .jsonl or .csv file."),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x89HDF", "an HDF5 file", ""),
    *(
        (start, "a program", "")
        for start in (b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\0asm")
    ),
    *((start, "a sound or a film", "") for start in (b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"FLV\x01")),
    *((start, "a font", "") for start in (b"wOFF", b"wOF2", b"OTTO", b"\0\x01\0\0\0")),
    *((start, "a model's weights", "") for start in (b"GGUF",)),
)
"""A kind of file: its first bytes, what it is, and what to do ("": leave it out)."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""Begins what a clone without git-lfs has in place of each large file."""
TAR_MARK = (257, b"ustar")
NUL_SHARE = 0.1
"""Of a text's characters: with more, it is none. UTF-16 read as UTF-8 has half, and a log that broke off a few."""
CONTROL_SHARE = 0.1
CONTROLS = bytes([*range(1, 8), *range(14, 27), *range(28, 32)])
"""Without those of typewriters and terminals: backspace, tab, line ends, form feed, escape."""
LEAVE_OUT = "Leave it out, or convert it to text first."


def check_signature(head: bytes, path: str) -> None:
    """Compare a file's first bytes with those of kinds of files that aren't text.

    Raises:
        DataError: it is of such a kind.
    """
    check_pointer(head, path)
    at, mark = TAR_MARK
    if head[at : at + len(mark)] == mark and _has_odd_bytes(head[:1024]):  # "mustard" may stand there in a text
        raise _not_text(path, "a tar archive", "Give it the ending .tar, or with a compression .tar.gz.")
    for start, kind, hint in SIGNATURES:
        if head.startswith(start) and (not start.isalnum() or _has_odd_bytes(head[:1024])):
            raise _not_text(path, kind, hint)
    if head[4:8] == b"ftyp":
        raise _not_text(path, "a film", "")


def check_pointer(head: bytes, path: str) -> None:
    """Refuse what stands for a file that wasn't downloaded.

    Raises:
        DataError: ``head`` begins a pointer of git-lfs.
    """
    if head.startswith(LFS_POINTER):
        raise DataError(
            f"{path} is a pointer of git-lfs, not the file itself.", "Fetch the files: git lfs pull, or hf download."
        )


def _has_odd_bytes(start: bytes) -> bool:
    """Whether there are bytes that no text has: it may begin with RIFF or OTTO."""
    return b"\0" in start or len(start.translate(None, CONTROLS)) < len(start)


def _not_text(path: str, kind: str, hint: str) -> DataError:
    return DataError(f"{path} is a binary file, not text: {kind} (byte 0).", hint or LEAVE_OUT)


def looks_binary(head: bytes) -> bool:
    """Whether too many of the first bytes are NULs or control characters."""
    if not head:
        return False
    nuls, controls = head.count(0), len(head) - len(head.translate(None, CONTROLS))
    return nuls >= NUL_SHARE * len(head) or controls >= CONTROL_SHARE * len(head)


def check_block(text: str, path: str, offset: int) -> None:
    """Check a block of decoded text that begins at byte ``offset``.

    Raises:
        DataError: too many of its characters are NULs.
    """
    if text.count("\0") >= NUL_SHARE * max(1, len(text)):
        found = re.search("\0{2}", text) or re.search("\0", text)
        at = offset + len(text[: found.start() if found else 0].encode(errors="replace"))
        raise not_text(path, at)


def not_text(path: str, at: int) -> DataError:
    """The error of a file whose bytes aren't text; ``at`` is one of them."""
    return DataError(
        f"{path} isn't text: it is full of NUL or control bytes (byte {at:,}).",
        "Leave it out, skip such files with --on-error skip, or set data.encoding if it is text.",
    )
