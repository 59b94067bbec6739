"""Holds what a run carries from step to step, and through a checkpoint, in addition to weights and optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pretrain_cli.errors import DataError
from pretrain_cli.run_record import RewindRecord
from pretrain_cli.storage import read_json, write_json

FILE, TRAINERS_FILE = "ptk.json", "trainer_state.json"
Settings = dict[str, str | int | bool]
"""What a resume must find unchanged."""
FINITE = ConfigDict(allow_inf_nan=False)


@dataclass
class RunState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done.
        tokens: training tokens that went through the model, padding included.
        elapsed_s: seconds of all starts.
        began_s: of them, those before the run's very first step: the schedule of a timed run counts from there.
        stepping_s: seconds of them spent in steps.
        skipped: steps left out for a non-finite loss or gradient.
        best_step, best_loss: the best validation and its checkpoint.
        evaluations_without_gain: validations in a row without a better one.
        recent_losses: what a divergence is measured against.
        loss_sum, loss_steps: of the line of metrics.jsonl that isn't written yet.
        first_loss, last_loss: training losses of the first and newest line.
        owes_validation: a signal came where a validation was due: the resume makes up for it.
        left_out, replaced_from: rows that a rewind leaves out, and from which position.
        rewound: whether the one rewind was used.
        settings: what a resume must find unchanged.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FINITE

    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    began_s: float | None = None
    stepping_s: float = 0.0
    skipped: int = 0
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0
    recent_losses: list[float] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    validation_loss: float | None = None
    owes_validation: bool = False
    left_out: list[int] = field(default_factory=list)
    replaced_from: int = 0
    rewound: bool = False
    settings: Settings = field(default_factory=dict)

    def rewind(self, rows: Iterable[int], batch_rows: int) -> RewindRecord:
        """Leave these rows out from this step on; what the record keeps of it until the next checkpoint has it."""
        self.left_out, self.rewound = sorted({*self.left_out, *rows}), True
        self.replaced_from = self.step * batch_rows
        return RewindRecord(left_out=tuple(self.left_out), replaced_from=self.replaced_from)

    def take_over(self, rewind: RewindRecord | None) -> None:
        """What the record kept of a rewind that the checkpoint is older than."""
        if rewind is not None and not self.rewound:
            self.left_out, self.replaced_from, self.rewound = list(rewind.left_out), rewind.replaced_from, True

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint that is being made."""
        write_json(folder / FILE, asdict(self))


OWN = TypeAdapter(RunState)


class TrainersState(BaseModel):
    """What Trainer reads of its own file: as much as ptk lets it write there, and nothing for its callbacks."""

    model_config = ConfigDict(extra="forbid", **FINITE)

    epoch: float | None = None
    global_step: int = 0
    max_steps: int = 0
    logging_steps: float = 0
    eval_steps: float = 0
    save_steps: float = 0
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    log_history: list[dict[str, Any]] = []
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] | None = None


Values = TypeVar("Values")


def load_state(folder: Path) -> RunState:
    """The state in checkpoint ``folder``.

    Raises:
        DataError: a file that holds it, or Trainer's part of it, isn't JSON or has other values than ptk writes.
    """
    values = read_json(folder / FILE)
    if (folder / TRAINERS_FILE).is_file():
        _fitting(TypeAdapter(TrainersState), read_json(folder / TRAINERS_FILE), folder / TRAINERS_FILE)
    known = {name: values[name] for name in RunState.__dataclass_fields__ if name in values}
    state = _fitting(OWN, known, folder / FILE)
    if state.began_s is None and state.step:  # written by 0.1.0, which didn't keep it: about
        state.began_s = max(0.0, state.elapsed_s - state.stepping_s)
    return state


def _fitting(kind: TypeAdapter[Values], values: dict[str, Any], path: Path) -> Values:
    try:
        return kind.validate_python(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is damaged at {where}: {first['msg']}.",
            "Resume from another checkpoint, ptk train --resume RUN@step-000100, or train again.",
        ) from problem
