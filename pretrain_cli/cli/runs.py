"""Implements `ptk runs`: lists, shows, compares and removes runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pretrain_cli.cli.console import Console, labeled, shell
from pretrain_cli.cli.help import add_command, group
from pretrain_cli.cli.options import command, words
from pretrain_cli.cli.session import Session
from pretrain_cli.cli.stage_view import sparkline
from pretrain_cli.cli.visible import visible
from pretrain_cli.config.model import LARGEST
from pretrain_cli.errors import UsageError
from pretrain_cli.evaluation_report import PAGE
from pretrain_cli.formatting import byte_size, count, count_of, duration, rate, score

if TYPE_CHECKING:
    from pretrain_cli.runs.results import RunComparison, RunDetails, RunSummary

ALL_COLUMNS = 120
"""A list of runs with all columns and short names needs this much room; a pipe has it."""
SLIM = 70
"""In narrower terminals, a list of runs shows only names and held-out losses."""

app = group("List, show, compare and remove runs.", examples=("ptk runs list", "ptk runs compare first second"))


@command(examples=("ptk runs list", "ptk runs list --json"))
def list_(session: Session) -> None:
    """List the runs, oldest first."""
    from pretrain_cli.runs.summary import list_runs

    runs = list_runs(session.artifacts)
    _warn_of_damage(session.console, runs)
    if session.console.json:
        session.console.print_json({"runs": runs})
    elif session.console.speaks:
        session.console.table(
            _table(session.console, runs) if runs else f"There are no runs in {session.artifacts.runs} yet."
        )
        for run in runs:
            if run.wandb:
                session.console.text(f"{run.name} on W&B: {run.wandb}")
    session.console.next("ptk runs show RUN" if runs else "ptk train")


@command(examples=("ptk runs show", "ptk runs show first"))
def show(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run. Default: the latest.")] = None,
) -> None:
    """Show a run: its results, settings and machine."""
    from pretrain_cli.runs.summary import show_run

    details = show_run(session.artifacts, run)
    _warn_of_damage(session.console, [details.summary])
    session.console.result(f"Run {details.summary.name}", _facts(session, details), details)
    name, finished = details.summary.name, details.summary.status == "finished"
    session.console.next(shell("ptk", *(("evaluate", name) if finished else ("train", "--resume", name))))


@command(examples=("ptk runs compare first second", "ptk runs compare first second third"))
def compare(
    session: Session,
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Two runs or more.")],
) -> None:
    """Show how runs differ in settings, loss and samples."""
    from pretrain_cli.runs.comparison import compare_runs

    result = compare_runs(session.artifacts, runs)
    _warn_of_damage(session.console, result.runs)
    for warning in result.warnings:
        session.console.warn(warning)
    if session.console.speaks:
        session.console.table(_table(session.console, result.runs))
        session.console.text("")
        session.console.sentence(result.verdict)
        session.console.text("")
        session.console.table(_curves(session.console, result))
        session.console.text("")
        session.console.table(_differences(result) if result.differences else "All settings are the same.")
        if result.page is not None:
            session.console.text(f"Comparison page: {result.page}")
    elif session.console.json:
        session.console.print_json(result)
    session.console.next(shell("ptk", "evaluate", *(run.name for run in result.runs)))


@command(examples=("ptk runs remove first second", "ptk runs remove --keep-best 3 --yes"))
def remove(
    session: Session,
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Runs to delete.")] = None,
    keep_best: Annotated[
        int | None,
        typer.Option("--keep-best", metavar="N", min=1, max=LARGEST, help="Remove all runs except the N best."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Delete runs after asking."""
    import sys

    from pretrain_cli.runs.removal import remove_runs, runs_to_remove

    removal = runs_to_remove(session.artifacts, words(runs), keep_best)
    chosen = removal.runs
    size = byte_size(sum(run.bytes_on_disk for run in chosen))
    names = [run.name for run in chosen]
    for remark in removal.remarks if names else ():
        session.console.warn(remark)
    if names and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"This would remove {', '.join(names)} ({size}).", "Confirm with --yes.")
        if session.console.speaks:
            session.console.err.print(_table(session.console, chosen))
        if not _agrees(visible(f"Remove {_some(names)} ({size})?")):
            return
    freed = remove_runs(session.artifacts, names) if names else 0
    title = f"Removed {count_of(len(names), 'run')} ({byte_size(freed)})"
    session.console.result(title, [], {"removed": names, "bytes": freed})
    session.console.next("ptk runs list")


def _agrees(question: str) -> bool:
    """Ask on stderr; the end of the input (Ctrl-D) is a no, as everything but y and yes."""
    import sys

    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
    return answer.strip().lower() in {"y", "yes"}


for _name, _command in (("list", list_), ("show", show), ("compare", compare), ("remove", remove)):
    add_command(app, _name, _command)


def _warn_of_damage(console: Console, runs: list[RunSummary]) -> None:
    for run in runs:
        if run.damage:
            console.warn(f"Run '{run.name}': {run.damage}")


