"""Says what the user should know of the input: what couldn't be read of it, and where no separator was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pretrain_cli.addresses import redact_all
from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.data.reading.bad_records import BadRecords
from pretrain_cli.data.reading.documents import Rejected
from pretrain_cli.data.reading.folders import Account
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import count_of

LOST = {
    "unreadable_file": ("can't be read", "can't be read"),
    "unreadable": ("may not be read", "may not be read"),
    "no_text_found": ("holds no text, as scanned pages do", "hold no text, as scanned pages do"),
    "too_long": ("is longer than data.max_record_bytes", "are longer than data.max_record_bytes"),
    "too_slow": ("takes too long to read", "take too long to read"),
}
"""Why a whole file gave no text, of one file and of several, for those reasons that are worth a warning."""
NAMED = 3


def check_bad(data: DataConfig, counts: Sequence[ShardCounts], rejected: Path, listed: Path) -> list[str]:
    """A warning if records in the files, or the rest of a file, are bad and left out.

    Args:
        data: its ``on_error`` says how many may be.
        counts: of all shards.
        rejected: lists the bad records.
        listed: where that list will be, for the reader of the warning.

    Raises:
        DataError: they are too many, see ``BadRecords.check``.
    """
    met = BadRecords(documents=sum(count.kept_documents for count in counts))
    with open(rejected, encoding="utf-8") as lines:
        for line in lines:
            met.add(Rejected(**json.loads(line)))
    if data.on_error == "auto":
        met.check()
    return [warning] if (warning := str(redact_all(met.told(listed)))) else []


def lost_files(account: Account, counts: Sequence[ShardCounts], listed: Path) -> list[str]:
    """A warning for each reason why whole files gave no text: the names of the first, or what is wrong with one.

    ``listed`` will name them all.
    """
    reasons: dict[str, tuple[int, list[str]]] = {}
    why: dict[str, str] = {}

    def add(reason: str, files: int, examples: Iterable[str]) -> None:
        if reason in LOST:
            before, names = reasons.get(reason, (0, []))
            reasons[reason] = (before + files, [*names, *examples][:NAMED])

    for (reason, _), group in account.skipped.items():
        add(reason, group.files, group.examples)
    for count in counts:
        why = {**count.first_failures, **why}
        for key, (files, _, examples) in count.without_text.items():
            add(key.partition(" ")[0], files, examples)
    told = (_told(reason, files, names, why.get(reason, ""), listed) for reason, (files, names) in reasons.items())
    return [str(redact_all(warning)) for warning in told]


def _told(reason: str, files: int, names: list[str], why: str, listed_in: Path) -> str:
    one, several = LOST[reason]
    if files == 1:
        return f"{why.rstrip('.') or f'{names[0]} {one}'}. It is left out."
    more = " and others" if files > len(names) else ""
    listed = ", ".join(names)
    where = "" if reason == "unreadable" else f" All are in {listed_in}."
    return f"{count_of(files, 'file')} {several} and are left out: {listed}{more}.{where}"


def check_separator(data: DataConfig, counts: Sequence[ShardCounts], note: Callable[[str], None]) -> None:
    """Check that the document separator occurs.

    Raises:
        DataError: it occurs in none of the plain text files.
    """
    found, without = (sum(count.separated[place] for count in counts) for place in (0, 1))
    if not without or not data.separator:
        return
    shown = data.separator.encode("unicode_escape").decode() if data.separator.isascii() else data.separator
    if not found:
        raise DataError(
            f"The separator '{shown}' occurs in no plain text file ({count_of(without, 'file')}).",
            "Check data.document_separator: a blank line is \\n\\n, in files of Windows \\r\\n\\r\\n. "
            "Without it, each file is one document.",
        )
    note(f"The separator '{shown}' doesn't occur in {count_of(without, 'file')}: each is one document.")
