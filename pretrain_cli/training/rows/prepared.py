"""Opens the prepared rows for training, and checks that they fit its config and tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from pretrain_cli.addresses import redact_address
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import whole_name
from pretrain_cli.config.load import changed, flatten
from pretrain_cli.config.model import Auto, Config
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.manifest import Manifest, check_bytes, check_still
from pretrain_cli.manifest_records import RowLayout
from pretrain_cli.model.build import check_base_matches
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.storage import user_path
from pretrain_cli.tokenizer.load import TokenizerInfo, read_tokenizer
from pretrain_cli.tokenizer.round_trip import told
from pretrain_cli.training.rows.bringing import distant_rows, stay_there, without_distant

MASKED_LENGTH = 1024
"""Keeping documents apart costs 1 to 13 % on a CPU at length 512, and a quarter at 2,048."""

FREE = ("inputs", "stages", "on_error", "tokenizer.engine", "tokenizer.sample_bytes")
"""Keys of prepare that may differ now: they don't change what the rows hold."""


@dataclass(frozen=True)
class PreparedRows:
    """The rows a run trains on, and what it has to know of them.

    Attributes:
        fingerprint: names the rows: equal fingerprints mean equal rows.
        layout: how they were made.
        tokenizer: that made their ids.
        train: the training rows.
        validation: the rows held out; None where there are none.
        sequence_length: tokens in a row.
        masked: whether documents in one row don't see each other.
        why_seen: why they do, where they were to be kept apart.
        text: what the rows were made of, in words.
        train_tokens: in the training rows, padding left out.
        fill: share of the training rows' places that hold text; the rest is padding.
        validation_tokens_per_byte: of the rows held out, for bits per byte.
        held_out_of: what the rows held out are of, in words.
        loses: what the tokenizer loses of the text, in words; empty where it loses nothing.
        sources: name → training rows of this source alone; empty where rows hold several.
    """

    fingerprint: str
    layout: RowLayout
    tokenizer: TokenizerInfo
    train: PackedDataset
    validation: PackedDataset | None
    sequence_length: int
    masked: bool
    why_seen: str = ""
    text: str = ""
    train_tokens: int = 0
    fill: float = 1.0
    validation_tokens_per_byte: float | None = None
    held_out_of: str = ""
    loses: str = ""
    sources: Mapping[str, range] = field(default_factory=dict)

    def seen_across(self, why: str) -> PreparedRows:
        """The same rows without restarting positions: documents in one row see those before them."""
        train = PackedDataset(self.train.folder, mask_documents=False, rows=self.train.rows)
        held_out = PackedDataset(self.validation.folder, mask_documents=False) if self.validation is not None else None
        return replace(self, train=train, validation=held_out, masked=False, why_seen=why)

    def with_lengths(self) -> PreparedRows:
        """The same rows with where their documents begin, for attention without a mask."""
        train = PackedDataset(self.train.folder, self.masked, lengths=True, rows=self.train.rows)
        held_out = self.validation and PackedDataset(self.validation.folder, self.masked, lengths=True)
        return replace(self, train=train, validation=held_out)

    @property
    def text_tokens(self) -> int:
        """Of one pass over the training rows, padding included."""
        return len(self.train) * self.sequence_length

    @property
    def new_tokens(self) -> range:
        """Ids that the base's own tokenizer doesn't have."""
        size = self.tokenizer.vocab_size
        return range(size if self.tokenizer.grown_from is None else self.tokenizer.grown_from, size)

    @property
    def held_out(self) -> int:
        """Rows held out."""
        return len(self.validation) if self.validation is not None else 0


def check_prepared(config: Config, manifest: Manifest) -> None:
    """The config asks for rows like those that are prepared.

    Raises:
        ConfigError: it names other settings of [data] or [tokenizer] than the rows were made with.
        DataError: there are no training rows.
    """
    asked = {"tokenizer.extend_vocab": 0, "replay": 0.0, "replay_source": "", "fim_rate": 0.0, **manifest.request}
    # What `auto` became, by the names that prepare's request has.
    extension = manifest.tokenizer.extension
    made = {
        **manifest.settings.model_dump(mode="json"),
        "tokenizer.vocab_size": manifest.tokenizer.vocab_size,
        "tokenizer.extend_vocab": extension.added if extension is not None else 0,
    }
    defaults = dict(flatten(Config()))
    for key, wanted in flatten(config):
        section, _, name = key.partition(".")
        name = key if section == "tokenizer" else name
        if section not in ("data", "tokenizer") or name not in asked or name in FREE or wanted == defaults[key]:
            continue  # what isn't said now was said to prepare, as a flag perhaps
        plain = list(wanted) if isinstance(wanted, tuple) else wanted
        if key == "data.sources":
            plain = [[redact_address(source.name or source.path), source.weight] for source in wanted]
        if key == "data.document_separator":
            plain = config.data.separator
        if plain not in (asked[name], made.get(name)):
            raise ConfigError(
                f"The rows were prepared with {key} = {made.get(name, asked[name])!r}, the config says {plain!r}.",
                "Prepare again with this config (ptk prepare …), or take the key out of it.",
            )
    if config.data.stages and "stages" not in manifest.request:
        raise ConfigError(
            "The config has [[data.stages]], and the rows were prepared without: they hold several sources each.",
            "Prepare again with this config: ptk prepare",
        )
    if not manifest.train.rows:
        raise DataError("The prepared data holds no training row.", "Prepare more text, or shorter rows.")


