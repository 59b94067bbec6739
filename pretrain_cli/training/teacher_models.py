"""Opens the models that a run learns from, and checks that they can teach it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.adapters import weights_hash
from pretrain_cli.model.build import check_length
from pretrain_cli.model.limits import position_limit
from pretrain_cli.model.load import load_model
from pretrain_cli.model.names import find_model, open_folders
from pretrain_cli.model.probes import check_causal, head_is_plain, keeps_documents_apart
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.step.teachers import Teacher, Teachers


@dataclass(frozen=True)
class Taught:
    """The rows that teachers read: the folder of their tokenizer, their tokens, and whether documents are apart."""

    tokenizer: Path
    sequence_length: int
    masked: bool


def open_teachers(
    train: TrainConfig, artifacts: Artifacts, machine: Machine, rows: Taught, progress: Progress
) -> Teachers | None:
    """The models that ``train.teacher`` names, on the run's device; None without any.

    Args:
        train: the config's section.
        artifacts: where runs and converted bases are.
        machine: gives device and dtype.
        rows: a teacher has to know their ids, and take their length.
        progress: told while they are opened.

    Raises:
        ModelError: a teacher isn't there, is damaged, or isn't causal.
        ConfigError: it has another tokenizer than the rows, or takes only shorter ones.
    """
    if not train.teacher:
        return None
    progress.stage("opening the teachers")
    found = tuple(_open(name, artifacts, machine, rows) for name in train.teacher)
    progress.end_stage()
    return Teachers(found, train.teacher_weight)


def _open(name: str, artifacts: Artifacts, machine: Machine, rows: Taught) -> Teacher:
    folder, tokenizer = open_folders(find_model(name, artifacts), artifacts)
    if _vocabulary(tokenizer) != _vocabulary(rows.tokenizer):
        raise ConfigError(
            f"The teacher '{name}' has another tokenizer than the prepared rows: its ids mean other words.",
            f"Prepare with its tokenizer, --base {name}, or use a teacher that was trained with this one.",
        )
    model = load_model(folder, device=machine.device, dtype=machine.weights_dtype)
    check_length(position_limit(model), rows.sequence_length, f"the teacher '{name}'")
    check_causal(model, name)
    plain, apart = head_is_plain(model), rows.masked and keeps_documents_apart(model)
    model.requires_grad_(False)
    return Teacher(name, model, plain, apart, weights_hash(model))


def _vocabulary(folder: Path) -> dict[str, int]:
    return dict(open_tokenizer(read_tokenizer(folder).file).get_vocab(with_added_tokens=True))


def teachers_anywhere(train: TrainConfig, artifacts: Artifacts) -> tuple[str, ...]:
    """What ``train.teacher`` names, as folders that mean the same with any artifact folder.

    Raises:
        ModelError: one isn't there.
    """
    found = (find_model(name, artifacts).location for name in train.teacher)
    return tuple(str(Path(location).resolve()) if Path(location).exists() else location for location in found)
