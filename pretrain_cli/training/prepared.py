"""Which rows does a run train on, and do they fit its config and tokenizer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.batches import PackedDataset
from pretrain_cli.errors import ConfigError, DataError
from pretrain_cli.tokenizer.load import TokenizerInfo, read_tokenizer

MASKED_LENGTH = 1024
"""Keeping documents apart costs 1 to 13 % on a CPU at length 512, a quarter at 2 048."""


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
        ConfigError: it names other settings than the rows were made with.
        DataError: there are no training rows.
    """
    settings = manifest.get("settings", {})
    for key in ("sequence_length", "packing", "add_bos", "add_eos"):
        wanted, made = getattr(config.data, key), settings.get(key)
        if wanted != "auto" and made is not None and wanted != made:
            if key == "add_eos" and wanted is True:
                continue  # a tokenizer without EOS can't add one
            raise ConfigError(
                f"The rows were prepared with data.{key} = {made!r}, the config says {wanted!r}.",
                "Prepare again with this config, or take the key out of it.",
            )
    if not manifest.get("train", {}).get("rows"):
        raise DataError("The prepared data holds no training row.", "Prepare more text, or shorter rows.")


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


def open_prepared(
    config: Config, artifacts: Artifacts, manifest: dict[str, Any], tokenizer: TokenizerInfo, device: str
) -> Prepared:
    """Open the rows, masked as the config, or the cost on ``device``, says."""
    masked = config.train.mask_documents
    length = PackedDataset(artifacts.train_rows, mask_documents=False).rows.sequence_length
    if masked == "auto":
        cheap = length <= MASKED_LENGTH or torch.device(device).type != "cpu"
        masked = manifest.get("settings", {}).get("packing") == "best-fit" and cheap
    held_out = int(manifest.get("validation", {}).get("rows") or 0)
    return Prepared(
        manifest=manifest,
        tokenizer=tokenizer,
        train=PackedDataset(artifacts.train_rows, mask_documents=masked),
        validation=PackedDataset(artifacts.validation_rows, mask_documents=masked) if held_out else None,
        sequence_length=length,
        masked=masked,
    )
