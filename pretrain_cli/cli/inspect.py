"""Implements `ptk inspect`: shows what the prepared rows hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.cli.visible import visible
from pretrain_cli.config.model import LARGEST
from pretrain_cli.formatting import byte_size, count, count_of, exact, percent

if TYPE_CHECKING:
    from pretrain_cli.data.inspect import PieceView, PreparedFigures, RowView
    from pretrain_cli.manifest_records import SplitRecord

STYLES = ("cyan", "green", "magenta", "yellow")


@command(examples=("ptk inspect", "ptk inspect --random --tokens", "ptk inspect --stats --json"))
def inspect(
    session: Session,
    row: Annotated[int, typer.Option("--row", metavar="N", min=0, max=LARGEST, help="Row to show.")] = 0,
    random: Annotated[bool, typer.Option("--random", help="Show a random row.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show where each token ends, and its id.")] = False,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train or validation.")] = "train",
    stats: Annotated[bool, typer.Option("--stats", help="Show statistics of all rows instead of a row.")] = False,
) -> None:
    """Show a prepared row as text, with its documents and tokens, or statistics of all rows."""
    from pretrain_cli.data.inspect import inspect_row, read_figures
    from pretrain_cli.errors import UsageError

    if split not in ("train", "validation"):
        raise UsageError(f"There is no split '{split}'.", "Splits: train, validation.")
    if stats:
        figures = read_figures(session.artifacts)
        session.console.result("The prepared data", _figures(figures), figures.model_dump(mode="json"))
    else:
        view = inspect_row(session.artifacts, None if random else row, split)
        pieces, padding = count_of(len(view.pieces), "piece"), count_of(view.padding, "padding token")
        title = f"Row {exact(view.index)} of {split}: {pieces}, {padding}"
        session.console.result(title, [], view)
        if not session.console.json:
            _show(session, view, tokens)
    session.console.next("ptk train --device auto")


def _figures(figures: PreparedFigures) -> list[tuple[str, str]]:
    tokenizer = figures.tokenizer
    facts = [
        ("documents", f"{count(figures.documents)}, {byte_size(figures.bytes)}, {count_of(figures.tokens, 'token')}"),
        ("tokenizer", f"{tokenizer.source}, {count(tokenizer.vocab_size)} entries, encoded by {tokenizer.engine}"),
        ("tokens", f"{figures.bytes_per_token:.2f} bytes each"),
        ("packing", f"{figures.packing}, rows of {count_of(figures.sequence_length, 'token')}"),
        ("pieces", f"{figures.pieces_per_row:.1f} per row"),
        ("fill", f"{percent(figures.fill, 2)}, {count_of(figures.padding, 'padding token')}"),
        ("for training", _split(figures.train)),
        ("held out", _split(figures.validation)),
    ]
    for name, source in figures.sources.items():
        held_out = count_of(source.validation_documents, "document")
        facts.append(
            (
                f"from {name}",
                f"for training {count_of(source.documents, 'document')}, {byte_size(source.bytes)}, "
                f"{count_of(source.tokens, 'token')}; held out {held_out}, {byte_size(source.validation_bytes)}",
            )
        )
    facts.append(("left out", _reasons(figures.dropped)))
    facts.append(("rejected", _reasons(figures.rejected)))
    most = max(figures.document_tokens.values(), default=1)
    for place, (limit, many) in enumerate(figures.document_tokens.items()):
        label = "lengths" if not place else ""
        facts.append((label, f"≤ {int(limit):>9,} tokens {'█' * max(1, round(24 * many / most)):<24} {count(many)}"))
    return facts


def _split(split: SplitRecord) -> str:
    counts = ((split.rows, "row"), (split.documents, "document"), (split.tokens, "token"))
    return ", ".join(count_of(number, thing) for number, thing in counts)


def _reasons(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count(many)} {reason.replace('_', ' ')}" for reason, many in reasons.items()) or "nothing"


def _show(session: Session, view: RowView, tokens: bool) -> None:
    out = session.console.out
    for number, piece in enumerate(view.pieces):
        begins = "from its start" if not piece.start else f"from token {exact(piece.start)}"
        where = visible(piece.file) or piece.source
        out.print(Text(f"── document {exact(piece.document)} of {where}, {begins}", "bold"))
        styled = (
            _tokens(piece, bool(out.color_system))
            if tokens
            else Text(visible(piece.text), STYLES[number % len(STYLES)])
        )
        out.print(styled, soft_wrap=False if out.is_terminal else None)
        if tokens:
            out.print(Text(" ".join(str(token.id) for token in piece.tokens), "dim"), soft_wrap=not out.is_terminal)
    if view.padding:
        out.print(Text(f"── {count_of(view.padding, 'padding token')}", "bold"))


def _tokens(piece: PieceView, colors: bool) -> Text:
    """The tokens of a piece, separated by color, or by bars if there are no colors. Line ends are visible."""
    line = Text()
    for number, token in enumerate(piece.tokens):
        text = visible(token.text.replace("\n", "↵\n").replace("\t", "→\t"))
        line.append(text if colors else f"{text}│", f"black on {STYLES[number % len(STYLES)]}")
    return line
