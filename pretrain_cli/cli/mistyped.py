"""Finds the option that was meant where one from another tool, or a setting without a flag, was typed."""

from __future__ import annotations

from collections.abc import Container

from pretrain_cli.config.load import known_keys

ELSEWHERE = {
    "lr": "train.learning_rate",
    "peak_lr": "train.learning_rate",
    "batch": "train.batch_tokens",
    "batch_size": "train.batch_tokens",
    "per_device_train_batch_size": "train.micro_batch",
    "gradient_accumulation_steps": "train.gradient_accumulation",
    "steps": "train.max_steps",
    "max_iters": "train.max_steps",
    "num_train_epochs": "train.epochs",
    "epoch": "train.epochs",
    "num_epochs": "train.epochs",
    "minutes": "train.max_minutes",
    "max_time": "train.max_minutes",
    "gpu": "train.device",
    "cuda": "train.device",
    "cpu": "train.device",
    "gpus": "train.processes",
    "nproc_per_node": "train.processes",
    "num_workers": "train.workers",
    "dtype": "train.precision",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "optim": "train.optimizer",
    "lr_scheduler_type": "train.schedule",
    "warmup": "train.warmup_steps",
    "model": "model.base",
    "model_name_or_path": "model.base",
    "vocab": "tokenizer.vocab_size",
    "seq_len": "data.sequence_length",
    "seq_length": "data.sequence_length",
    "block_size": "data.sequence_length",
    "context_length": "data.sequence_length",
    "max_seq_length": "data.sequence_length",
    "separator": "data.document_separator",
    "val_fraction": "data.validation_fraction",
    "max_new_tokens": "generate.max_tokens",
    "temp": "generate.temperature",
    "num_samples": "generate.samples",
    "wandb": "tracking.report_to",
    "report_to": "tracking.report_to",
    "name": "--run",
    "run_name": "--run",
    "output": "--artifacts",
    "output_dir": "--artifacts",
    "out_dir": "--artifacts",
    "verbose": "--debug",
}
"""What other tools call a setting → its key, or the option, here."""
NOTES = {"train.batch_tokens": ", which counts tokens: rows times sequence length"}


def meant_option(options: Container[str], typed: str) -> str:
    """How to say ``typed``, such as "Use --learning-rate"; empty where nothing is known of it.

    Args:
        options: of the command.
        typed: what isn't one of them.
    """
    name = typed.split("=")[0].lstrip("-").replace("-", "_").lower()
    wanted = ELSEWHERE.get(name, "")
    if wanted.startswith("--"):
        return f"Use {wanted}" if wanted in options else ""
    keys = [wanted] if wanted else [key for key in known_keys() if key.rpartition(".")[2] == name]
    for key in keys:
        note = NOTES.get(key, "")
        option = f"--{key.rpartition('.')[2].replace('_', '-')}"
        return f"Use {option}{note}" if option in options else f"Use --set {key}=VALUE{note}"
    return ""
