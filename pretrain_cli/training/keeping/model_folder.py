"""Writes the model folder that a run leaves behind, with tokenizer and card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from pretrain_cli.artifacts import ADAPTER_FILES, MODEL_RECORD, RunFolder
from pretrain_cli.model.adapters import save_adapter
from pretrain_cli.published import edited_files, record_model, unchanged_files
from pretrain_cli.refusals import writing_to
from pretrain_cli.run_record import RunRecord, TrainResult
from pretrain_cli.storage import publish_folder, temporary_folder
from pretrain_cli.tokenizer.as_opened import opens_as_is, settle_class
from pretrain_cli.tokenizer.copy import copy_tokenizer_files
from pretrain_cli.tokenizer.load import open_tokenizer
from pretrain_cli.training.rows.prepared import PreparedRows

COMPARED_ROWS = 32


def save_model(model: PreTrainedModel, run: RunFolder, tokenizer: Path, card: str, texts: Sequence[str] = ()) -> str:
    """Weights, tokenizer and card in ``run.model``, complete or absent.

    Args:
        model: to save.
        run: whose it is.
        tokenizer: the folder of its tokenizer.
        card: the text of its README.md.
        texts: on which plain AutoTokenizer has to make the ids that were trained on.

    Returns:
        What has to be said of the tokenizer, and of files that somebody has changed in the last model; mostly nothing.

    Raises:
        DiskError: the disk is full, or fails.
    """
    model.config.use_cache = True
    with writing_to(run.path), temporary_folder(run.path, "model") as parent:
        staging = parent / "model"
        model.save_pretrained(staging)
        copy_tokenizer_files(tokenizer, staging)
        told = settle_class(staging, texts)
        (staging / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
        record_model(staging)
        edited = edited_files(run.model)
        publish_folder(staging, run.model, unchanged_files, MODEL_RECORD)
    kept = [f"{run.model / name} wasn't as ptk wrote it: it is kept as {name}.old." for name in edited]
    return " ".join([*([told] if told else []), *kept])


def trained_texts(rows: PreparedRows, based: bool) -> list[str]:
    """The text of some training rows, as far as their ids say it; none for a tokenizer that opens as it is.

    With a base its config has a say too in how a tokenizer opens, so that it is always tried.
    """
    if not based and opens_as_is(rows.tokenizer.folder):
        return []
    tokenizer = open_tokenizer(rows.tokenizer.file)
    count = len(rows.train)
    chosen = range(0, count, max(1, count // COMPARED_ROWS))
    return [tokenizer.decode(rows.train.rows.input_ids[row].tolist()) for row in list(chosen)[:COMPARED_ROWS]]


def save_adapter_folder(model: PreTrainedModel, run: RunFolder) -> None:
    """LoRA's matrices in ``run.adapter``, complete or absent.

    Raises:
        DiskError: the disk is full, or fails.
    """
    with writing_to(run.path), temporary_folder(run.path, "adapter") as parent:
        staging = parent / "adapter"
        save_adapter(model, staging)
        record_model(staging)
        publish_folder(staging, run.adapter, partial(unchanged_files, patterns=ADAPTER_FILES), MODEL_RECORD)


def _method(record: RunRecord) -> list[str]:
    plan = record.plan
    adapted = plan is not None and plan.method != "full"
    return [f"- trained with {plan.method} of rank {plan.lora_rank}, merged"] if plan and adapted else []


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
        f"- text: {rows.text or 'unnamed'}, {rows.train_tokens:,} tokens; trained on {record.tokens:,}",
        *_method(record),
        f"- steps: {record.steps:,}; {record.precision} on {record.device}",
    ]
    if result.validation_loss is not None:
        bits = result.validation_bits_per_byte
        lines.append(
            f"- held-out loss: {result.validation_loss:.4f}"
            + (f", {bits:.4f} bits per byte" if bits is not None else "")
        )
        if rows.loses and bits is not None:
            lines.append(f"- bits per byte look better than they are: the tokenizer loses {rows.loses}")
    return "\n".join([*lines, "", "A language model repeats what it was trained on, mistakes and biases included.", ""])
