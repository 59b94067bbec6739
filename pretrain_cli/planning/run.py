"""The front door of plan: says what a training would take, before anything of it is started."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

import psutil
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.manifest import RowLayout
from pretrain_cli.memory import available_bytes
from pretrain_cli.model import devices
from pretrain_cli.model.devices import Choice
from pretrain_cli.model.sizes import Shape
from pretrain_cli.planning.accelerators import (
    MFU_SOURCES,
    TargetMachine,
    assumed_mfu,
    parse_machine,
)
from pretrain_cli.planning.estimate import Counts, Setup, count_model, memory_needed, ways_to_fit
from pretrain_cli.planning.outline import Outline, outline_of
from pretrain_cli.planning.probe import Measured, ProbeRows, measure
from pretrain_cli.planning.probe_rows import random_rows, real_rows
from pretrain_cli.planning.result import TrainingPlan
from pretrain_cli.planning.scaling import step_on
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.refusals import existing_folder
from pretrain_cli.training.choices.compilation import choose_compile
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.kernels import ADA, AMPERE, Hardware, choose_kernels, hardware_of
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import Plan, choose_optimizer, make_plan
from pretrain_cli.training.choices.reasons import Reasons
from pretrain_cli.training.choices.step_cost import UTILIZATION, CostOf, StepCost, assumed_cost
from pretrain_cli.training.keeping.resume import settled
from pretrain_cli.training.measuring.forecast import (
    AFTER_STEPS_S,
    checkpoint_bytes,
    disk_bytes,
    whole_duration,
)
from pretrain_cli.training.measuring.step_timing import StepTimer, TimedModels
from pretrain_cli.training.processes.sharding import zero_stage
from pretrain_cli.training.rows.prepared import keeps_apart

CPU_WATTS_PER_CORE = 5.0
"""Between a laptop's 28 W for 8 cores and a server's 360 W for 96 (their data sheets)."""
HOST_SHARE = 0.4
"""What a node's CPUs, memory, network and fans draw in addition to its accelerators: a DGX H100 takes at most 10.2 kW
for 5.6 kW of GPUs, on average less."""
GPU_WATTS = 400.0
GRADIENT_BYTES, SHARDED_TRAFFIC = 4.0, 1.5
"""Gradients travel in fp32; with weights gathered twice and gradients scattered once it is half as much again as an
all-reduce (Rajbhandari et al. 2020, arXiv 1910.02054)."""
BUSY_TOKENS = 8192
"""Tokens at once on an accelerator below which the assumed share of its speed is too kind: a rule of thumb."""
START_S = 8.0
"""Seconds before the first step, where none was measured: loading torch and transformers most of all."""
USABLE = 0.95
"""Share of a device's memory that training can fill before fragments are in the way."""


def plan_training(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    machine: str = "",
    measure_seconds: float = 20.0,
    mfu: float | None = None,
    hourly_rate: float | None = None,
    watts: float | None = None,
    origins: Mapping[str, str] | None = None,
) -> TrainingPlan:
    """Say what ``ptk train`` with this config would take.

    Args:
        config: as for training; ``data.inputs`` name the text where nothing is prepared yet.
        artifacts: the prepared data, where there is any.
        progress: told about the measurement.
        machine: accelerators that aren't here, "h100x8"; empty: this machine.
        measure_seconds: seconds of real steps on random rows; 0: the time follows from the speed of a matrix product.
        mfu: share of the data sheet's FLOP/s that training reaches, instead of the assumed one.
        hourly_rate: price of the whole machine for an hour.
        watts: power of the whole machine, instead of the assumed one.
        origins: dotted key → the layer that set it, for the reasons; None: all that is set was asked for.

    Raises:
        DataError: nothing is prepared and no text is named.
        ConfigError: settings that contradict each other.
        UsageError: an accelerator that isn't known.
    """
    outline = outline_of(config, artifacts)
    target = parse_machine(machine) if machine else None
    config = changed(config, model__base=outline.base) if outline.base != config.model.base else config
    real = target is None and measure_seconds > 0
    work = _Work(config, artifacts, progress, outline, target, mfu, real_steps=real)
    measured = work.measure(measure_seconds) if real else None
    found = work.result(measured, hourly_rate, watts)
    reasons = Reasons(origins or {})
    return replace(found, choices={name: reasons.told(name, told) for name, told in found.choices.items()})


