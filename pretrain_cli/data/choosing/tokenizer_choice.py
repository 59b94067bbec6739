"""Finds the tokenizer that encodes the text: the last prepare's, a named one, the base's, or one trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock
from pydantic import JsonValue

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import find_base
from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing.tokenizer_sample import draw_sample, nothing_left
from pretrain_cli.data.choosing.vocabulary import extend_vocabulary, read_extension
from pretrain_cli.data.encoding.vocabulary_bytes import read_spec
from pretrain_cli.data.fingerprint import fingerprint
from pretrain_cli.data.ours import copy_prepared
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import byte_size
from pretrain_cli.manifest import read_manifest
from pretrain_cli.manifest_records import RoundTripRecord, TokenizerRecord
from pretrain_cli.progress import Progress
from pretrain_cli.storage import publish_folder
from pretrain_cli.tokenizer.copy import copy_tokenizer
from pretrain_cli.tokenizer.load import TokenizerInfo, open_tokenizer, read_tokenizer
from pretrain_cli.tokenizer.long_words import longest_word
from pretrain_cli.tokenizer.middles import NAMES
from pretrain_cli.tokenizer.round_trip import round_trip
from pretrain_cli.tokenizer.train import choose_vocab_size, train_tokenizer
from pretrain_cli.trees import remove_tree

SHAPES_THE_SAMPLE = (
    *("encoding", "text_column", "document_separator", "cleaning", "split", "seed"),
    *("validation_fraction", "exact_dedup", "near_dedup"),
)


def tokenizer_key(request: Mapping[str, JsonValue]) -> str:
    """Names what the tokenizer depends on; ``request`` is all that shapes the output."""
    own = {name: value for name, value in request.items() if name.startswith(("tokenizer", "base"))}
    if request.get("tokenizer.extend_vocab") or not (request["tokenizer.path"] or request["base"]):
        own |= {"inputs": request["inputs"], "read": [request[name] for name in SHAPES_THE_SAMPLE]}
        if "fim_rate" in request:
            own["more"] = list(NAMES)
    return fingerprint(own)


def find_tokenizer(
    config: Config, artifacts: Artifacts, work: Path, key: str, sources: Sources, progress: Progress
) -> TokenizerInfo:
    """The tokenizer in ``work``: the last prepare's where ``key`` is the same, else made anew.

    The one in the artifact folder stays what it is until the new rows are complete.
    """
    folder = work / f"tokenizer-{key[:16]}"
    with FileLock(artifacts.data / ".tokenizer.lock"):  # machines that share the folder may start at the same time
        if not folder.is_dir():
            staging = work / "tokenizer.new"
            remove_tree(staging, ignore_errors=True)
            if _is_prepared(artifacts, key):
                copy_prepared(artifacts, staging)
            else:
                _make(config, artifacts, staging, sources, progress)
            publish_folder(staging, folder)
    return read_tokenizer(folder)


def _is_prepared(artifacts: Artifacts, key: str) -> bool:
    try:
        made = read_manifest(artifacts).tokenizer
        return made.key == key and read_tokenizer(artifacts.tokenizer).fingerprint == made.fingerprint
    except DataError:  # nothing is prepared, or it is damaged: made again
        return False


def _make(config: Config, artifacts: Artifacts, folder: Path, sources: Sources, progress: Progress) -> None:
    if config.tokenizer.path:
        copy_tokenizer(config.tokenizer.path, folder)
    elif config.model.base:
        copy_tokenizer(find_base(config.model.base, artifacts), folder)
        if config.tokenizer.extend_vocab:
            extend_vocabulary(config, folder, sources, progress)
    else:
        progress.stage("training the tokenizer")
        sample = draw_sample(sources.files, config, folder.parent)
        size = config.tokenizer.vocab_size
        if not sample.texts:
            raise nothing_left(sample)
        chosen = choose_vocab_size(sample.total_bytes) if size == "auto" else size
        train_tokenizer(sample.texts, chosen, folder, NAMES if config.data.fim_rate else ())
        progress.end_stage()
        made = read_tokenizer(folder).vocab_size
        if made < chosen:
            progress.note(f"The vocabulary has {made:,} entries: the text doesn't give {chosen:,}.")
        elif size == "auto":
            progress.note(f"The vocabulary has {made:,} entries, enough for {byte_size(sample.total_bytes)} of text.")
        if sample.bytes < 0.9 * sample.total_bytes:
            progress.note(
                f"The tokenizer is trained on {byte_size(sample.bytes)}, "
                f"drawn evenly from {byte_size(sample.total_bytes)}."
            )


def measure_round_trip(config: Config, info: TokenizerInfo, sample: Sequence[str]) -> RoundTripRecord:
    """What is lost of the input's ``sample`` when it becomes ids and text again."""
    tokenizer = open_tokenizer(info.file)
    tokenizer.encode_special_tokens = not config.data.parse_special_tokens
    return round_trip(tokenizer, sample)


def tokenizer_record(
    config: Config, info: TokenizerInfo, engine: str, key: str, back: RoundTripRecord
) -> TokenizerRecord:
    """What the manifest says of the tokenizer."""
    path, base = config.tokenizer.path, config.model.base
    return TokenizerRecord(
        fingerprint=info.fingerprint,
        vocab_size=info.vocab_size,
        engine=engine,
        source=f"from {path}" if path else f"from {base}" if base else "trained here",
        key=key,
        longest_word=longest_word(read_spec(info.file)),
        round_trip=back,
        extension=read_extension(info.folder),
    )
