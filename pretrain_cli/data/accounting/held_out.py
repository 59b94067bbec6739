"""Says what the held-out text is of: kinds of files, and the files that most of it comes from."""

from __future__ import annotations

import numpy as np

from pretrain_cli.addresses import redact_address
from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.reading.input_files import kind_of
from pretrain_cli.manifest import HeldOutRecord

MOST_FILES, MOST_DOCUMENTS = 10, 200


def held_out_record(text: PackedText) -> HeldOutRecord | None:
    """What is held out of which kind of file; None where nothing is."""
    selection, encoded = text.selection, text.encoded
    held, sizes = selection.validation, selection.validation_sizes
    if not len(sizes):
        return None
    spans = len(encoded.spans)
    files = [redact_address(file.path) for file, _ in encoded.spans]
    of_documents = encoded.span_numbers[held.entries]
    of_file = np.bincount(of_documents, sizes, minlength=spans)
    all_of_file = np.bincount(encoded.span_numbers, selection.kept, minlength=spans)
    kinds: dict[str, tuple[float, float]] = {}
    shares: dict[str, float] = {}
    for path, part, whole in zip(files, of_file.tolist(), all_of_file.tolist(), strict=True):
        kind = kind_of(path) or "other"
        before = kinds.get(kind, (0.0, 0.0))
        kinds[kind] = (before[0] + part, before[1] + whole)
        if part:
            shares[path] = shares.get(path, 0.0) + part / float(sizes.sum())
    largest = sorted(shares.items(), key=lambda item: -item[1])[:MOST_FILES]
    named = zip(held.documents[:MOST_DOCUMENTS], of_documents[:MOST_DOCUMENTS], strict=True)
    ends = int((held.first > 0).sum())
    return HeldOutRecord(
        whole=len(sizes) - ends,
        ends=ends,
        kinds={kind: round(part / whole, 4) for kind, (part, whole) in sorted(kinds.items()) if whole},
        files={_name(path): round(share, 4) for path, share in largest},
        documents={str(document): _name(files[place]) for document, place in named},
    )


def _name(path: str) -> str:
    """A file's own name."""
    return path.rstrip("/").rpartition("/")[2] or path
