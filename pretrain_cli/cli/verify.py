"""Implements `ptk doctor --verify`: compares every published file with its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from pretrain_cli.cli.console import to_plain
from pretrain_cli.cli.session import Session
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import byte_size, count_of

if TYPE_CHECKING:
    from pretrain_cli.runs.verification import Finding, Verification

SHOWN = 50
"""Files without a hash that are named; of those that differ, all are."""


def verify_files(session: Session, run: str | None) -> None:
    """Print what differs; exits with 3, as for damaged data, if anything does."""
    from pretrain_cli.runs.verification import verify

    with session.progress() as progress:
        found = verify(session.artifacts, run, progress)
    console = session.console
    if console.json:
        console.print_json(_value(found))
    elif console.speaks:
        for finding in found.differs:
            console.out.print("[bold red]differs[/]", end="  ")
            console.text(f"{finding.path} {finding.told}")
        for finding in found.unrecorded[:SHOWN]:
            console.out.print("[yellow]no hash[/]", end="  ")
            console.text(f"{finding.path} {finding.told}")
        if len(found.unrecorded) > SHOWN:
            console.text(f"and {count_of(len(found.unrecorded) - SHOWN, 'more file')} without a hash")
        for name in found.training:
            console.text(f"Run {name} is being trained now: left out.")
        console.sentence(_sentence(found, session, run))
    if not found.ok:
        raise typer.Exit(DataError.exit_code)


def _sentence(found: Verification, session: Session, run: str | None) -> str:
    same = f"{count_of(found.files, 'file')} ({byte_size(found.bytes)})"
    if found.differs:
        differ = "differs" if len(found.differs) == 1 else "differ"
        return f"{count_of(len(found.differs), 'file')} {differ} from what ptk wrote; {same} are the same."
    if not found.files:
        where = f"run '{run}'" if run else str(session.artifacts.root)
        return f"No file of {where} has a hash on record: nothing can be compared."
    rest = ", of all that have a hash on record" if found.unrecorded else ""
    return f"{same} are as ptk wrote them{rest}."


def _value(found: Verification) -> dict[str, Any]:
    def listed(findings: list[Finding]) -> list[dict[str, str]]:
        return [{"path": str(finding.path), "found": finding.told} for finding in findings]

    return {
        "ok": found.ok,
        "files": found.files,
        "bytes": found.bytes,
        "differs": listed(found.differs),
        "unrecorded": listed(found.unrecorded),
        "training": to_plain(found.training),
    }
