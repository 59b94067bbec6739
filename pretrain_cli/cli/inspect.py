"""`ptk inspect`: what the prepared rows hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.formatting import byte_size, count, count_of

if TYPE_CHECKING:
    from pretrain_cli.data.inspect import PieceView, PreparedFigures, RowView
    from pretrain_cli.manifest import SplitRecord

VISIBLE = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
"""Control characters as the pictures of them: written to a terminal, a text's own could do anything to it."""
STYLES = ("cyan", "green", "magenta", "yellow")


@command(examples=("ptk inspect", "ptk inspect --random --tokens", "ptk inspect --stats --json"))
def inspect(
    session: Session,
    row: Annotated[int, typer.Option("--row", metavar="N", help="Which row.")] = 0,
    random: Annotated[bool, typer.Option("--random", help="A row drawn by chance.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show each token's border and id.")] = False,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train or validation.")] = "train",
    stats: Annotated[bool, typer.Option("--stats", help="Show the numbers of the whole in place of a row.")] = False,
) -> None:
    """Look into the prepared rows: decoded, with the borders of documents and tokens, or in numbers."""
    from pretrain_cli.data.inspect import inspect_row, read_figures
    from pretrain_cli.errors import UsageError

    if split not in ("train", "validation"):
        raise UsageError(f"There is no split '{split}'.", "Splits: train, validation.")
    if stats:
        figures = read_figures(session.artifacts)
        session.console.result("The prepared data", _figures(figures), figures.model_dump(mode="json"))
    else:
        view = inspect_row(session.artifacts, None if random else row, split)
        many = len(view.pieces)
        title = f"Row {view.index} of {split}: {many} piece{'' if many == 1 else 's'}, {view.padding} tokens of padding"
        session.console.result(title, [], view)
        if not session.console.json:
            _show(session, view, tokens)
    session.console.next("ptk train --device auto")


def _figures(figures: PreparedFigures) -> list[tuple[str, str]]:
    tokenizer = figures.tokenizer
    facts = [
        ("documents", f"{count(figures.documents)}, {byte_size(figures.bytes)}, {count(figures.tokens)} tokens"),
        ("tokenizer", f"{tokenizer.source}, {count(tokenizer.vocab_size)} entries, encoded by {tokenizer.engine}"),
        ("tokens", f"{figures.bytes_per_token:.2f} bytes each"),
        ("packing", f"{figures.packing}, rows of {count(figures.sequence_length)} tokens"),
        ("pieces", f"{figures.pieces_per_row:.1f} in a row"),
        ("fill", f"{figures.fill:.2%}, {count(figures.padding)} tokens of padding"),
        ("to train on", _split(figures.train)),
        ("held out", _split(figures.validation)),
    ]
    for name, source in figures.sources.items():
        documents, size = source.documents + source.validation_documents, source.bytes + source.validation_bytes
        facts.append(
            (
                f"from {name}",
                f"{count(documents)} documents, {byte_size(size)}, {count(source.tokens)} tokens to train on",
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
    return ", ".join(f"{count(many)} {reason}" for reason, many in reasons.items()) or "nothing"


def _show(session: Session, view: RowView, tokens: bool) -> None:
    out = session.console.out
    for number, piece in enumerate(view.pieces):
        begins = "from its start" if not piece.start else f"from its token {piece.start:,}"
        out.print(Text(f"── document {piece.document} of {piece.source}, {begins}", "bold"))
        styled = (
            _tokens(piece, bool(out.color_system))
            if tokens
            else Text(piece.text.translate(VISIBLE), STYLES[number % len(STYLES)])
        )
        out.print(styled, soft_wrap=False if out.is_terminal else None)
        if tokens:
            out.print(Text(" ".join(str(token.id) for token in piece.tokens), "dim"), soft_wrap=not out.is_terminal)
    if view.padding:
        out.print(Text(f"── {view.padding} tokens of padding", "bold"))


def _tokens(piece: PieceView, colours: bool) -> Text:
    """The piece's tokens, told apart by colour, or where there is none by a bar; line ends are made visible."""
    line = Text()
    for number, token in enumerate(piece.tokens):
        text = token.text.replace("\n", "↵\n").replace("\t", "→\t").translate(VISIBLE)
        line.append(text if colours else f"{text}│", f"black on {STYLES[number % len(STYLES)]}")
    return line
