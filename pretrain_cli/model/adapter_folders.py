"""Merges an adapter's folder with its base into a folder that opens like any model's."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pretrain_cli.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Artifacts
from pretrain_cli.base import Base
from pretrain_cli.errors import ModelError, first_line
from pretrain_cli.model.adapter_checks import check_adapter_config, check_adapter_weights
from pretrain_cli.model.kept import is_kept, keep
from pretrain_cli.published import check_published
from pretrain_cli.storage import source_hash, temporary_folder
from pretrain_cli.tokenizer.copy import copy_tokenizer


def merge_folder(base: Base, below: str, artifacts: Artifacts) -> Path:
    """The model that an adapter makes of its base, under ``artifacts.bases``; made once, later calls find it there.

    Args:
        base: of kind "adapter".
        below: folder or Hub id of the model that the adapter belongs to.
        artifacts: where the result is kept.

    Raises:
        ModelError: the adapter is damaged, doesn't fit its base, or is of a kind that can't be merged.
    """
    folder = Path(base.location)
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise ModelError(
            f"The adapter {base.name} has no {ADAPTER_WEIGHTS}.", "Use a complete copy whose weights are in it."
        )
    check_adapter_config(folder)
    check_published(folder, tensors=True)
    parts = [folder / ADAPTER_CONFIG, weights]
    parts += sorted(Path(below).glob("*.safetensors")) if Path(below).is_dir() else []
    merged = artifacts.bases / f"{folder.name}-{source_hash(parts)[:16]}"
    if is_kept(merged, "config.json"):
        return merged
    from peft import PeftModel

    from pretrain_cli.model.load import load_model

    model = load_model(below, dtype="auto")
    check_adapter_weights(folder, model)
    try:
        whole = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except Exception as error:  # PEFT raises many kinds of errors
        raise ModelError(
            f"The adapter {base.name} can't be merged with {below}: {first_line(error)}.",
            "Use a LoRA adapter with the base that it was trained beside.",
        ) from error
    with temporary_folder(artifacts.bases, "adapter") as staging:
        inner = staging / "model"
        whole.save_pretrained(inner)
        with contextlib.suppress(ModelError):  # whoever needs a tokenizer says that there is none
            copy_tokenizer(base, inner)
        keep(inner, merged)
    return merged
