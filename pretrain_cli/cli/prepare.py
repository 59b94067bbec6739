"""Implements `ptk prepare`: turns text into a tokenizer and packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_cli.base import base_nature
from pretrain_cli.cli.console import shell
from pretrain_cli.cli.fields import Flag
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size, count, count_of, duration, exact, percent, rate

if TYPE_CHECKING:
    from pretrain_cli.data.result import PrepareResult
    from pretrain_cli.manifest_records import ExtensionRecord, FileAccount

COLUMNS_SHOWN = 3
PLAIN_ENDINGS = {
    *("no ending", "log", "tex", "org", "adoc", "srt", "vtt", "xml", "yaml", "yml", "ini", "cfg", "toml", "sql", "sh"),
    *("py", "js", "ts", "c", "h", "cpp", "hpp", "java", "go", "rs", "rb", "php", "r", "jl", "lua", "css"),
}
"""Endings of files that hold plain text, and that a folder's files are read of only by name."""


@command(
    Flag("model.base"),
    Flag("tokenizer.path", "--tokenizer"),
    Flag("tokenizer.vocab_size"),
    Flag("tokenizer.extend_vocab"),
    Flag("data.sequence_length"),
    Flag("data.packing"),
    Flag("data.validation_fraction"),
    Flag("data.replay"),
    Flag("data.replay_source"),
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
        "ptk prepare corpus/ --base smollm2 --extend-vocab auto",
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
    or zst, and in tar and zip archives. Says which files of a folder it doesn't read, and why. Trains a tokenizer on
    the text, or with [bold]--base[/] uses the base's tokenizer. Holds out 5% of the text for evaluation.
    """
    if inputs:
        if not all(text.strip() for text in inputs):
            raise UsageError("An input has an empty name.", "Name a file or a folder; . is the current folder.")
        session = session.with_config(data__inputs=tuple(inputs))
    if not (session.config.data.inputs or session.config.data.sources):
        raise UsageError("There is no text to prepare.", "Name a file: ptk prepare data.txt")
    from pretrain_cli.data.prepare import prepare as run_prepare

    with session.progress() as progress:
        if session.config.data.replay:
            from pretrain_cli.generation.replay import write_own_replay

            write_own_replay(session.config, session.artifacts, progress)
        result = run_prepare(session.config, session.artifacts, progress, merge=merge)
    if session.config.data.shard:
        _show_shards(session, result)
        return
    session.console.result(_title(result), _facts(result, session.config.model.base), result)
    for warning in result.warnings if result.reused else ():  # a run of prepare shows its warnings as they arise
        session.console.warn(warning)
    for hint in _hints(result.input_files, session.config.data.inputs):
        session.console.hint(hint)
    session.console.next("ptk train --device auto")


def _show_shards(session: Session, result: PrepareResult) -> None:
    documents, tokens = count_of(result.documents, "document"), count_of(result.tokens, "token")
    title = f"Shards {session.config.data.shard}: {documents}, {tokens}"
    facts = [("time", _time(result)), ("in", str(result.path))]
    session.console.result(title, facts, result)
    session.console.next("ptk prepare --merge (when all shards are finished)")


def _title(result: PrepareResult) -> str:
    verb = "Already prepared" if result.reused else "Prepared"
    size, tokens = byte_size(result.text_bytes), count_of(result.tokens, "token")
    return f"{verb}: {count_of(result.documents, 'document')}, {size}, {tokens}"


def _facts(result: PrepareResult, base: str) -> list[tuple[str, str]]:
    held = result.held_out
    of = f": {held.told()}" if held is not None else f" of {count_of(result.validation_documents, 'document')}"
    nature = base_nature(base)
    facts = [
        *_files(result.input_files),
        ("tokenizer", result.tokenizer),
        *_extension(result.extension),
        *([("base", nature)] if nature else []),
        *_text_columns(result),
        ("rows", f"{count(result.train_rows)} for training, {percent(result.fill, 1)} full"),
        *([("packed", result.row_choice)] if result.row_choice else []),
        ("held out", f"{count_of(result.validation_rows, 'row')}{of}"),
    ]
    if held is not None and len(held.kinds) > 1:
        facts.append(("by kind", ", ".join(f"{percent(share, 1)} of {kind}" for kind, share in held.kinds.items())))
    if dropped := _dropped(result):
        facts.append(("left out", ", ".join(f"{count(n)} {reason.replace('_', ' ')}" for reason, n in dropped.items())))
    if result.cleaning_speed:
        facts.append(("cleaning", _cleaning(result)))
    if not result.reused:
        facts.append(("time", _time(result)))
    return [*facts, ("in", str(result.path))]


def _dropped(result: PrepareResult) -> dict[str, int]:
    """Documents that were left out, by reason, without the whole files that "not read" has already told of."""
    groups = result.input_files.skipped if result.input_files is not None and result.input_files.files > 1 else ()
    told: dict[str, int] = {}
    for group in groups:
        told[group.reason] = told.get(group.reason, 0) + group.files
    left = {reason: number - told.get(reason, 0) for reason, number in result.dropped.items()}
    return {reason: number for reason, number in left.items() if number > 0}


def _files(account: FileAccount | None) -> list[tuple[str, str]]:
    """The files of the input, read or not; nothing for a single one."""
    if account is None or (account.files < 2 and not account.unreadable_folders):
        return []
    from pretrain_cli.data.reading.folders import told_kinds, told_reasons

    read = told_kinds({kind: group.files for kind, group in account.read.items()})
    facts = [("files", f"{exact(account.read_files)} of {exact(account.files)} read: {read}")]
    if account.skipped:
        facts.append(("not read", told_reasons(account.by_reason())))
    if account.unreadable_folders:
        facts.append(
            (
                "not listed",
                f"{count_of(len(account.unreadable_folders), 'folder')} without permission, or nested too deep",
            )
        )
    if account.linked_folders:
        facts.append(("links", f"{count_of(len(account.linked_folders), 'link')} to folders that are read already"))
    return facts


def _hints(account: FileAccount | None, inputs: Sequence[str]) -> list[str]:
    """What can be done with files that weren't read."""
    hints = []
    skipped = account.skipped if account is not None else ()
    other = next((group for group in skipped if group.reason == "unknown_ending" and group.kind in PLAIN_ENDINGS), None)
    if other is not None and other.examples:
        hints.append(
            "To read a file with another ending as plain text too, name it beside the others: "
            f"{shell('ptk', 'prepare', *inputs, other.examples[0])}"
        )
    split = next((group for group in skipped if group.reason.endswith("_split")), None)
    if split is not None and split.examples:
        name = split.reason.removesuffix("_split")
        hints.append(f"To measure on the {name} split: ptk evaluate --on {shell(split.examples[0])}")
    return hints


def _text_columns(result: PrepareResult) -> list[tuple[str, str]]:
    """The columns that were taken for the text, with their share: the most used first."""
    chosen = sorted(result.text_columns.items(), key=lambda item: -item[1].files)
    told = [f"{name} ({column.told()})" for name, column in chosen[:COLUMNS_SHOWN]]
    more = [f"and {count(len(chosen) - COLUMNS_SHOWN)} more"] if len(chosen) > COLUMNS_SHOWN else []
    return [("text column", ", ".join([*told, *more]))] if told else []


def _extension(found: ExtensionRecord | None) -> list[tuple[str, str]]:
    """What was added to the base's vocabulary, and what it saves of each source."""
    if found is None:
        return []
    characters = f", {count_of(found.characters, 'character')} among them" if found.characters else ""
    added = f"{exact(found.added)} added to {exact(found.first)}{characters}; a sample uses {exact(found.used)}"
    return [("vocabulary", added), *((f"  {name}", tokens.told()) for name, tokens in found.sources.items())]


def _cleaning(result: PrepareResult) -> str:
    """What one core takes through each step."""
    speeds = (f"{step} {rate(speed * 1e6, 'bytes')}" for step, speed in result.cleaning_speed.items())
    return f"{', '.join(speeds)} on a core"


def _time(result: PrepareResult) -> str:
    return f"{duration(result.seconds)}, {rate(result.megabytes_per_second * 1e6, 'bytes')}"
