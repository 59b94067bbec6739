"""What does one start of a run have in hand before its first step?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pretrain_cli.artifacts import Artifacts, RunFolder, write_text
from pretrain_cli.config.load import to_toml
from pretrain_cli.config.model import Config
from pretrain_cli.model.build import build_model, check_base_matches
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.training.choices.machine import Machine, choose_machine
from pretrain_cli.training.choices.plan import Facts, Plan, make_plan
from pretrain_cli.training.keeping.record import RunRecord, new_record, now
from pretrain_cli.training.keeping.resume import settled
from pretrain_cli.training.processes.agreement import rank, same, world_size
from pretrain_cli.training.processes.sharding import zero_stage
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.rows.prepared import (
    Prepared,
    check_prepared,
    open_prepared,
    prepared_tokenizer,
    with_its_base,
)


@dataclass
class Start:
    """One start of a run: what was given, opened and chosen.

    Attributes:
        config, artifacts, progress, run, stop: as given.
        started: ``time.monotonic()`` of the first moment.
        command: what was typed.
        prepared: rows and tokenizer.
        machine: what it computes on.
        record: run.json.
        choices: what was chosen and why, for the record.
        peak_flops: of the machine, measured; filled in by `model_and_plan`.
        compiled: whether the model's body is compiled.
    """

    config: Config
    artifacts: Artifacts
    progress: Progress
    run: RunFolder
    stop: StopRequests
    started: float
    command: tuple[str, ...]
    prepared: Prepared
    machine: Machine
    record: RunRecord
    choices: list[str] = field(default_factory=list)
    peak_flops: float = 0.0
    compiled: bool = False

    def note(self, text: str) -> None:
        """Say a choice, and keep it for the record."""
        self.choices.append(text)
        self.progress.note(text)


def model_and_plan(start: Start) -> tuple[Any, Plan]:
    """A base comes first, since its size shapes the plan; from scratch the plan comes first."""
    config, machine, prepared = start.config, start.machine, start.prepared
    flops, memory = same(lambda: (machine.matmul_flops(), machine.free_bytes))
    start.peak_flops = flops
    facts = Facts(
        train_rows=len(prepared.train),
        sequence_length=prepared.sequence_length,
        vocab_size=prepared.tokenizer.vocab_size,
        flops=flops,
        memory_bytes=memory,
        world_size=world_size(),
        on_cpu=machine.on_cpu,
        deepspeed=zero_stage(config.trainer) is not None,
    )

    def build(shape: Any) -> Any:
        return build_model(
            config,
            start.artifacts,
            vocab_size=prepared.tokenizer.vocab_size,
            sequence_length=prepared.sequence_length,
            tokenizer=prepared.tokenizer,
            shape=shape,
            dtype=machine.weights_dtype,
        )

    model: Any = None
    if config.model.base:
        start.progress.stage("opening the base")
        model = build(None)
        start.progress.end_stage()
        facts = replace(
            facts,
            base_parameters=model.num_parameters(),
            base_hidden=int(getattr(model.config, "hidden_size", 1024)),
            base_layers=int(getattr(model.config, "num_hidden_layers", 12)),
        )
    plan = make_plan(facts, config.train, config.model.size, config.model.layers)
    for name, reason in plan.reasons.items():
        start.note(f"{name} {reason}")
    return model if model is not None else build(plan.shape), plan


def unrecorded_start(
    config: Config, artifacts: Artifacts, progress: Progress = SILENT, command: Sequence[str] = ()
) -> Start:
    """A start that only measures: it trains as a run would, and leaves no run behind.

    Raises:
        DataError, ConfigError, ModelError: as a training.
    """
    manifest = artifacts.read_manifest()
    config = with_its_base(config, manifest)
    check_prepared(config, manifest)
    check_base_matches(config, manifest, artifacts)
    machine = choose_machine(config.train, {}, progress.note)
    tokenizer = prepared_tokenizer(artifacts, manifest)
    return Start(
        config=config,
        artifacts=artifacts,
        progress=progress,
        run=RunFolder(artifacts.runs / "measured"),  # only names a place, which is never written
        stop=StopRequests(progress.warn),
        started=time.monotonic(),
        command=tuple(command),
        prepared=open_prepared(config, artifacts, manifest, tokenizer, machine.device),
        machine=machine,
        record=RunRecord(artifacts.runs / "measured" / "run.json", {}, writes=False),
    )


def begin_record(start: Start, model: Any, plan: Plan, earlier: dict[str, Any]) -> None:
    """Write config.toml and run.json; a resume goes on with the run's own."""
    prepared, record = start.prepared, start.record
    if rank() == 0:
        config = settled(start.config, plan, start.machine.precision, prepared.manifest, start.compiled)
        write_text(start.run.config, to_toml(config))
    if not earlier:
        record.values = new_record(start.run, start.command, resumes=[])
    else:
        again = {"at": now(), "command": list(start.command)}
        record.values = {**earlier, "resumes": [*earlier.get("resumes", []), again]}
    record.update(
        status="running",
        ended=None,
        data_fingerprint=prepared.manifest.get("fingerprint", ""),
        base=start.config.model.base,
        sequence_length=prepared.sequence_length,
        device=start.machine.device,
        precision=start.machine.precision,
        compiled=start.compiled,
        threads=torch.get_num_threads(),
        parameters=model.num_parameters(),
        world_size=world_size(),
        choices=start.choices,
        plan=_plan_record(plan),
    )


def settings_to_keep(start: Start, plan: Plan) -> dict[str, Any]:
    """What has to be the same after a resume."""
    return {
        "data_fingerprint": start.prepared.manifest.get("fingerprint", ""),
        "tokenizer": start.prepared.tokenizer.fingerprint,
        "batch_tokens": plan.batch_tokens,
        "rows": len(start.prepared.train),
        "mask_documents": start.prepared.masked,
    }


def _plan_record(plan: Plan) -> dict[str, Any]:
    left = ("shape", "reasons", "rates")
    values = {name: getattr(plan, name) for name in Plan.__dataclass_fields__ if name not in left}
    rates = {
        "learning_rate": plan.rates.main,
        "matrix_learning_rate": plan.rates.matrix,
        "embedding_learning_rate": plan.rates.embedding,
    }
    return {**values, **rates, "size": plan.shape.name if plan.shape else None}
