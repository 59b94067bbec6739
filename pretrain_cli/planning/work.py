"""Makes one plan: facts, choices, counts, then time."""

from __future__ import annotations

import shutil
from dataclasses import replace

from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.manifest_records import RowLayout
from pretrain_cli.model.devices import Choice
from pretrain_cli.model.sizes import Shape
from pretrain_cli.model.varlen import is_plain
from pretrain_cli.planning.accelerators import MFU_SOURCES, TargetMachine, assumed_mfu
from pretrain_cli.planning.outline import Outline
from pretrain_cli.planning.place import Place
from pretrain_cli.planning.power import machine_watts
from pretrain_cli.planning.probe import Measured, ProbeRows, measure
from pretrain_cli.planning.probe_rows import random_rows, real_rows
from pretrain_cli.planning.result import MethodForecast, TrainingPlan
from pretrain_cli.planning.scaling import step_on
from pretrain_cli.progress import Progress
from pretrain_cli.refusals import existing_folder
from pretrain_cli.training.choices.compilation import Compilation, choose_compile
from pretrain_cli.training.choices.compile_memory import compile_key
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.kernels import (
    Attended,
    choose_kernels,
    makes_mask,
)
from pretrain_cli.training.choices.method import candidates, check_method
from pretrain_cli.training.choices.plan import Plan, choose_optimizer, make_plan
from pretrain_cli.training.choices.step_cost import FORWARD_SHARE, UTILIZATION, CostOf, StepCost, assumed_cost
from pretrain_cli.training.keeping.resume import settled
from pretrain_cli.training.measuring.estimate import (
    SHARDED_BF16,
    Counts,
    Setup,
    count_model,
    memory_needed,
    ways_to_fit,
)
from pretrain_cli.training.measuring.forecast import AFTER_STEPS_S, checkpoint_bytes, disk_bytes, whole_duration
from pretrain_cli.training.measuring.methods import BaseWork, one_of_each, told
from pretrain_cli.training.measuring.peaks import scratch_peaks
from pretrain_cli.training.measuring.step_timing import StepTimer, TimedModels
from pretrain_cli.training.processes.sharding import zero_stage
from pretrain_cli.training.rows.prepared import keeps_apart
from pretrain_cli.training.teacher_models import Taught, open_teachers

GRADIENT_BYTES, SHARDED_TRAFFIC = 4.0, 1.5
"""Gradients travel in fp32; with weights gathered twice and gradients scattered once it is half as much again as an
all-reduce (Rajbhandari et al. 2020, arXiv 1910.02054)."""
BUSY_TOKENS = 8192
"""Tokens at once on an accelerator below which the assumed share of its speed is too kind: a rule of thumb."""
START_S = 8.0
"""Seconds before the first step, where none was measured: loading torch and transformers most of all."""


