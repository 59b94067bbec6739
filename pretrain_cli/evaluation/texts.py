"""Collects the texts that an evaluation scores models on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pretrain_cli.addresses import redact_address
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.reading.folders import Account
from pretrain_cli.data.reading.input_files import PIPE, STDIN
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.evaluation.excerpt import draw_excerpt
from pretrain_cli.evaluation.reading import read_files, read_general, read_validation
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.manifest import check_bytes, read_manifest
from pretrain_cli.tokenizer.round_trip import told

VALIDATION, GENERAL = "validation", "general"
"""Names that `--on` knows without a file: the held-out rows, and the general text of the package."""
LEAST_BYTES = 2


def collect_texts(config: Config, artifacts: Artifacts) -> list[Text]:
    """The texts that ``config.evaluate`` asks for.

    Without ``evaluate.on``: the validation rows, where something is prepared, and the general text of the package.

    Raises:
        DataError: a file that isn't there, isn't text, or is too short to score.
        ConfigError: two texts with the same name.
    """
    if config.evaluate.on:
        texts = [_named_text(entry, config, artifacts) for entry in config.evaluate.on]
    else:
        texts = [Text.measured(GENERAL, read_general)]
        if artifacts.manifest.is_file():
            validation = _validation(artifacts)
            texts = [validation, *texts] if validation.n_bytes else texts
    names = [text.name for text in texts]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two texts have the same name: {', '.join(names)}.", "Name them: --on name=path.")
    for text in texts:
        if text.n_bytes < LEAST_BYTES:
            raise too_short(text)
    if config.evaluate.sample:
        sample, seed = config.evaluate.sample, config.evaluate.seed
        texts = [
            replace(draw_excerpt(text, sample, seed), unread=text.unread, lost=text.lost, doubts=text.doubts)
            for text in texts
        ]
    return texts


def too_short(text: Text) -> DataError:
    """The error for a text without a token to score."""
    return DataError(f"The text '{text.name}' is too short to score.", "Give a text of at least two tokens.")


def _validation(artifacts: Artifacts) -> Text:
    manifest = read_manifest(artifacts)
    check_bytes(artifacts, manifest, "validation")  # once: each model and the count of bytes read them again
    of = [manifest.held_out.told()] if manifest.held_out is not None else []
    back = manifest.tokenizer.round_trip
    # The rows give back what their tokenizer left of the text.
    of += (
        [f"as the rows' tokenizer gives it back, which loses {told(back)}"] if back is not None and back.changed else []
    )
    return Text.measured(VALIDATION, lambda: read_validation(artifacts, manifest), "; ".join(of))


def _named_text(entry: str, config: Config, artifacts: Artifacts) -> Text:
    """The text of one ``--on``: a path, NAME=PATH, or one of the two names."""
    name, equals, path = entry.partition("=")
    if not equals or "://" in name or Path(entry).exists():
        plain = redact_address(entry)
        name, path = Path(plain.partition("?")[0]).name.partition(".")[0] or plain, entry
    if entry in (VALIDATION, GENERAL) and not Path(entry).exists():
        if entry == GENERAL:
            return Text.measured(GENERAL, read_general)
        return _validation(artifacts)
    if not path:
        raise ConfigError(f"--on {entry} names no file.", f"Put a path after it: --on {entry}FILE")
    if path == STDIN:
        raise DataError("Standard input can be read only once.", "Write it to a file: --on FILE.")
    account = Account()
    files = find_files([path], account=account, strict=config.data.on_error != "skip")
    if any(file.size == PIPE for file in files):
        raise DataError(f"{path} is a pipe, which can be read only once.", "Write it to a file: --on FILE.")
    lost: list[str] = []
    doubts: list[str] = []
    text = Text.measured(name, lambda: read_files(files, config.data, lost, doubts))
    return replace(text, unread=account.told_skipped(), lost=tuple(lost), doubts=tuple(doubts))
