"""Which rows does a run train on, and do they fit its config and tokenizer?"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed, flatten
from pretrain_cli.config.model import Auto, Config
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.tokenizer.load import TokenizerInfo, read_tokenizer

MASKED_LENGTH = 1024
"""Keeping documents apart costs 1 to 13 % on a CPU at length 512, a quarter at 2 048."""

FREE = ("inputs", "on_error", "tokenizer.engine", "tokenizer.sample_bytes")
"""Keys of prepare that may differ now: they leave what the rows hold as it is."""


@dataclass(frozen=True)
class Prepared:
    """What prepare left: rows of ``sequence_length`` tokens, their tokenizer and manifest.

    ``masked``: documents in one row don't see each other.
    """

    manifest: dict[str, Any]
    tokenizer: TokenizerInfo
    train: PackedDataset
    validation: PackedDataset | None
    sequence_length: int
    masked: bool


def check_prepared(config: Config, manifest: dict[str, Any]) -> None:
    """The config asks for rows like those that are prepared.

    Raises:
        ConfigError: it names other settings of [data] or [tokenizer] than the rows were made with.
        DataError: there are no training rows.
    """
    asked, made = manifest.get("request", {}), {**manifest.get("settings", {}), **_tokenizer_settings(manifest)}
    defaults = dict(flatten(Config()))
    for key, wanted in flatten(config):
        section, _, name = key.partition(".")
        name = key if section == "tokenizer" else name
        if section not in ("data", "tokenizer") or name not in asked or name in FREE or wanted == defaults[key]:
            continue  # what isn't said now was said to prepare, as a flag perhaps
        plain = list(wanted) if isinstance(wanted, tuple) else wanted
        if key == "data.sources":
            plain = [[source.name or source.path, source.weight] for source in wanted]
        if plain not in (asked[name], made.get(name)):
            raise ConfigError(
                f"The rows were prepared with {key} = {made.get(name, asked[name])!r}, the config says {plain!r}.",
                "Prepare again with this config (ptk prepare …), or take the key out of it.",
            )
    if not manifest.get("train", {}).get("rows"):
        raise DataError("The prepared data holds no training row.", "Prepare more text, or shorter rows.")


def other_inputs(config: Config, manifest: dict[str, Any]) -> str:
    """A sentence where the config names an input that the rows weren't made from; "" where it doesn't.

    No error, since what is typed after `ptk prepare` overrules the config's inputs.
    """
    prepared = [str(entry.get("path", "")) for entry in manifest.get("inputs", [])]
    for named in config.data.inputs:
        path = str(Path(named).expanduser())
        if not any(
            name in (named, path) or Path(path) in Path(name).parents or fnmatch(name, path) for name in prepared
        ):
            return (
                f"data.inputs names {named}, which the rows weren't prepared from ({', '.join(prepared[:3])}): "
                "ptk prepare makes others."
            )
    return ""


def _tokenizer_settings(manifest: dict[str, Any]) -> dict[str, Any]:
    """What `auto` became, by the names that prepare's request has."""
    size = manifest.get("tokenizer", {}).get("vocab_size")
    return {"tokenizer.vocab_size": size} if size else {}


def prepared_tokenizer(artifacts: Artifacts, manifest: dict[str, Any]) -> TokenizerInfo:
    """The tokenizer that the rows were made with.

    Raises:
        DataError: another one is in its place.
    """
    tokenizer = read_tokenizer(artifacts.tokenizer)
    prepared = manifest.get("tokenizer", {}).get("fingerprint")
    if prepared and prepared != tokenizer.fingerprint:
        raise DataError(
            f"The tokenizer in {artifacts.tokenizer} isn't the one that the rows were made with.",
            "Prepare the text again: ptk prepare",
        )
    return tokenizer


def with_its_base(config: Config, manifest: dict[str, Any]) -> Config:
    """Rows that were made for a base are there to continue it, unless the config names another."""
    base = manifest.get("base")
    return changed(config, model__base=base) if base and not config.model.base else config


def keeps_apart(wanted: bool | Auto, packing: str, sequence_length: int, on_cpu: bool) -> bool:
    """Whether documents in one row don't see each other."""
    if wanted != "auto":
        return wanted
    return packing == "best-fit" and (sequence_length <= MASKED_LENGTH or not on_cpu)


def open_prepared(
    config: Config, artifacts: Artifacts, manifest: dict[str, Any], tokenizer: TokenizerInfo, device: str
) -> Prepared:
    """Open the rows, masked as the config, or the cost on ``device``, says."""
    length = PackedDataset(artifacts.train_rows, mask_documents=False).rows.sequence_length
    packing = manifest.get("settings", {}).get("packing", "")
    masked = keeps_apart(config.train.mask_documents, packing, length, torch.device(device).type == "cpu")
    held_out = int(manifest.get("validation", {}).get("rows") or 0)
    return Prepared(
        manifest=manifest,
        tokenizer=tokenizer,
        train=PackedDataset(artifacts.train_rows, mask_documents=masked),
        validation=PackedDataset(artifacts.validation_rows, mask_documents=masked) if held_out else None,
        sequence_length=length,
        masked=masked,
    )
