"""`ptk inspect`: what the prepared rows hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pretrain_cli.cli.console import count, megabytes
from pretrain_cli.cli.options import Session, command

if TYPE_CHECKING:
    from pretrain_cli.data.inspect import PieceView, RowView

STYLES = ("cyan", "green", "magenta", "yellow")


@command()
def inspect(
    session: Session,
    row: Annotated[int, typer.Option("--row", metavar="N", help="Which row.")] = 0,
    random: Annotated[bool, typer.Option("--random", help="A row drawn by chance.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show each token's border and id.")] = False,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train or validation.")] = "train",
    stats: Annotated[bool, typer.Option("--stats", help="Show the numbers of the whole in place of a row.")] = False,
) -> None:
    """Look into the prepared rows: decoded, with the borders of documents and tokens, or in numbers."""
    from pretrain_cli.data.inspect import inspect_row, statistics
    from pretrain_cli.errors import UsageError

    if split not in ("train", "validation"):
        raise UsageError(f"There is no split '{split}'.", "Splits: train, validation.")
    if stats:
        numbers = statistics(session.artifacts)
        session.console.result("The prepared data", _numbers(numbers), numbers)
    else:
        view = inspect_row(session.artifacts, None if random else row, split)
        title = f"Row {view.index} of {split}: {len(view.pieces)} pieces, {view.padding} tokens of padding"
        session.console.result(title, [], view)
        if not session.console.json:
            _show(session, view, tokens)
    session.console.next("ptk train --device auto")


def _numbers(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    histogram = ", ".join(f"≤{limit}: {documents}" for limit, documents in numbers["document_tokens"].items())
    facts = [
        ("documents", f"{numbers['documents']}, {megabytes(numbers['bytes'])}, {count(numbers['tokens'])} tokens"),
        ("tokens", f"{numbers['bytes_per_token']:.2f} bytes each"),
        ("rows", f"{numbers['train']['rows']} to train on, {numbers['validation']['rows']} held out"),
        ("packing", f"{numbers['packing']}, {numbers['sequence_length']} tokens, {numbers['fill']:.2%} full"),
        ("lengths", f"tokens a document: {histogram}"),
        ("left out", ", ".join(f"{reason} {n}" for reason, n in numbers["dropped"].items()) or "nothing"),
    ]
    for name, source in numbers["sources"].items():
        facts.append((f"from {name}", f"{source['documents']} documents, {count(source['tokens'])} tokens"))
    return facts


def _show(session: Session, view: RowView, tokens: bool) -> None:
    for number, piece in enumerate(view.pieces):
        session.console.out.print(
            Text(f"── document {piece.document} of {piece.source}, from its token {piece.start} ", "bold")
        )
        session.console.out.print(_tokens(piece) if tokens else Text(piece.text, STYLES[number % len(STYLES)]))


def _tokens(piece: PieceView) -> Text:
    line = Text()
    for number, token in enumerate(piece.tokens):
        line.append(token.text, f"black on {STYLES[number % len(STYLES)]}")
    return line