def other_inputs(config: Config, manifest: Manifest) -> str:
    """A sentence where the config names an input that the rows weren't made from; "" where it doesn't.

    No error, since what is typed after `ptk prepare` overrules the config's inputs.
    """
    prepared = [entry.path for entry in manifest.inputs]
    if len(prepared) < manifest.input_count:  # only the first are listed
        return ""
    for named in config.data.inputs:
        named = redact_address(named)
        path = named if "://" in named else str(user_path(named))
        if not any(
            name in (named, path) or Path(path) in Path(name).parents or fnmatch(name, path) for name in prepared
        ):
            return (
                f"data.inputs names {named}, but the rows were prepared from {', '.join(prepared[:3])}. To use it: "
                "ptk prepare"
            )
    return ""


def prepared_tokenizer(artifacts: Artifacts, manifest: Manifest) -> TokenizerInfo:
    """The tokenizer that the rows were made with.

    Raises:
        DataError: another one is in its place.
    """
    tokenizer = read_tokenizer(artifacts.tokenizer)
    if manifest.tokenizer.fingerprint != tokenizer.fingerprint:
        raise DataError(
            f"The tokenizer in {artifacts.tokenizer} is not the one that made the rows.",
            "Prepare the text again: ptk prepare",
        )
    return tokenizer


def with_its_base(config: Config, manifest: Manifest) -> Config:
    """Rows that were made for a base are there to continue it, unless the config names another.

    A path is made absolute: a resume may be typed in another folder.
    """
    base = config.model.base or manifest.base
    return changed(config, model__base=whole_name(base)) if base else config


def keeps_apart(wanted: bool | Auto, packing: str, sequence_length: int, on_cpu: bool) -> bool:
    """Whether documents in one row don't see each other."""
    if wanted != "auto":
        return wanted
    return packing == "best-fit" and (sequence_length <= MASKED_LENGTH or not on_cpu)


def open_prepared(
    config: Config, artifacts: Artifacts, manifest: Manifest, device: str, progress: Progress = SILENT
) -> PreparedRows:
    """Open the rows, masked as the config, or the cost on ``device``, says.

    Raises:
        DataError: the tokenizer is not the one that made the rows, they are damaged, or a prepare has replaced them
            meanwhile.
        ModelError: the base has another tokenizer.
    """
    tokenizer = prepared_tokenizer(artifacts, manifest)
    check_base_matches(config, manifest, artifacts)
    stay = stay_there(config, artifacts)
    rows = distant_rows(artifacts, manifest, progress) if stay else open_rows(artifacts.train_rows)
    length = rows.sequence_length
    on_cpu = torch.device(device).type == "cpu"
    masked = keeps_apart(config.train.mask_documents, manifest.settings.packing, length, on_cpu)
    train = PackedDataset(artifacts.train_rows, mask_documents=masked, rows=rows)
    held_out = PackedDataset(artifacts.validation_rows, mask_documents=masked) if manifest.validation.rows else None
    here = without_distant(manifest) if stay else manifest
    check_still(artifacts, here)
    for split in ("train", "validation"):
        check_bytes(artifacts, here, split)
    return PreparedRows(
        fingerprint=manifest.fingerprint,
        layout=manifest.settings,
        tokenizer=tokenizer,
        train=train,
        validation=held_out,
        sequence_length=length,
        masked=masked,
        text=manifest.told_inputs,
        train_tokens=manifest.train.tokens,
        fill=manifest.train.fill(length),
        validation_tokens_per_byte=manifest.validation.tokens_per_byte,
        held_out_of=manifest.held_out.told() if manifest.held_out is not None else "",
        loses=told(manifest.tokenizer.round_trip) if manifest.tokenizer.round_trip is not None else "",
        sources=_rows_by_source(manifest) if "stages" in manifest.request else {},
    )


def _rows_by_source(manifest: Manifest) -> dict[str, range]:
    ends = itertools.accumulate(source.rows for source in manifest.sources.values())
    return {
        name: range(end - source.rows, end) for (name, source), end in zip(manifest.sources.items(), ends, strict=True)
    }