class PlanWork:
    """One plan in the making.

    Args:
        config: as for training.
        artifacts: the prepared data, where there is any.
        progress: told about the measurement.
        outline: what is known of the data and the model.
        target: accelerators that aren't here; None: this machine.
        mfu: share of the data sheet's FLOP/s that training reaches, instead of the assumed one.
        real_steps: time steps of the sizes that come into question.
    """

    def __init__(
        self,
        config: Config,
        artifacts: Artifacts,
        progress: Progress,
        outline: Outline,
        target: TargetMachine | None,
        mfu: float | None,
        real_steps: bool,
    ) -> None:
        self.config, self.artifacts, self.progress, self.outline, self.target = (
            config, artifacts, progress, outline, target,
        )  # fmt: skip
        self.assumptions = list(outline.assumptions)
        place = Place(config.train, target)
        self.place, self.device, self.on_cpu, self.processes = place, place.device, place.on_cpu, place.processes
        self.precision, self.threads, self.choices = place.precision, place.threads, place.choices
        self.available, self.peak_flops = place.available, place.peak_flops
        facts = Facts(
            train_rows=outline.rows,
            sequence_length=outline.sequence_length,
            vocab_size=outline.vocabulary,
            flops=self.peak_flops,
            memory_bytes=self.available,
            world_size=self.processes,
            on_cpu=self.on_cpu,
            deepspeed=zero_stage(config.trainer) is not None,
            used_s=START_S + AFTER_STEPS_S,
        )
        self.base = self._base_work(facts) if outline.model_config is not None else None
        if self.base is not None:
            method = self.base.choose()
            self.choices |= {"method": told(method)} if told(method) else {}
            self._facts = self.base.with_method(method.value)
            self.counts = self.base.counts(method.value)
            self.plan = self._plan(None)
        else:
            check_method(config, facts.deepspeed, "")
            peaks = scratch_peaks(
                config.train,
                facts,
                sequence_length=outline.sequence_length,
                precision=self.precision,
                masked=self._holds_mask(),
                config_of=lambda shape: outline.scratch_config(shape, config.model),
                build=outline.build,
            )
            self._facts = replace(facts, peaks=peaks)
            self.plan = self._plan(self._timed_shapes() if real_steps else None)
            self.counts = self._count(outline.scratch_config(self.plan.shape, config.model))
        assumed = mfu if mfu is not None else assumed_mfu(self.counts.parameters)
        self.mfu = assumed if target else UTILIZATION
        if target:
            self.assumptions += self._assumed_there(mfu is not None)

    def _assumed_there(self, mfu_given: bool) -> list[str]:
        """What isn't known of a machine that isn't here."""
        said = [f"MFU {self.mfu:.0%}" + (", as given." if mfu_given else f". Published: {MFU_SOURCES}.")]
        at_once = self.plan.micro_batch * self.outline.sequence_length
        if at_once < BUSY_TOKENS:
            said.append(
                f"Each device has {at_once:,} tokens at a time, which keeps it less busy than that: the steps will "
                "take longer. A larger train.batch_tokens or fewer devices use them better."
            )
        return [*said, "The extra `gpu` is assumed to be installed there, flash-attn and torchao are not."]

    def _base_work(self, facts: Facts) -> BaseWork:
        """What the ways to train the base are weighed by."""
        config, outline = self.config, self.outline
        work = BaseWork(
            config=config,
            model_config=outline.model_config,
            sequence_length=outline.sequence_length,
            masked=self._holds_mask(),
            precision=self.precision,
            facts=facts,
            elsewhere=self.target is not None,
        )
        return replace(work, facts=work.of_base())

    def _masked(self) -> bool:
        wanted, outline = self.config.train.mask_documents, self.outline
        return keeps_apart(wanted, outline.packing, outline.sequence_length, self.on_cpu)

    def _holds_mask(self) -> bool:
        """Whether the attention that training would choose holds a mask."""
        half = self.place.machine.matmul_dtype.itemsize == 2
        plain = self.outline.model_config is None or is_plain(self.outline.model_config)
        return makes_mask(self.place.hardware, self.config.train, Attended(self._masked(), half, plain))

    def _plan(self, cost_of: CostOf | None) -> Plan:
        """What training would choose."""
        return make_plan(self._facts, self.config.train, self.config.model.size, self.config.model.layers, cost_of)

    def _timed_shapes(self) -> CostOf:
        """What training times before it chooses a size from scratch."""
        config, outline = self.config, self.outline
        masked = self._masked()
        machine = self.place.machine
        taught = Taught(self.artifacts.tokenizer, outline.sequence_length, masked)

        def build(shape: Shape | None) -> PreTrainedModel:
            model: PreTrainedModel = outline.build(outline.scratch_config(shape, config.model))
            return model.to(machine.weights_dtype)

        timer = StepTimer(
            TimedModels(
                machine=machine,
                train=config.train,
                optimizer=choose_optimizer(self._facts, config.train).value,
                batch=real_rows(self.artifacts, masked) if outline.prepared else random_rows(outline, masked),
                sequence_length=outline.sequence_length,
                build=build,
                peak_flops=self.peak_flops,
                seconds=config.train.max_minutes and config.train.max_minutes * 60,
                teachers=open_teachers(config.train, self.artifacts, machine, taught, self.progress),
            )
        )

        def cost_of(shape: Shape | None) -> StepCost:
            alone = timer(shape)
            return replace(alone, token_s=alone.token_s / self.processes)

        return cost_of

    def _count(self, model_config: PreTrainedConfig) -> Counts:
        outline = self.outline
        sharded = self.config.train.shard_model and self.processes > 1
        precision = SHARDED_BF16 if sharded and self.precision == "bf16" else self.precision
        return count_model(model_config, outline.build, outline.sequence_length, self._holds_mask(), precision)

    def setup(self) -> Setup:
        """The plan as far as memory follows from it."""
        return self._setup_of(self.plan)

    def _setup_of(self, plan: Plan) -> Setup:
        train = self.config.train
        return Setup(
            micro_batch=plan.micro_batch,
            accumulation=plan.accumulation,
            sequence_length=self.outline.sequence_length,
            optimizer=plan.optimizer,
            precision=self.precision,
            gradient_checkpointing=plan.gradient_checkpointing,
            chunked_loss=train.chunked_loss is not False,
            processes=self.processes,
            sharded=train.shard_model and self.processes > 1,
            on_cpu=self.on_cpu,
            method=plan.method,
        )

    def ways(self, step: float) -> tuple[MethodForecast, ...]:
        """Each way to train the base, side by side; ``step``: seconds of the planned one's."""
        if self.base is None or not self.base.open_to_lora:
            return ()
        found = []
        planned = self.counts.flops_per_token(self.outline.sequence_length)
        for method in one_of_each(
            candidates(changed(self.config, train__method="auto").train), self.base, self.plan.method
        ):
            counts, facts = self.base.counts(method), self.base.with_method(method)
            plan = make_plan(facts, self.config.train)
            peak = memory_needed(counts, self._setup_of(plan)).peak
            cost = counts.flops_per_token(self.outline.sequence_length) / planned
            speed = self.plan.batch_tokens * self.outline.fill / step / cost
            found.append(
                MethodForecast(
                    method.name,
                    method.rank,
                    counts.trained,
                    peak,
                    peak <= self.available,
                    plan.micro_batch,
                    plan.gradient_checkpointing,
                    speed,
                )
            )
        return tuple(found)

    def measure(self, seconds: float) -> Measured | None:
        """A few real steps of one process, where the memory allows them."""
        needed = memory_needed(self.counts, self.setup()).peak
        if needed > self.available:
            self.assumptions.append("Not measured: there is not enough memory here.")
            return None
        self.progress.stage("measuring", seconds, "seconds")
        layout = RowLayout(sequence_length=self.outline.sequence_length, packing=self.outline.packing)
        config = settled(self.config, self.plan, self.precision, layout, self._compile().value.on)
        if self.on_cpu:
            config = changed(config, train__threads=max(1, self.threads // self.processes))
        # Teachers of its own would be trained first: their part of a step is reckoned.
        config = changed(config, train__ensemble=0)
        # One process trains its own share of the batch.
        config = changed(config, train__batch_tokens=self.plan.batch_tokens // self.processes)
        if self.processes > 1:
            self.assumptions.append(
                f"One process was measured alone, with its share of the batch; {self.processes} share the machine."
            )
        pieces = 0 if self.outline.prepared else self.outline.pieces
        rows = ProbeRows(layout.sequence_length, layout.packing, self.outline.vocabulary, pieces)
        measured = measure(config, self.outline.model_config, rows, self.artifacts, seconds)
        self.progress.end_stage()
        measured = replace(measured, step_seconds=measured.step_seconds * (1 + FORWARD_SHARE * self.plan.ensemble))
        if self.outline.base:  # its batch follows from what the time pays for, which training times first
            cost = StepCost(measured.step_seconds / self.plan.batch_tokens, measured=True)
            self.plan = self._plan(lambda shape: cost)
            measured = replace(measured, step_seconds=self.plan.step_seconds)
        return measured

    def _compile(self) -> Choice[Compilation]:
        """Whether training would compile the model."""
        plan, machine = self.plan, self.place.machine
        steps = plan.expected_steps * self.step_seconds(None)[0]
        key = ""
        if self.target is None and (model := self._model_config()) is not None:
            key = compile_key(model, machine, plan.micro_batch, self.outline.sequence_length, masked=self._masked())
        return choose_compile(
            self.config.train.compile,
            machine,
            plan,
            max(0.0, plan.seconds - self._facts.used_s) if plan.by_clock and plan.seconds else steps,
            key=key,
            processes=self.processes,
            compiler=True if self.target else None,
        )

    def _model_config(self) -> PreTrainedConfig | None:
        """The config of the model that is trained, where it is known."""
        shape, outline = self.plan.shape, self.outline
        return outline.scratch_config(shape, self.config.model) if shape else outline.model_config

    def step_seconds(self, measured: Measured | None) -> tuple[float, str]:
        """Seconds of one optimizer step, and where the figure is from."""
        if measured is not None:
            many = f"median of {measured.steps} steps" if measured.steps > 1 else "one step"
            rows = "the prepared rows" if self.outline.prepared else "random rows"
            return measured.step_seconds, f"measured: {many} on {rows}"
        operations = self.counts.flops_per_token(self.outline.sequence_length)
        flops = operations * self.plan.batch_tokens
        if self.target is None:
            seconds = assumed_cost(operations, self.peak_flops, self.mfu).step_seconds(self.plan.batch_tokens)
            return seconds, f"{self.mfu:.0%} of the speed of a matrix product here"
        sharded = self.config.train.shard_model and self.target.count > 1
        step = step_on(
            self.target,
            flops,
            self.mfu,
            self.counts.parameters,
            GRADIENT_BYTES * (SHARDED_TRAFFIC if sharded else 1),
            self.precision,
        )
        rate = self.target.accelerator.rate(self.precision)
        speed = f"{self.mfu:.0%} of the data sheet's {rate / 1e12:.3g} TFLOP/s"
        waits = f", and {1 - step.efficiency:.0%} of the time waiting for gradients" if self.target.count > 1 else ""
        return step.seconds, speed + waits

    def result(self, measured: Measured | None, hourly_rate: float | None, watts: float | None) -> TrainingPlan:
        """Everything together."""
        counts, plan, outline = self.counts, self.plan, self.outline
        memory = memory_needed(counts, self.setup())
        peak = measured.peak_bytes if measured else memory.peak
        step, source = self.step_seconds(measured)
        start = measured.start_seconds if measured else START_S
        compiling = self._compile().value.cost
        start += compiling.first_s
        if measured is None:
            step = step / compiling.gain
        weight_bytes = 2 if self.precision == "bf16-weights" else 4
        adapter = 4 * counts.adapter
        checkpoint = checkpoint_bytes(counts.trained, 4 if adapter else weight_bytes, plan.optimizer)
        duration = whole_duration(
            plan,
            self.config.train,
            step,
            start,
            checkpoint,
            plan.batch_tokens / outline.sequence_length,
            outline.held_out,
        )
        steps, seconds = duration.steps, min(duration.seconds, plan.seconds or duration.seconds)
        power, drawn = machine_watts(self.target, self.on_cpu, self.processes)
        if watts is None:
            self.assumptions.append(f"Power {power:.0f} W: {drawn}.")
        power = power if watts is None else watts
        return TrainingPlan(
            machine=self.target.name if self.target else f"this machine ({self.device})",
            processes=self.processes,
            size=plan.shape.name if plan.shape else self.config.model.base,
            parameters=counts.parameters,
            rows=outline.rows,
            sequence_length=outline.sequence_length,
            tokens=steps * plan.batch_tokens,
            steps=steps,
            batch_tokens=plan.batch_tokens,
            micro_batch=plan.micro_batch,
            accumulation=plan.accumulation,
            precision=self.precision,
            optimizer=plan.optimizer,
            flops=counts.flops_per_token(outline.sequence_length) * steps * plan.batch_tokens,
            memory=memory,
            measured_peak_bytes=measured.peak_bytes if measured else None,
            available_bytes=self.available,
            fits=peak <= self.available,
            fixes=ways_to_fit(counts, self.setup(), self.available),
            disk_bytes=float(disk_bytes(checkpoint, self._model_bytes(), self.config.train.keep, adapter)),
            disk_free_bytes=None
            if self.target
            else float(shutil.disk_usage(existing_folder(self.artifacts.root)).free),
            step_seconds=step,
            step_source=source,
            seconds=seconds,
            duration=duration,
            tokens_per_second=plan.batch_tokens * outline.fill / step,
            watts=power,
            energy_kwh=power * seconds / 3.6e6,
            hourly_rate=hourly_rate,
            price=hourly_rate * seconds / 3600 if hourly_rate is not None else None,
            choices={**self.choices, **plan.reasons, **self._faster_ways()},
            assumptions=self.assumptions,
            method=plan.method.name,
            methods=self.ways(step),
        )

    def _model_bytes(self) -> int:
        """Bytes of the finished model."""
        machine = self.place.machine
        return self.counts.parameters * machine.held_dtype(self.plan.method).itemsize

    def _faster_ways(self) -> dict[str, str]:
        """Compiling, and a GPU's own ways, as training would choose them; elsewhere with the extra `gpu` installed."""
        compile_it = self._compile()
        compiling = {"compile": f"{'on' if compile_it.value.on else 'off'}: {compile_it.reason}"}
        family = self.outline.model_config.model_type if self.outline.model_config else self.config.model.family
        kernels = choose_kernels(self.place.hardware, self.config.train, family, self.counts.parameters)
        return compiling | kernels.reasons