class _Work:
    """One plan in the making: facts, choices, counts, then time."""

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
        self.device = "cuda" if target else devices.choose_device(config.train.device).value
        self.on_cpu = torch.device(self.device).type == "cpu"
        self.processes = target.count if target else self._processes()
        precision = self._precision()
        self.precision, self.threads = precision.value, 1
        self.choices = {"precision": f"{precision.value}: {precision.reason}"}
        if target is None and self.on_cpu:
            threads = devices.choose_threads(config.train.threads)
            self.threads = threads.value
            self.choices["threads"] = f"{threads.value}: {threads.reason}"
            torch.set_num_threads(max(1, self.threads // self.processes))
        self.available = self._available()
        self.peak_flops = self._peak_flops()
        self.counts: Counts | None = None
        base = self._count(outline.model_config) if outline.model_config is not None else None
        self._facts = Facts(
            train_rows=outline.rows,
            sequence_length=outline.sequence_length,
            vocab_size=outline.vocabulary,
            flops=self.peak_flops,
            memory_bytes=self.available,
            world_size=self.processes,
            on_cpu=self.on_cpu,
            deepspeed=zero_stage(config.trainer) is not None,
            used_s=START_S + AFTER_STEPS_S,
            base_parameters=base.parameters if base else 0,
            base_hidden=base.hidden if base else 0,
            base_layers=base.layers if base else 0,
        )
        self.plan = self._plan(self._timed_shapes() if real_steps and not base else None)
        self.counts = base or self._count(outline.scratch_config(self.plan.shape, config.model))
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

    def _plan(self, cost_of: CostOf | None) -> Plan:
        """What training would choose."""
        return make_plan(self._facts, self.config.train, self.config.model.size, self.config.model.layers, cost_of)

    def _timed_shapes(self) -> CostOf:
        """What training times before it chooses a size from scratch."""
        config, outline = self.config, self.outline
        masked = keeps_apart(config.train.mask_documents, outline.packing, outline.sequence_length, self.on_cpu)
        machine = Machine(self.device, self.precision)

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
            )
        )

        def cost_of(shape: Shape | None) -> StepCost:
            alone = timer(shape)
            return replace(alone, token_s=alone.token_s / self.processes)

        return cost_of

    def _processes(self) -> int:
        wanted = self.config.train.processes
        if isinstance(wanted, int):
            return wanted
        return 1 if self.on_cpu else max(1, torch.cuda.device_count())

    def _precision(self) -> Choice[str]:
        wanted = self.config.train.precision
        if self.target is None or not wanted.startswith("auto"):
            return devices.choose_precision(wanted, self.device)
        if not self.target.accelerator.bf16:
            return Choice("fp32", "the GPU would emulate bf16")
        return Choice("bf16" if wanted == "auto" else "bf16-weights", "the GPU computes it natively")

    def _available(self) -> float:
        """Bytes that training may fill on one device."""
        if self.target:
            return USABLE * self.target.accelerator.memory_bytes
        if self.on_cpu:
            # What this process holds is free again when training starts in its place.
            return float(available_bytes() + psutil.Process().memory_info().rss) / self.processes
        return USABLE * float(torch.cuda.mem_get_info(torch.device(self.device))[0])

    def _peak_flops(self) -> float:
        if self.target:
            return self.target.accelerator.rate(self.precision) * self.target.count
        kind = torch.bfloat16 if self.precision.startswith("bf16") else torch.float32
        return devices.matmul_flops(kind, self.device) * self.processes

    def _count(self, model_config: PreTrainedConfig) -> Counts:
        kind = "bf16" if self.precision in ("bf16", "fp16") else self.precision
        outline = self.outline
        masked = keeps_apart(self.config.train.mask_documents, outline.packing, outline.sequence_length, self.on_cpu)
        return count_model(model_config, outline.build, outline.sequence_length, masked, kind)

    def setup(self) -> Setup:
        """The plan as far as memory follows from it."""
        train = self.config.train
        return Setup(
            micro_batch=self.plan.micro_batch,
            accumulation=self.plan.accumulation,
            sequence_length=self.outline.sequence_length,
            optimizer=self.plan.optimizer,
            precision=self.precision,
            gradient_checkpointing=self.plan.gradient_checkpointing,
            chunked_loss=train.chunked_loss is not False,
            processes=self.processes,
            sharded=train.shard_model and self.processes > 1,
            on_cpu=self.on_cpu,
        )

    def measure(self, seconds: float) -> Measured | None:
        """A few real steps of one process, where the memory allows them."""
        assert self.counts is not None
        needed = memory_needed(self.counts, self.setup()).peak
        if needed > self.available:
            self.assumptions.append("Not measured: there is not enough memory here.")
            return None
        self.progress.stage("measuring", seconds, "seconds")
        layout = RowLayout(sequence_length=self.outline.sequence_length, packing=self.outline.packing)
        config = settled(self.config, self.plan, self.precision, layout, self._compile().value)
        if self.on_cpu:
            config = changed(config, train__threads=max(1, self.threads // self.processes))
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
        if self.outline.base:  # its batch follows from what the time pays for, which training times first
            cost = StepCost(measured.step_seconds / self.plan.batch_tokens, measured=True)
            self.plan = self._plan(lambda shape: cost)
            measured = replace(measured, step_seconds=self.plan.step_seconds)
        return measured

    def _compile(self) -> Choice[bool]:
        """Whether training would compile the model."""
        steps = self.plan.expected_steps
        seconds = self.plan.seconds or steps * self.step_seconds(None)[0]
        return choose_compile(
            self.config.train.compile,
            Machine(self.device, self.precision),
            self.plan,
            seconds,
            processes=self.processes,
            compiler=True if self.target else None,
        )

    def step_seconds(self, measured: Measured | None) -> tuple[float, str]:
        """Seconds of one optimizer step, and where the figure is from."""
        assert self.counts is not None
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
        assert counts is not None
        memory = memory_needed(counts, self.setup())
        peak = measured.peak_bytes if measured else memory.peak
        step, source = self.step_seconds(measured)
        start = measured.start_seconds if measured else START_S
        weight_bytes = 2 if self.precision == "bf16-weights" else 4
        checkpoint = checkpoint_bytes(counts.parameters, weight_bytes, plan.optimizer)
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
        power = watts if watts is not None else self._watts()
        if watts is None:
            self.assumptions.append(f"Power {power:.0f} W: {self._watts_source()}.")
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
            disk_bytes=float(disk_bytes(counts.parameters, weight_bytes, plan.optimizer, self.config.train.keep)),
            disk_free_bytes=None
            if self.target
            else float(shutil.disk_usage(existing_folder(self.artifacts.root)).free),
            step_seconds=step,
            step_source=source,
            seconds=seconds,
            duration=duration,
            tokens_per_second=plan.batch_tokens / step,
            watts=power,
            energy_kwh=power * seconds / 3.6e6,
            hourly_rate=hourly_rate,
            price=hourly_rate * seconds / 3600 if hourly_rate is not None else None,
            choices={**self.choices, **plan.reasons, **self._faster_ways()},
            assumptions=self.assumptions,
        )

    def _faster_ways(self) -> dict[str, str]:
        """Compiling, and a GPU's own ways, as training would choose them; elsewhere with the extra `gpu` installed."""
        assert self.counts is not None
        compile_it = self._compile()
        compiling = {"compile": f"{'on' if compile_it.value else 'off'}: {compile_it.reason}"}
        hardware = hardware_of(self.device) if self.target is None else _hardware(self.target)
        family = self.outline.model_config.model_type if self.outline.model_config else self.config.model.family
        return compiling | choose_kernels(hardware, self.config.train, family, self.counts.parameters).reasons

    def _watts(self) -> float:
        if self.target:
            return self.target.accelerator.watts * self.target.count * (1 + HOST_SHARE)
        if self.on_cpu:
            return CPU_WATTS_PER_CORE * devices.available_cores()
        return GPU_WATTS * self.processes

    def _watts_source(self) -> str:
        if self.target:
            return (
                f"the boards' {self.target.accelerator.watts:.0f} W each, and {HOST_SHARE:.0%} for the machine around"
            )
        return f"assumed, {CPU_WATTS_PER_CORE:.0f} W a core" if self.on_cpu else f"assumed, {GPU_WATTS:.0f} W a GPU"


def _hardware(machine: TargetMachine) -> Hardware:
    entry = machine.accelerator
    capability = ADA if entry.fp8 else AMPERE if entry.bf16 else (7, 0)
    return Hardware("cuda", capability, liger=True)
