"""`ptk runs`: what was trained here, how two runs differ, and which to keep."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from pretrain_cli.cli.console import count, duration, megabytes
from pretrain_cli.cli.options import Session, command, words
from pretrain_cli.cli.progress import sparkline
from pretrain_cli.errors import UsageError

app = typer.Typer(help="List, show, compare and remove runs.", no_args_is_help=True, rich_markup_mode="rich")


@command()
def list_(session: Session) -> None:
    """List the runs, oldest first."""
    from pretrain_cli.records.run import list_runs

    runs = list_runs(session.artifacts)
    if session.console.json:
        session.console.print_json({"runs": runs})
    elif session.console.speaks:
        session.console.out.print(_table(runs) if runs else f"No runs in {session.artifacts.runs} yet.")
    session.console.next("ptk runs show RUN" if runs else "ptk train")


@command()
def show(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run; without it the latest.")] = None,
) -> None:
    """Show a run's record; without a name, the latest's."""
    from pretrain_cli.records.run import show_run

    record = show_run(session.artifacts, run)
    if session.console.json:
        session.console.print_json(record)
    elif session.console.speaks:
        session.console.out.print_json(data=_plain(record))
    session.console.next("ptk evaluate", "ptk runs compare A B")


@command()
def compare(
    session: Session,
    first: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
) -> None:
    """Show how two runs differ, in settings and in loss."""
    from pretrain_cli.records.run import compare_runs

    result = compare_runs(session.artifacts, first, second)
    facts = [(name, sparkline([loss for _, loss in points], 40)) for name, points in result.curves.items()]
    facts += [(key, f"{one}  |  {other}") for key, (one, other) in result.differences.items()]
    if session.console.speaks:
        session.console.out.print(_table([result.first, result.second]))
    session.console.result("Loss over steps, and the settings that differ", facts, result)
    session.console.next(f"ptk evaluate {first} {second}")


@command()
def remove(
    session: Session,
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Runs to delete.")] = None,
    keep_best: Annotated[
        int | None, typer.Option("--keep-best", metavar="N", help="Remove all but the N best.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete runs, after asking."""
    import sys

    from pretrain_cli.records.run import remove_runs, runs_to_remove

    chosen = runs_to_remove(session.artifacts, words(runs), keep_best)
    size = megabytes(sum(run.bytes_on_disk for run in chosen))
    names = [run.name for run in chosen]
    if names and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"This would remove {', '.join(names)} ({size}).", "Say so with --yes.")
        if not typer.confirm(f"Remove {', '.join(names)} ({size})?", err=True):
            return
    freed = remove_runs(session.artifacts, names) if names else 0
    title = f"Removed {len(names)} runs, {megabytes(freed)}"
    session.console.result(title, [], {"removed": names, "bytes": freed})
    session.console.next("ptk runs list")


for _name, _command in (("list", list_), ("show", show), ("compare", compare), ("remove", remove)):
    app.command(_name)(_command)


def _table(runs: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "started", "status", "base"):
        table.add_column(column, overflow="fold")
    for column in ("steps", "tokens", "loss", "bits/byte", "time", "disk"):
        table.add_column(column, justify="right")
    for run in runs:
        figures = [f"{value:.3f}" if value is not None else "-" for value in (run.loss, run.bits_per_byte)]
        seconds = duration(run.seconds) if run.seconds is not None else "-"
        table.add_row(
            run.name, run.started[:16].replace("T", " "), run.status, run.base or "-", count(run.steps),
            count(run.tokens), *figures, seconds, megabytes(run.bytes_on_disk),
        )  # fmt: skip
    return table


def _plain(record: Any) -> Any:
    from pretrain_cli.cli.console import to_plain

    return to_plain(record)
