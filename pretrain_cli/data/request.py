"""Records what a prepare was asked for, and compares it with what an earlier one made."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.fingerprint import hash_tokenizer
from pretrain_cli.data.reading.settings import MAX_RECORD_BYTES
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import count_of, exact
from pretrain_cli.manifest import Manifest, damages, read_manifest
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.load import read_tokenizer

SHAPES_NOTHING = {"inputs", "sources", "workers", "executor", "shard"}
"""Keys of [data] that leave the rows as they are, or that are recorded in another form."""
CHANGES_SHOWN = 5

Request = dict[str, JsonValue]


def make_request(config: Config, sources: Sources, hashes: list[str]) -> Request:
    """All that shapes the output, known before any work; ``hashes`` of the sources' files."""
    data = config.data.model_dump(mode="json", exclude=SHAPES_NOTHING)
    if config.data.max_record_bytes == MAX_RECORD_BYTES:  # outputs made before there was a limit still match
        del data["max_record_bytes"]
    tokenizer = config.tokenizer.model_dump(mode="json")
    return {
        **data,
        "document_separator": config.data.separator,
        **{f"tokenizer.{name}": value for name, value in tokenizer.items()},
        "base": config.model.base,
        "tokenizer.json": hash_tokenizer(config.tokenizer.path),
        "sources": [[name, weight] for name, weight in zip(sources.names, sources.weights, strict=True)],
        "inputs": [[path, digest] for path, digest in zip(sources.paths, hashes, strict=True)],
    }


def matching_output(artifacts: Artifacts, request: Request, progress: Progress) -> Manifest | None:
    """The manifest of a complete output that ``request`` would make again, or None; ``progress`` is told why."""
    if not artifacts.manifest.is_file():
        return None
    try:
        previous = read_manifest(artifacts)
    except DataError as error:
        progress.note(f"Preparing again: {error.message}")
        return None
    if previous.request == request and _is_complete(artifacts, previous):
        progress.note("The prepared data matches: nothing to do.")
        return previous
    changes = differences(previous.request, request)
    progress.note(f"Preparing again: {'; '.join(changes) or 'the last output is incomplete'}.")
    return None


def _is_complete(artifacts: Artifacts, manifest: Manifest) -> bool:
    splits = ((artifacts.train_rows, manifest.train), (artifacts.validation_rows, manifest.validation))
    if damages(artifacts, manifest, read=True):
        return False
    try:
        if any(len(open_rows(folder)) != split.rows for folder, split in splits):
            return False
        return read_tokenizer(artifacts.tokenizer).fingerprint == manifest.tokenizer.fingerprint
    except Exception:  # whatever is wrong with it, it is made again
        return False


def differences(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> list[str]:
    """What changed, in words: ``sequence_length was 512, is 1,024``."""
    changes = []
    for name in after:
        if name == "inputs" and before.get(name) != after[name]:
            changes += _input_changes(before.get(name), after[name])
        elif before.get(name) != after[name]:
            changes.append(f"{name} was {_word(before.get(name))}, is {_word(after[name])}")
    return changes


def _input_changes(before: JsonValue, after: JsonValue) -> list[str]:
    old, new = _hashes(before), _hashes(after)
    changes = [f"{path} has changed" for path in new if path in old and old[path] != new[path]]
    changes += [f"{path} is new" for path in new if path not in old]
    changes += [f"{path} is gone" for path in old if path not in new]
    if len(changes) > CHANGES_SHOWN:
        return [*changes[:CHANGES_SHOWN], f"and {count_of(len(changes) - CHANGES_SHOWN, 'more file')}"]
    return changes or ["the order of the files has changed"]


def _hashes(inputs: JsonValue) -> dict[JsonValue, JsonValue]:
    return {entry[0]: entry[1] for entry in inputs or () if isinstance(entry, list)} if isinstance(inputs, list) else {}


def _word(value: JsonValue) -> str:
    if isinstance(value, str) and ("\\" in value or not value.isprintable()):
        return repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return exact(value)
    return "unset" if value in ("", None, []) else str(value)