def _table(console: Console, runs: list[RunSummary]) -> Table:
    """One line for each run. A narrower terminal shows fewer columns, so that none is cut off."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    width = console.out.width if console.out.is_terminal else ALL_COLUMNS
    narrow, slim = width < ALL_COLUMNS, width < SLIM
    based = any(run.base for run in runs) or not narrow
    left = ["run", "status"] if slim else ["run", "started", "status", *(["base"] if based else [])]
    train = [] if narrow and based else ["train"]
    right = ["validation", "bits/byte"] if slim else ["tokens", *train, "validation", "bits/byte", "time"]
    right += [] if narrow else ["steps", "disk"]
    titles = {} if narrow else {"train": "train loss", "validation": "validation loss"}
    for column in left:
        widest = (8 if narrow else 40) if column == "base" else None
        table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=widest)
    for column in right:
        table.add_column(titles.get(column, column), justify="right", no_wrap=True)
    for run in runs:
        cells = {
            "run": escape(run.name),
            "started": run.started[5 if narrow else 0 : 10 if narrow and based else 16].replace("T", " "),
            "status": run.status,
            "base": escape(run.base or "-"),
            "tokens": count(run.tokens),
            "train": score(run.train_loss),
            "validation": score(run.validation_loss),
            "bits/byte": score(run.bits_per_byte),
            "time": duration(run.seconds) if run.seconds is not None else "-",
            "steps": count(run.steps),
            "disk": byte_size(run.bytes_on_disk),
        }
        table.add_row(*(cells[column] for column in (*left, *right)))
    return table


def _of(summary: RunSummary) -> str:
    """ " of about 640 planned" where not all were made."""
    short = summary.planned_steps and summary.steps < summary.planned_steps
    return f" of about {count(summary.planned_steps or 0)} planned" if short else ""


def _evaluated(summary: RunSummary) -> str:
    value = summary.evaluated_bits_per_byte
    return f"{value:.4f} bits/byte on all held-out rows" if value is not None else ""


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"these {count(len(names))} runs"


def _curves(console: Console, result: RunComparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("metric", "run", "first", "", "last"):
        table.add_column(column, justify="right" if column in ("first", "last") else "left", no_wrap=True)
    for metric, curves in result.curves.items():
        for place, (name, points) in enumerate(curves.items()):
            values = [value for _, value in points]
            width = 20 if console.narrow else 50
            title = metric.replace("_per_", "/").replace("_", " ") if place == 0 else ""
            table.add_row(title, escape(name), f"{values[0]:.4g}", sparkline(values, width), f"{values[-1]:.4g}")
    return table


def _differences(result: RunComparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("setting", *(run.name for run in result.runs)):
        table.add_column(column, overflow="fold")
    for key, values in result.differences.items():
        table.add_row(key, *(escape(_setting(value)) for value in values))
    return table


def _if_there(path: Path) -> str:
    try:
        return str(path) if path.exists() else ""
    except PermissionError:  # said above the table
        return ""


def _setting(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _facts(session: Session, details: RunDetails) -> list[tuple[str, str]]:
    """What people ask about a run; --json has the rest."""
    summary, record, last = details.summary, details.record, details.last
    run = session.artifacts.run(summary.name)
    # As training told them at its end; of a run that hasn't ended, the last that it wrote.
    speed = record.result.tokens_per_second if record.result is not None else last.get("tokens_per_second")
    memory = record.peak_memory_bytes or 1e6 * (last.get("memory_mb") or 0)
    figures = {
        "train loss": summary.train_loss, "validation": summary.validation_loss, "bits/byte": summary.bits_per_byte,
    }  # fmt: skip
    facts = [
        ("status", summary.status),
        ("command", shell(*record.command)),
        ("started", summary.started.replace("T", " ").replace("+00:00", " UTC")),
        ("time", duration(summary.seconds) if summary.seconds is not None else ""),
        ("base", record.base_nature or summary.base or "from scratch"),
        ("parameters", count(record.parameters) if record.parameters else ""),
        ("steps", f"{count(summary.steps)}{_of(summary)}, {count_of(summary.tokens, 'token')}"),
        ("outcome", summary.outcome),
        *((name, f"{value:.4f}") for name, value in figures.items() if value is not None),
        ("speed", rate(speed, "tokens") if speed else ""),
        ("peak memory", byte_size(memory) if memory else ""),
        ("machine", " ".join(word for word in (record.device, record.precision) if word)),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("evaluated", _evaluated(summary)),
        ("data", record.data_fingerprint),
        ("checkpoints", ", ".join(details.checkpoints)),
        ("model", _if_there(run.model)),
        ("report", _if_there(run.evaluation / PAGE)),
        ("W&B", summary.wandb),
        ("disk", byte_size(summary.bytes_on_disk)),
        *labeled("chosen", record.choices),
    ]
    return [(label, text) for label, text in facts if text]
