"""The front door of train: prepared rows in, a run with a finished model out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import set_seed

from pretrain_cli.artifacts import Artifacts, RunFolder, lock, write_text, writing_to
from pretrain_cli.config.load import changed, to_toml
from pretrain_cli.config.model import Config
from pretrain_cli.data.batches import PackedDataset
from pretrain_cli.errors import ConfigError, DataError, DivergedError, Interrupted, ModelError, UsageError
from pretrain_cli.model import devices
from pretrain_cli.model.build import build_model, check_base_matches
from pretrain_cli.model.devices import Choice
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer
from pretrain_cli.training.arguments import ENDLESS_STEPS, make_arguments, world_size
from pretrain_cli.training.checkpoints import (
    bytes_needed,
    choose_checkpoint,
    clear_staging,
    remove_after,
)
from pretrain_cli.training.clock import RunClock
from pretrain_cli.training.console import quiet_libraries
from pretrain_cli.training.divergence import Diverged
from pretrain_cli.training.finish import draw_curves, model_card, save_model
from pretrain_cli.training.loss import attach_loss, head_is_plain
from pretrain_cli.training.order import RowOrder
from pretrain_cli.training.plan import Facts, Plan, make_plan
from pretrain_cli.training.record import Metrics, RunRecord, new_record, now, read_record
from pretrain_cli.training.resume import check_unchanged, find_run, merge, read_config, settled
from pretrain_cli.training.samples import write_sample
from pretrain_cli.training.signals import StopRequests
from pretrain_cli.training.state import RunState, load_state
from pretrain_cli.training.tracking import WandbTracker, other_trackers, wants_wandb
from pretrain_cli.training.trainer import Job, PackedTrainer, write_rows
from pretrain_cli.training.validation import Validation


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. ``seconds`` counts all starts of the run; losses are nats per token."""

    run: str
    status: str
    steps: int
    tokens: int
    train_loss: float | None
    validation_loss: float | None
    validation_bits_per_byte: float | None
    tokens_per_second: float
    seconds: float
    model: Path


