"""Implements `ptk plan`: forecasts what a training run takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_cli.cli.console import labeled, shell
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session, loading
from pretrain_cli.formatting import byte_size, count, count_of, duration, exact, rate, step_time

if TYPE_CHECKING:
    from pretrain_cli.planning.result import MethodForecast, TrainingPlan
    from pretrain_cli.training.measuring.forecast import Duration


@command(
    "train.max_minutes",
    "train.max_steps",
    "train.max_tokens",
    "train.epochs",
    "train.device",
    "train.precision",
    "model.base",
    "model.size",
    "train.method",
    "train.batch_tokens",
    "train.processes",
    "train.shard_model",
    examples=(
        "ptk plan",
        "ptk plan data.txt --max-minutes 30",
        "ptk plan --for h100x8 --hourly-rate 24 --size large",
    ),
)
def plan(
    session: Session,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT", help="Text that is not prepared yet.")] = None,
    machine: Annotated[
        str, typer.Option("--for", metavar="MACHINE", help="Plan for another machine, such as h100x8.")
    ] = "",
    hourly_rate: Annotated[
        float | None,
        typer.Option("--hourly-rate", metavar="X", min=0, max=1e9, help="Price of the whole machine per hour."),
    ] = None,
    watts: Annotated[
        float | None,
        typer.Option("--watts", metavar="X", min=0, max=1e12, help="Power draw of the whole machine in watts."),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(
            "--mfu", metavar="X", min=0.01, max=1, help="Share of the data sheet's peak FLOPs that training reaches."
        ),
    ] = None,
    measure: Annotated[
        float,
        typer.Option(
            "--measure",
            metavar="SECONDS",
            min=0,
            max=86_400,
            help="Time real steps on this machine for this long. 0: don't.",
        ),
    ] = 20.0,
) -> None:
    """Forecast what a training run takes: parameters, steps, memory, disk, time, energy and price.

    Writes nothing. On this machine, ptk times a few real steps. For another machine, [bold]--for[/] computes from its
    data sheet and an assumed share of its peak FLOPs.
    """
    if inputs:
        session = session.with_config(data__inputs=tuple(inputs))
    with session.progress() as progress:
        with loading(progress):
            from pretrain_cli.planning.run import plan_training

        result = plan_training(
            session.config,
            session.artifacts,
            progress,
            machine=machine,
            measure_seconds=measure,
            mfu=mfu,
            hourly_rate=hourly_rate,
            watts=watts,
            origins=session.resolved.origins,
        )
    session.console.result(_title(result), _facts(result), result)
    session.console.next(_next(session, inputs or []))


PLAN_OPTIONS = ("--for", "--hourly-rate", "--watts", "--mfu", "--measure")
OUTPUT_OPTIONS = ("--json", "--quiet", "-q", "--plain", "--debug")


def _next(session: Session, inputs: list[str]) -> str:
    """The commands that carry out the plan, with the options that shaped it."""
    words = list(session.command[1 + session.command.index("plan") :]) if "plan" in session.command else []
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word in PLAN_OPTIONS:
            words[:1] = []
        elif word not in (*OUTPUT_OPTIONS, *inputs) and not word.startswith(tuple(f"{name}=" for name in PLAN_OPTIONS)):
            kept.append(word)
    train = shell("ptk", "train", *kept)
    if not inputs:
        return train
    base = ("--base", session.config.model.base) if session.config.model.base else ()
    return f"{shell('ptk', 'prepare', *inputs, *base)} && {train}"


def _title(result: TrainingPlan) -> str:
    fits = "fits" if result.fits else "does NOT fit in memory"
    return f"{count(result.parameters)} parameters on {result.machine}: {duration(result.seconds)}, {fits}"


def _facts(result: TrainingPlan) -> list[tuple[str, str]]:
    pieces = f"{count_of(result.micro_batch, 'row')} of {exact(result.sequence_length)}"
    pieces += f" × {result.accumulation}" if result.accumulation > 1 else ""
    pieces += f" on each of {exact(result.processes)} processes" if result.processes > 1 else ""
    kinds = ("weights", "gradients", "optimizer", "activations", "logits", "program")
    parts = ", ".join(f"{kind} {byte_size(getattr(result.memory, kind))}" for kind in kinds)
    peak = result.measured_peak_bytes or result.memory.peak
    source = "measured" if result.measured_peak_bytes else "estimated"
    room = f"{byte_size(result.available_bytes)}{' on each' if result.processes > 1 else ''}"
    facts = [
        (
            "tokens",
            f"{count(result.tokens)} in {count_of(result.steps, 'step')} of {count(result.batch_tokens)} ({pieces})",
        ),
        ("arithmetic", f"{_power(result.flops)} FLOPs, {result.precision}, {result.optimizer}"),
        ("memory", f"peak {byte_size(peak)} ({source}) of {room}"),
        ("", f"estimated: {parts}"),
        *labeled("ways", [_way(way, way.method == result.method) for way in result.methods]),
        *labeled("would fit", result.fixes),
        ("disk", f"{byte_size(result.disk_bytes)} for checkpoints and model{_disk(result)}"),
        (
            "step",
            f"{step_time(result.step_seconds)}, {rate(result.tokens_per_second, 'tokens')}: {result.step_source}",
        ),
        ("time", f"{duration(result.seconds)}: {_pieces(result.duration)}"),
        ("energy", f"{result.energy_kwh:.3g} kWh at {count(result.watts)} W"),
    ]
    if result.price is not None:
        facts.append(("price", f"{result.price:,.2f} at {result.hourly_rate:g} per hour"))
    chosen = [f"{name} {reason}" for name, reason in result.choices.items()]
    return [*facts, *labeled("chosen", chosen), *labeled("assumed", result.assumptions)]


def _pieces(parts: Duration) -> str:
    named = {
        "start": parts.start,
        "teachers": parts.teaching,
        "steps": parts.stepping,
        "validations": parts.validating,
        "checkpoints": parts.saving,
    }
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in named.items() if seconds >= 0.05)


def _way(way: MethodForecast, planned: bool) -> str:
    rank = f" of rank {way.rank}" if way.rank else ""
    again = ", activations computed again" if way.gradient_checkpointing else ""
    return (
        f"{way.method}{rank}: {byte_size(way.peak_bytes)}, {'fits' if way.fits else 'DOES NOT FIT'}; "
        f"{count(way.trained)} weights trained, {count_of(way.micro_batch, 'row')} at once{again}, "
        f"about {rate(way.tokens_per_second, 'tokens')}{' (planned)' if planned else ''}"
    )


def _disk(result: TrainingPlan) -> str:
    if result.disk_free_bytes is None:
        return ""
    lacking = "" if result.disk_bytes <= result.disk_free_bytes else "ONLY "
    return f"; {lacking}{byte_size(result.disk_free_bytes)} free"


def _power(number: float) -> str:
    """8.63e+14 → "8.63e14"."""
    return f"{number:.3g}".replace("e+", "e")
