"""Accounts for the input's files: those that were read, by kind, and those that weren't, by reason and kind."""

from __future__ import annotations

from collections.abc import Sequence

from pretrain_cli.addresses import redact_address
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.data.reading.folders import EXAMPLES, Account, FoundFiles
from pretrain_cli.manifest_records import FileAccount, FileGroup, SkippedFiles

MOST_KINDS = 50
"""Kinds of files listed for each reason; the others are summed up."""
OTHERS = "others"
WHILE_READING = {"empty", "no_text_found", "unreadable_file", "too_long", "too_slow"}
"""Reasons that are known once a file is read."""


def file_account(account: Account, counts: Sequence[ShardCounts]) -> FileAccount:
    """What the inputs hold; a file that gave no text while it was read is moved to those that weren't read.

    Raises:
        AssertionError: the sums differ, which is a bug.
    """
    read = {kind: FileGroup(files=group.files, bytes=group.bytes) for kind, group in account.read.items()}
    skipped = dict(account.skipped)
    for count in counts:
        for key, (files, size, examples) in count.without_text.items():
            reason, _, kind = key.partition(" ")
            group = skipped.setdefault((reason, kind), FoundFiles())
            skipped[reason, kind] = FoundFiles(
                group.files + files, group.bytes + size, [*group.examples, *examples][:EXAMPLES]
            )
            before = read[kind]
            read[kind] = FileGroup(files=before.files - files, bytes=before.bytes - size)
    total = sum(group.files for group in (*account.read.values(), *account.skipped.values()))
    listed = _listed(skipped)
    made = FileAccount(
        folders=account.folders,
        files=total,
        read=_most({kind: group for kind, group in read.items() if group.files}),
        skipped=listed,
        unreadable_folders=_shown(account.unreadable_folders),
        linked_folders=_shown(account.linked_folders),
    )
    assert total == made.read_files + made.skipped_files, "the account of files doesn't add up"
    return made


def renewed_account(account: Account, before: FileAccount | None) -> FileAccount:
    """The account of inputs that are prepared already: files that aren't read may have come or gone since.

    Args:
        account: of the files as they are now.
        before: what was recorded; its files that gave no text while they were read are as they were.
    """
    groups = before.skipped if before is not None else ()
    found = {
        f"{group.reason} {group.kind}": (group.files, group.bytes, list(group.examples))
        for group in groups
        if group.reason in WHILE_READING and group.kind in account.read
    }
    return file_account(account, [ShardCounts(without_text=found)])


def _most(read: dict[str, FileGroup]) -> dict[str, FileGroup]:
    """The most frequent kinds first; those beyond ``MOST_KINDS`` as one."""
    ranked = sorted(read.items(), key=lambda item: (-item[1].files, item[0]))
    rest = [group for _, group in ranked[MOST_KINDS:]]
    others = FileGroup(files=sum(group.files for group in rest), bytes=sum(group.bytes for group in rest))
    return dict(ranked[:MOST_KINDS]) | ({OTHERS: others} if rest else {})


def _listed(skipped: dict[tuple[str, str], FoundFiles]) -> tuple[SkippedFiles, ...]:
    reasons: dict[str, list[tuple[str, FoundFiles]]] = {}
    for (reason, kind), group in skipped.items():
        reasons.setdefault(reason, []).append((kind, group))
    found = []
    for reason, groups in reasons.items():
        ranked = sorted(groups, key=lambda entry: (-entry[1].files, entry[0]))
        rest = [group for _, group in ranked[MOST_KINDS:]]
        if rest:
            files, size = sum(group.files for group in rest), sum(group.bytes for group in rest)
            ranked = [*ranked[:MOST_KINDS], (OTHERS, FoundFiles(files, size, rest[0].examples))]
        for kind, group in ranked:
            examples = tuple(map(redact_address, group.examples))
            found.append(
                SkippedFiles(reason=reason, kind=kind, files=group.files, bytes=group.bytes, examples=examples)
            )
    return tuple(found)


def _shown(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(redact_address, paths[:MOST_KINDS]))