def train(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    run_name: str | None = None,
    resume: str | None = None,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train a model on the prepared rows, or go on with a run.

    Args:
        config: sections ``model``, ``train``, ``tracking`` and ``trainer``.
        artifacts: holds the prepared data, and receives the run.
        progress: told about choices, steps and trouble.
        run_name: name of a new run; None: the next free ``run-001``.
        resume: None, "" (the run touched last), "RUN" or "RUN@step-000100".
        command: what was typed, for the record.

    Raises:
        DataError: nothing is prepared, or it isn't what the run was trained with.
        ConfigError: settings that don't fit each other or the prepared data.
        ModelError: the base or checkpoint can't be used.
        DivergedError: the loss left its course; the last good checkpoint is named.
        Interrupted: a signal came; everything up to that step is saved.
    """
    started = time.monotonic()
    quiet_libraries()
    progress = progress if _rank() == 0 else SILENT
    manifest = artifacts.read_manifest()
    if resume is not None:
        run, checkpoint = find_run(resume, artifacts)
        if run_name is not None and run_name != run.name:
            raise UsageError("--run names a new run, --resume an old one.", f"Leave out --run {run_name}.")
        config = merge(read_config(run), config)
    else:
        run, checkpoint = _new_run(artifacts, run_name), None
    if not config.model.base and manifest.get("base"):  # rows made for a base are there to continue it
        config = changed(config, model__base=manifest["base"])
    check_prepared(config, manifest)
    with writing_to(artifacts.root), StopRequests(progress.warn) as stop, _run_lock(run):
        if resume is not None and (done := _finished(run, config)) is not None:
            progress.note(f"Run '{run.name}' is finished already.")
            return done
        return _Run(config, artifacts, progress, run, manifest, stop, started, tuple(command)).start(
            resume is not None, checkpoint
        )


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


def _new_run(artifacts: Artifacts, name: str | None) -> RunFolder:
    if name is None:
        taken = {entry.name for entry in artifacts.runs.iterdir()} if artifacts.runs.is_dir() else set()
        number = next(index for index in range(1, 10**6) if f"run-{index:03d}" not in taken)
        return artifacts.run(f"run-{number:03d}")
    run = artifacts.run(name)
    if run.record.is_file() or run.model.exists():
        raise UsageError(
            f"There is a run named '{name}' already.", f"Choose another name, or go on with it: --resume {name}"
        )
    return run


def _run_lock(run: RunFolder) -> Any:
    import contextlib

    # The other ranks of one training stand under rank 0's lock.
    return lock(run.path, "training") if _rank() == 0 else contextlib.nullcontext()


def _rank() -> int:
    import os

    return int(os.environ.get("RANK", "0"))


def _finished(run: RunFolder, config: Config) -> TrainResult | None:
    """The result of a run that is finished and isn't asked to go on longer."""
    record = read_record(run)
    saved = record.get("result")
    if record.get("status") != "finished" or not saved or not run.model.is_dir():
        return None
    before, after = read_config(run).train, config.train
    if any(getattr(before, key) != getattr(after, key) for key in ("max_steps", "epochs", "max_tokens", "max_minutes")):
        return None
    return TrainResult(**{**saved, "model": run.model})


class _Run:
    """One start of a run: what is chosen first, used later, and written at the end."""

    def __init__(
        self,
        config: Config,
        artifacts: Artifacts,
        progress: Progress,
        run: RunFolder,
        manifest: dict[str, Any],
        stop: StopRequests,
        started: float,
        command: tuple[str, ...],
    ) -> None:
        self.config, self.artifacts, self.progress, self.run = config, artifacts, progress, run
        self.manifest, self.stop, self.started, self.command = manifest, stop, started, command
        self.tokenizer = read_tokenizer(artifacts.tokenizer)
        self.rank, self.world_size = _rank(), world_size()
        self.record = RunRecord(run.record, {}, writes=self.rank == 0)
        self.choices: list[str] = []

    def start(self, resume: bool, checkpoint: str | None) -> TrainResult:
        """Choose, build, train, save."""
        earlier = read_record(self.run) if resume else {}
        self._check_tokenizer()
        check_base_matches(self.config, self.manifest, self.artifacts)
        self.device = self._choose("device", devices.choose_device(self.config.train.device))
        on_cpu = torch.device(self.device).type == "cpu"
        if on_cpu:
            threads = self._choose("threads", self._threads(earlier))
            torch.set_num_threads(max(1, threads // self.world_size))
        self.precision = self._choose("precision", devices.choose_precision(self.config.train.precision, self.device))
        folder, state = self._find_checkpoint(checkpoint) if resume else (None, RunState())
        set_seed(self.config.train.seed)
        self._open_rows()
        model, plan = self._model_and_plan(on_cpu)
        self._begin_record(model, plan, earlier)
        settings = self._settings(plan)
        if folder is not None:
            check_unchanged(state.settings, settings, self.run)
        state.settings = settings
        self._say_size(model, plan)
        try:
            return self._train(model, plan, folder, state)
        except Interrupted as error:
            self.record.update(status="interrupted", ended=now())
            if self.run.name not in error.hint:
                raise Interrupted(
                    error.message, f"Go on with: ptk train --resume {self.run.name}", error.exit_code
                ) from None
            raise
        except KeyboardInterrupt:
            self.record.update(status="interrupted", ended=now())
            raise
        except DivergedError:
            self.record.update(status="diverged", ended=now())
            raise
        except BaseException:
            self.record.update(status="failed", ended=now())
            raise

    # Choices

    def _choose(self, name: str, choice: Choice[Any]) -> Any:
        self._note(f"{name} {choice.value}: {choice.reason}")
        return choice.value

    def _threads(self, earlier: dict[str, Any]) -> Choice[int]:
        """As before a resume where nothing else is asked: sums over another number of threads round differently."""
        before, setting = earlier.get("threads"), self.config.train.threads
        if setting == "auto" and isinstance(before, int) and before <= devices.available_cores():
            return Choice(before, "as before the resume")
        return devices.choose_threads(setting)

    def _note(self, text: str) -> None:
        self.choices.append(text)
        self.progress.note(text)

    def _check_tokenizer(self) -> None:
        prepared = self.manifest.get("tokenizer", {}).get("fingerprint")
        if prepared and prepared != self.tokenizer.fingerprint:
            raise DataError(
                f"The tokenizer in {self.artifacts.tokenizer} isn't the one that the rows were made with.",
                "Prepare the text again: ptk prepare",
            )

    def _open_rows(self) -> None:
        settings = self.manifest.get("settings", {})
        masked = self.config.train.mask_documents
        probe = PackedDataset(self.artifacts.train_rows, mask_documents=False)
        length = probe.rows.sequence_length
        if masked == "auto":
            cheap = length <= 1024 or torch.device(self.device).type != "cpu"
            masked = settings.get("packing") == "best-fit" and cheap
        self.sequence_length, self.masked = length, bool(masked)
        self.train_rows = PackedDataset(self.artifacts.train_rows, mask_documents=self.masked)
        held_out = int(self.manifest.get("validation", {}).get("rows") or 0)
        self.validation_rows = (
            PackedDataset(self.artifacts.validation_rows, mask_documents=self.masked) if held_out else None
        )
        self.choices.append(f"documents {'kept apart' if self.masked else 'seen across'} in a row")

    def _model_and_plan(self, on_cpu: bool) -> tuple[Any, Plan]:
        """A base comes first, since its size shapes the plan; from scratch the plan comes first."""
        config = self.config
        dtype = torch.bfloat16 if self.precision == "bf16-weights" else torch.float32
        probe = torch.bfloat16 if self.precision.startswith("bf16") else torch.float32
        facts = Facts(
            train_rows=len(self.train_rows),
            sequence_length=self.sequence_length,
            vocab_size=self.tokenizer.vocab_size,
            flops=devices.matmul_flops(probe, self.device) * self.world_size,
            memory_bytes=_free_memory(self.device) / (self.world_size if on_cpu else 1),
            world_size=self.world_size,
            on_cpu=on_cpu,
        )
        self.peak_flops = facts.flops
        model: Any = None

        def build(shape: Any) -> Any:
            return build_model(
                config,
                self.artifacts,
                vocab_size=self.tokenizer.vocab_size,
                sequence_length=self.sequence_length,
                tokenizer=self.tokenizer,
                shape=shape,
                dtype=dtype,
            )

        if config.model.base:
            self.progress.stage("opening the base")
            model = build(None)
            self.progress.end_stage()
            facts = replace(
                facts,
                base_parameters=model.num_parameters(),
                base_hidden=int(getattr(model.config, "hidden_size", 1024)),
                base_layers=int(getattr(model.config, "num_hidden_layers", 12)),
            )
        plan = make_plan(facts, config.train, config.model.size, config.model.layers)
        for name, reason in plan.reasons.items():
            self._note(f"{name} {reason}")
        return model if model is not None else build(plan.shape), plan

    def _say_size(self, model: Any, plan: Plan) -> None:
        disk = bytes_needed(model.num_parameters(), next(model.parameters()).element_size(), plan.optimizer)
        disk = disk * (self.config.train.keep + 1) + 4 * model.num_parameters()
        length = f"{plan.steps} steps" if plan.steps else f"{(plan.seconds or 0) / 60:g} minutes"
        text = f"{model.num_parameters() / 1e6:.1f}M parameters, {length}, up to {disk / 1e6:.0f} MB on the disk"
        self._note(text)
        passes = plan.expected_steps * plan.batch_tokens / (len(self.train_rows) * self.sequence_length)
        if plan.steps and passes > 4.5:
            self.progress.warn(
                f"{passes:.0f} passes over the same text: beyond about 4 they teach little (arXiv 2305.16264)."
            )

    # The record

    def _begin_record(self, model: Any, plan: Plan, earlier: dict[str, Any]) -> None:
        if self.rank == 0:
            write_text(self.run.config, to_toml(settled(self.config, plan, self.precision, self.manifest)))
        if not earlier:
            self.record.values = new_record(self.run, self.command, resumes=[])
        else:
            again = {"at": now(), "command": list(self.command)}
            self.record.values = {**earlier, "resumes": [*earlier.get("resumes", []), again]}
        self.record.update(
            status="running",
            ended=None,
            data_fingerprint=self.manifest.get("fingerprint", ""),
            base=self.config.model.base,
            sequence_length=self.sequence_length,
            device=self.device,
            precision=self.precision,
            threads=torch.get_num_threads(),
            parameters=model.num_parameters(),
            world_size=self.world_size,
            choices=self.choices,
            plan=_plan_record(plan),
        )

    def _settings(self, plan: Plan) -> dict[str, Any]:
        """What has to be the same after a resume."""
        return {
            "data_fingerprint": self.manifest.get("fingerprint", ""),
            "tokenizer": self.tokenizer.fingerprint,
            "batch_tokens": plan.batch_tokens,
            "rows": len(self.train_rows),
            "mask_documents": self.masked,
        }

    def _find_checkpoint(self, wanted: str | None) -> tuple[Path | None, RunState]:
        if self.rank == 0:
            clear_staging(self.run)
        folder, left = choose_checkpoint(self.run, wanted)
        for entry in left:
            self.progress.warn(f"The checkpoint {entry.name} is left aside: {entry.reason}.")
        if folder is None:
            if left:
                raise ModelError(f"No checkpoint of run '{self.run.name}' can be used.", "Start a new run: ptk train")
            self.progress.note("No checkpoint yet: the run starts from its beginning.")
            return None, RunState()
        state = load_state(folder)
        if self.rank == 0:
            remove_after(self.run, state.step)
        self._note(f"going on from {folder.name}")
        return folder, state

    # Training

    def _train(self, model: Any, plan: Plan, folder: Path | None, state: RunState) -> TrainResult:
        others = other_trackers(self.config, self.run)
        arguments = make_arguments(self.config, plan, self.run.checkpoints, self.device, self.precision, others)
        tracker = self._start_tracker()
        metrics = Metrics(self.run.metrics, state.step if folder else 0, writes=self.rank == 0)
        code = 1
        try:
            while True:
                job = self._job(model, plan, state, metrics)
                detach = attach_loss(model, self._chunked(model), self.config.train.z_loss)
                trainer = PackedTrainer(job, model=model, args=arguments)
                _remove_default_callbacks(trainer)
                job.report.append(self.progress.log)
                job.report.append(tracker.log) if tracker else None
                job.report.append(trainer.feed_trackers) if others else None
                job.sample = self._sampler(trainer, tracker)
                try:
                    self._loop(trainer, plan, folder)
                    result = self._end(trainer, model, detach)
                    if tracker is not None:
                        tracker.log(result.steps, _final_values(result))
                    code = 0
                    return result
                except Diverged as error:
                    detach()
                    folder, state = self._after_divergence(error, job)
                finally:
                    trainer.feed.close()
        finally:
            metrics.close()
            if tracker is not None:
                tracker.finish(code)

    def _start_tracker(self) -> WandbTracker | None:
        if self.rank != 0 or not wants_wandb(self.config):
            return None
        names = ("data_fingerprint", "base", "device", "precision", "parameters", "world_size", "versions", "commit")
        facts = {name: self.record.values.get(name) for name in names}
        known = self.record.values.get("wandb") or {}
        tracker = WandbTracker(self.config, self.run, facts, known, self.progress)
        self.record.update(wandb=tracker.start())
        return tracker

    def _sampler(self, trainer: PackedTrainer, tracker: WandbTracker | None) -> Callable[[int], None] | None:
        prompts = self.config.train.sample_prompts
        if not prompts or self.rank != 0 or self.config.train.shard_model:
            return None
        tokenizer = open_tokenizer(self.tokenizer.file)
        first = self.tokenizer.bos_id if self.manifest.get("settings", {}).get("add_bos") else None

        def sample(step: int) -> None:
            for prompt in prompts:
                text = write_sample(trainer.model, tokenizer, prompt, first)
                self.progress.sample(prompt, text, step)
                with open(self.run.path / "samples.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, "prompt": prompt, "text": text}, ensure_ascii=False) + "\n")
                if tracker is not None:
                    tracker.sample(step, prompt, text)

        return sample

    def _job(self, model: Any, plan: Plan, state: RunState, metrics: Metrics) -> Job:
        validation, train = self.manifest.get("validation", {}), self.config.train
        per_byte = validation["tokens"] / validation["bytes"] if validation.get("bytes") else None
        order = RowOrder(
            len(self.train_rows),
            plan.micro_batch,
            (plan.steps or ENDLESS_STEPS) * plan.accumulation,
            train.seed,
            self.rank,
            self.world_size,
            state.step * plan.accumulation,
            frozenset(state.left_out),
            state.replaced_from,
        )
        weights = model.num_parameters()
        if not model.config.tie_word_embeddings:
            weights -= model.get_input_embeddings().weight.numel()  # looked up, not multiplied
        return Job(
            config=self.config,
            plan=plan,
            run=self.run,
            progress=self.progress,
            train_rows=self.train_rows,
            validation_rows=self.validation_rows,
            order=order,
            workers=0 if train.workers == "auto" else train.workers,
            clock=RunClock(plan.seconds, state.elapsed_s, self.started),
            state=state,
            metrics=metrics,
            stop=self.stop,
            tokens_per_byte=per_byte,
            flops_per_token=6.0 * weights,
            peak_flops=self.peak_flops,
            rank=self.rank,
            world_size=self.world_size,
        )

    def _chunked(self, model: Any) -> bool:
        wanted = self.config.train.chunked_loss
        return head_is_plain(model) if wanted == "auto" else wanted

    def _loop(self, trainer: PackedTrainer, plan: Plan, folder: Path | None) -> None:
        by_clock = plan.seconds and not plan.steps
        self.progress.stage("training", plan.seconds if by_clock else plan.steps, "seconds" if by_clock else "steps")
        self.stop.in_loop = True
        try:
            trainer.train(resume_from_checkpoint=str(folder) if folder else None)
        finally:
            self.stop.in_loop = False
            self.progress.end_stage()

    def _after_divergence(self, error: Diverged, job: Job) -> tuple[Path | None, RunState]:
        """Go back once where that was asked for, else end with the last good checkpoint named."""
        rows_file = self.run.path / f"diverged-step-{error.step:06d}.jsonl"
        if self.rank == 0:
            write_rows(rows_file, self.train_rows, error.rows)
        folder, _ = choose_checkpoint(self.run)
        good = f"the last good checkpoint is {folder.name}" if folder else "there is no checkpoint before it"
        if self.config.train.on_divergence == "rewind" and not job.state.rewound and folder is not None:
            state = load_state(folder)
            state.left_out, state.rewound = sorted({*state.left_out, *error.rows}), True
            state.replaced_from = state.step * job.batch_rows
            job.metrics.close()
            job.metrics.__init__(self.run.metrics, state.step, writes=self.rank == 0)  # type: ignore[misc]
            self.progress.warn(
                f"Diverged at step {error.step}: {error.reason}. Going back to {folder.name} and leaving out "
                f"{len(set(error.rows))} rows."
            )
            return folder, state
        raise DivergedError(
            f"Training diverged at step {error.step}: {error.reason}; {good}.",
            f"The rows are in {rows_file}. Try half the learning rate, or --set train.on_divergence=rewind.",
        )

    # The end

    def _end(self, trainer: PackedTrainer, model: Any, detach: Any) -> TrainResult:
        job, state = trainer.job, trainer.job.state
        if trainer.stopped_by == "signal":
            self.record.update(steps=state.step, tokens=state.tokens)
            raise Interrupted(
                f"Stopped at step {state.step}; it is saved.",
                f"Go on with: ptk train --resume {self.run.name}",
                self.stop.exit_code,
            )
        found = self._final_validation(trainer)
        detach()
        model = trainer.accelerator.unwrap_model(trainer.model)
        state.elapsed_s = job.clock.elapsed_s
        if found is not None:
            state.validation_loss = found.loss
        result = TrainResult(
            run=self.run.name,
            status="finished",
            steps=state.step,
            tokens=state.tokens,
            train_loss=_finite(state.last_loss),
            validation_loss=_finite(found.loss if found else state.validation_loss),
            validation_bits_per_byte=_finite(found.bits_per_byte) if found else None,
            tokens_per_second=state.tokens / max(1e-9, state.stepping_s),
            seconds=state.elapsed_s,
            model=self.run.model,
        )
        self.record.update(steps=state.step, tokens=state.tokens)
        if self.rank == 0:
            figures = {"loss": result.validation_loss, "bits_per_byte": result.validation_bits_per_byte}
            save_model(
                model, self.run, self.artifacts, model_card(self.run, self.record.values, self.manifest, figures)
            )
            write_text(self.artifacts.latest, self.run.name + "\n")
            draw_curves(self.run)
        result = replace(result, seconds=job.clock.elapsed_s)
        self.record.update(
            status="finished",
            ended=now(),
            result={**result.__dict__, "model": str(self.run.model)},
            peak_memory_bytes=_peak_memory(self.device),
        )
        return result

    def _final_validation(self, trainer: PackedTrainer) -> Validation | None:
        if self.validation_rows is None:
            return None
        self.progress.stage("validating")
        found = trainer.run_validation(trainer.final_rows())
        self.progress.end_stage()
        if found is not None:
            values = {"step": trainer.job.state.step, "validation_loss": found.loss}
            if found.bits_per_byte is not None:
                values["validation_bits_per_byte"] = found.bits_per_byte
            trainer.job.metrics.amend(values)
            self.progress.log(trainer.job.state.step, values)
        return found


def _final_values(result: TrainResult) -> dict[str, float]:
    values = {
        "validation_loss": result.validation_loss,
        "validation_bits_per_byte": result.validation_bits_per_byte,
    }
    return {key: value for key, value in values.items() if value is not None}


def _plan_record(plan: Plan) -> dict[str, Any]:
    values = {name: getattr(plan, name) for name in Plan.__dataclass_fields__ if name not in ("shape", "reasons")}
    return {**values, "size": plan.shape.name if plan.shape else None}


def _remove_default_callbacks(trainer: PackedTrainer) -> None:
    from transformers.trainer_callback import DefaultFlowCallback, PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback, DefaultFlowCallback):
        trainer.remove_callback(callback)


def _free_memory(device: str) -> float:
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(device))[0])
    return float(psutil.virtual_memory().available)


def _peak_memory(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
