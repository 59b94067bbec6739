"""Records what a prepare was asked for, and compares it with what an earlier one made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import find_base, whole_name
from pretrain_cli.config.model import Config
from pretrain_cli.data.fingerprint import hash_tokenizer
from pretrain_cli.data.input_list import Inputs, KnownInputs, digest_of_list, path_keys, written
from pretrain_cli.data.reading.documents import HARMLESS_REASONS
from pretrain_cli.data.reading.settings import MAX_RECORD_BYTES
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import count_of, exact
from pretrain_cli.manifest import Manifest, damages, read_manifest
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.copy import tokenizer_hash
from pretrain_cli.tokenizer.load import read_tokenizer

SHAPES_NOTHING = {"inputs", "sources", "stages", "workers", "executor", "shard"}
"""Keys of [data] that leave the rows as they are, or that are recorded in another form."""
CHANGES_SHOWN = 5

BASE_TOKENIZER = "base_tokenizer"
"""Key of a request: what names the bytes of the base's own tokenizer."""
Request = dict[str, JsonValue]


def _base_tokenizer(config: Config, artifacts: Artifacts) -> str:
    """Names the bytes of the base's tokenizer where that makes the ids and is in a folder here; otherwise empty."""
    base = config.model.base
    own = Path(base).is_absolute() and not config.tokenizer.path
    return tokenizer_hash(find_base(base, artifacts)) if own else ""


def make_request(config: Config, inputs: Inputs, artifacts: Artifacts) -> Request:
    """All that shapes the output, known before any work."""
    data = config.data.model_dump(mode="json", exclude=SHAPES_NOTHING)
    if not config.data.replay:
        del data["replay"], data["replay_source"]
    if not config.data.fim_rate:
        del data["fim_rate"]
    if config.data.stages:  # which mixtures they are is training's matter
        data["stages"] = True
    if config.data.max_record_bytes == MAX_RECORD_BYTES:  # outputs made before there was a limit still match
        del data["max_record_bytes"]
    tokenizer = config.tokenizer.model_dump(mode="json")
    if not config.tokenizer.extend_vocab:  # nor before a vocabulary could be extended
        del tokenizer["extend_vocab"]
    sources = inputs.sources
    return {
        **data,
        "document_separator": config.data.separator,
        **{f"tokenizer.{name}": value for name, value in tokenizer.items()},
        "base": config.model.base,
        **({BASE_TOKENIZER: own} if (own := _base_tokenizer(config, artifacts)) else {}),
        "tokenizer.json": hash_tokenizer(config.tokenizer.path),
        "sources": [[name, weight] for name, weight in zip(sources.names, sources.weights, strict=True)],
        "inputs": inputs.digest,
    }


def matching_output(artifacts: Artifacts, request: Request, inputs: Inputs, progress: Progress) -> Manifest | None:
    """The manifest of a complete output that ``request`` would make again, or None; ``progress`` is told why."""
    if not artifacts.manifest.is_file():
        return None
    try:
        previous = read_manifest(artifacts)
    except DataError as error:
        progress.note(f"Preparing again: {error.message}")
        return None
    before = _as_recorded_now(previous.request)
    if set(previous.rejected) <= HARMLESS_REASONS:  # nothing bad was met, which is the same whatever is done about it
        before["on_error"] = request["on_error"]
    if BASE_TOKENIZER in request:  # outputs made before it was recorded still match
        before.setdefault(BASE_TOKENIZER, request[BASE_TOKENIZER])
    wrong = _what_is_wrong(artifacts, previous) if before == request else ""
    if before == request and not wrong:
        progress.note("The prepared data matches: nothing to do.")
        return previous
    changes = differences(before, request)
    if before.get("inputs") != request["inputs"]:
        changes += input_changes(artifacts, inputs)
    progress.note(f"Preparing again: {'; '.join(changes) or wrong}.")
    return None


def _as_recorded_now(request: Mapping[str, JsonValue]) -> Request:
    """An earlier request in today's form: the base's path absolute, the inputs named by one digest."""
    base, listed = request.get("base"), request.get("inputs")
    return {
        **request,
        **({"base": whole_name(base)} if isinstance(base, str) else {}),
        **({"inputs": digest_of_list(listed)} if isinstance(listed, list) else {}),
    }


def _what_is_wrong(artifacts: Artifacts, manifest: Manifest) -> str:
    """What is missing of the published output or differs from its record; empty if it is whole."""
    splits = ((artifacts.train_rows, manifest.train), (artifacts.validation_rows, manifest.validation))
    if found := damages(artifacts, manifest, read=True, lists=True):
        return found[0]
    try:
        if all(len(open_rows(folder)) == split.rows for folder, split in splits) and (
            read_tokenizer(artifacts.tokenizer).fingerprint == manifest.tokenizer.fingerprint
        ):
            return ""
    except Exception:  # whatever is wrong with it, it is made again
        return "the last output can't be read"
    return "the last output is incomplete"


def differences(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> list[str]:
    """Which settings changed, in words: ``sequence_length was 512, is 1,024``."""
    return [
        f"{name} was {_word(before.get(name))}, is {_word(after[name])}"
        for name in after
        if name != "inputs" and before.get(name) != after[name]
    ]


def input_changes(artifacts: Artifacts, inputs: Inputs) -> list[str]:
    """Which input files changed since the last prepare, in words; the first of them by name."""
    known = KnownInputs.of(artifacts)
    if known is None:
        return []
    old_paths, old_hashes = known.listed()
    new_paths = list(map(written, inputs.sources.paths()))
    old, new = path_keys(iter(old_paths)), path_keys(iter(new_paths))
    _, at_old, at_new = np.intersect1d(old, new, return_indices=True)
    other = at_new[(old_hashes[at_old] != inputs.hashes[at_new]).any(axis=1)]
    groups = (
        ("has changed", new_paths, np.sort(other)),
        ("is new", new_paths, np.flatnonzero(~np.isin(new, old))),
        ("is gone", old_paths, np.flatnonzero(~np.isin(old, new))),
    )
    total = sum(len(places) for _, _, places in groups)
    named = [f"{paths[at].decode()} {what}" for what, paths, places in groups for at in places[:CHANGES_SHOWN].tolist()]
    if total > CHANGES_SHOWN:
        return [*named[:CHANGES_SHOWN], f"and {count_of(total - CHANGES_SHOWN, 'more file')}"]
    return named or ["the order of the files has changed"]


def _word(value: JsonValue) -> str:
    if isinstance(value, str) and ("\\" in value or not value.isprintable()):
        return repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return exact(value)
    return "unset" if value in ("", None, []) else str(value)
