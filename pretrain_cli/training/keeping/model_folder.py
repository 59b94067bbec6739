"""Writes the model folder that a run leaves behind, with tokenizer and card."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import PreTrainedModel

from pretrain_cli.artifacts import MODEL_FILES, Artifacts, RunFolder
from pretrain_cli.refusals import writing_to
from pretrain_cli.run_record import RunRecord, TrainResult
from pretrain_cli.storage import publish_folder, temporary_folder
from pretrain_cli.training.rows.prepared import PreparedRows


def save_model(model: PreTrainedModel, run: RunFolder, artifacts: Artifacts, card: str) -> None:
    """Weights, tokenizer and card in ``run.model``, complete or absent.

    Raises:
        DiskError: the disk is full, or fails.
    """
    model.config.use_cache = True
    with writing_to(run.path), temporary_folder(run.path, "model") as parent:
        staging = parent / "model"
        model.save_pretrained(staging)
        copy_tokenizer_files(artifacts.tokenizer, staging)
        (staging / "README.md").write_text(card, encoding="utf-8")
        publish_folder(staging, run.model, MODEL_FILES)


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy every file of the tokenizer's folder; none of the model's own is replaced."""
    for entry in sorted(source.iterdir()):
        if entry.is_file() and not entry.name.startswith(".") and not (target / entry.name).exists():
            shutil.copyfile(entry, target / entry.name)


def model_card(record: RunRecord, rows: PreparedRows, result: TrainResult) -> str:
    """A README.md for the model: what it was made from, how, and how good it is."""
    base = record.base
    nature = f" ({record.base_nature})" if record.base_nature else ""
    on_hub = "/" in base and not base.startswith((".", "/"))
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {base}"] if on_hub else []),
        "tags: [pretraining, ptk]",
        "---",
        "",
        f"# {record.run}",
        "",
        f"Trained with ptk {record.versions['pretrain-cli']} "
        + (f"from the base `{Path(base).name}`{nature}." if base else "from scratch."),
        "",
        f"- parameters: {record.parameters:,}",
        f"- text: {', '.join(rows.inputs[:5]) or 'unnamed'}, {rows.train_tokens:,} tokens; "
        f"trained on {record.tokens:,}",
        f"- steps: {record.steps:,}; {record.precision} on {record.device}",
    ]
    if result.validation_loss is not None:
        bits = result.validation_bits_per_byte
        lines.append(
            f"- held-out loss: {result.validation_loss:.4f}"
            + (f", {bits:.4f} bits per byte" if bits is not None else "")
        )
    return "\n".join([*lines, "", "A language model repeats what it was trained on, mistakes and biases included.", ""])
