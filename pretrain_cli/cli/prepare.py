"""Implements `ptk prepare`: turns text into a tokenizer and packed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_cli.base import base_nature
from pretrain_cli.cli.fields import Flag
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size, count, count_of, duration, percent, rate

if TYPE_CHECKING:
    from pretrain_cli.data.result import PrepareResult


@command(
    Flag("model.base"),
    Flag("tokenizer.path", "--tokenizer"),
    Flag("tokenizer.vocab_size"),
    Flag("data.sequence_length"),
    Flag("data.packing"),
    Flag("data.validation_fraction"),
    Flag("data.document_separator"),
    Flag("data.text_column"),
    Flag("data.on_error"),
    Flag("data.workers"),
    Flag("data.executor"),
    Flag("data.shard"),
    examples=(
        "ptk prepare data.txt",
        "ptk prepare book.txt notes/ 'logs/*.jsonl.gz'",
        "ptk prepare data.txt --base smollm2",
        "cat data.txt | ptk prepare - --vocab-size 4000",
    ),
)
def prepare(
    session: Session,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Files, folders, globs, hf:// or s3:// paths, or - for standard input."),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Pack the shards that were encoded with --shard.")] = False,
) -> None:
    """Turn text into a tokenizer and packed rows.

    Reads txt, md, jsonl, json, csv, tsv, parquet, arrow, html, pdf, docx and epub files, also compressed as gz, bz2, xz
    or zst. Trains a tokenizer on the text, or with [bold]--base[/] uses the base's tokenizer. Holds out 5% of the text
    for evaluation.
    """
    if inputs:
        if not all(text.strip() for text in inputs):
            raise UsageError("An input has an empty name.", "Name a file or a folder; . is the current folder.")
        session = session.with_config(data__inputs=tuple(inputs))
    if not (session.config.data.inputs or session.config.data.sources):
        raise UsageError("There is no text to prepare.", "Name a file: ptk prepare data.txt")
    from pretrain_cli.data.prepare import prepare as run_prepare

    with session.progress() as progress:
        result = run_prepare(session.config, session.artifacts, progress, merge=merge)
    if session.config.data.shard:
        _show_shards(session, result)
        return
    session.console.result(_title(result), _facts(result, session.config.model.base), result)
    for warning in result.warnings if result.reused else ():  # a run of prepare shows its warnings as they arise
        session.console.warn(warning)
    session.console.next("ptk train --device auto")


def _show_shards(session: Session, result: PrepareResult) -> None:
    documents, tokens = count_of(result.documents, "document"), count_of(result.tokens, "token")
    title = f"Shards {session.config.data.shard}: {documents}, {tokens}"
    facts = [("time", _time(result)), ("in", str(result.path))]
    session.console.result(title, facts, result)
    session.console.next("ptk prepare --merge (when all shards are finished)")


def _title(result: PrepareResult) -> str:
    verb = "Already prepared" if result.reused else "Prepared"
    size, tokens = byte_size(result.bytes), count_of(result.tokens, "token")
    return f"{verb}: {count_of(result.documents, 'document')}, {size}, {tokens}"


def _facts(result: PrepareResult, base: str) -> list[tuple[str, str]]:
    held = result.held_out
    of = f": {held.told()}" if held is not None else f" of {count_of(result.validation_documents, 'document')}"
    nature = base_nature(base)
    facts = [
        ("tokenizer", result.tokenizer),
        *([("base", nature)] if nature else []),
        ("rows", f"{count(result.train_rows)} for training, {percent(result.fill, 1)} full"),
        ("held out", f"{count_of(result.validation_rows, 'row')}{of}"),
    ]
    if held is not None and len(held.kinds) > 1:
        facts.append(("by kind", ", ".join(f"{kind} {percent(share, 1)}" for kind, share in held.kinds.items())))
    if result.dropped:
        facts.append(("left out", ", ".join(f"{count(number)} {reason}" for reason, number in result.dropped.items())))
    if not result.reused:
        facts.append(("time", _time(result)))
    return [*facts, ("in", str(result.path))]


def _time(result: PrepareResult) -> str:
    return f"{duration(result.seconds)}, {rate(result.megabytes_per_second * 1e6, 'bytes')}"
