"""Chooses how many processes train on this machine, and starts and ends them together."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from pretrain_cli import processes
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, PtkError
from pretrain_cli.model.devices import ASKED, Choice, available_cores, check_processes, choose_device, device_count
from pretrain_cli.processes import ProcessDied
from pretrain_cli.training.processes.signals import HANDLED, STOPS

GRACE_S = 10
"""Seconds that the other processes have to end when one has failed; after a Ctrl-C they take what saving needs."""


def wanted_processes(train: TrainConfig) -> Choice[int]:
    """Processes to start on this machine.

    One on a CPU: torch's threads use all its cores already, and two processes were no faster (benchmarks/scaling.py).

    Raises:
        ConfigError: more are asked for than there are GPUs.
    """
    processes.check_amount("train.processes", train.processes)
    device = choose_device(train.device).value
    if isinstance(train.processes, int):
        check_processes(device, train.processes)
        if device in ("cuda", "xpu") and train.processes > device_count(device):
            raise ConfigError(
                f"{train.processes} processes need as many GPUs, and here are {device_count(device)}.",
                "Use --processes auto, or --device cpu.",
            )
        return Choice(train.processes, ASKED)
    if device in ("cuda", "xpu") and device_count(device) > 1:
        return Choice(device_count(device), "one for each GPU")
    return Choice(1, "one process uses all cores" if device == "cpu" else "one GPU")


def unheard_launcher() -> str:
    """What a launcher was asked for and doesn't do: `accelerate launch --cpu` starts one process, whatever is asked."""
    if processes.world_size() > 1 or "ACCELERATE_USE_CPU" not in os.environ:
        return ""
    try:
        line = psutil.Process().parent().cmdline()
    except (psutil.Error, AttributeError):
        return ""
    asked = _asked_of_accelerate(" ".join(line))
    if asked < 2:
        return ""
    return (
        f"accelerate launch was asked for {asked} processes and has started one, as it does on a CPU. This training "
        f"runs on one; for more: ptk train --processes {asked}"
    )


def _asked_of_accelerate(line: str) -> int:
    """Processes that a command line of accelerate launch asks for, itself or by its config file; 0 where neither."""
    if given := re.search(r"--num[-_]processes[= ](\d+)", line):
        return int(given[1])
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    named = re.search(r"--config[-_]file[= ](\S+)", line)
    path = named[1] if named else default_config_file
    if not Path(path).is_file():
        return 0
    try:
        return int(load_config_from_file(path).num_processes)
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def launch(count: int, words: Sequence[str], debug: bool = False) -> None:
    """Run `ptk` with ``words`` in ``count`` processes under torch's elastic launcher, until all have ended.

    Raises:
        PtkError: a process failed: its own error, with its exit code.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if not debug:
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # each has its own level
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        run_id="ptk",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle="SIGQUIT",  # Ctrl-C and SIGTERM are passed on here: a process may take its time to save
        shutdown_timeout=GRACE_S,
    )
    with (
        tempfile.TemporaryDirectory(prefix="ptk-errors-") as folder,
        _environment(count, folder),
        _passing_on() as sent,
    ):
        config.logs_specs = DefaultLogsSpecs(log_dir=folder)
        try:
            elastic_launch(config, sys.executable)("-m", "pretrain_cli", *words)
        except ChildFailedError as error:
            raise first_failure(Path(folder), error.failures, bool(sent)) from None


def first_failure(folder: Path, ends: dict[int, Any], told_to_stop: bool = False) -> PtkError:
    """The error to show: what a process said of itself, else how the first one died.

    Args:
        folder: where the processes left their errors.
        ends: rank → the elastic launcher's record of how it ended.
        told_to_stop: a signal was passed on to them.
    """
    said = processes.failures(folder)
    if said and (told_to_stop or not said[0].secondary):
        return processes.as_error(said[0])
    # A launcher ends the others by SIGTERM, and after a while by SIGKILL: whoever ended otherwise was the first.
    silent = {rank: end for rank, end in ends.items() if rank not in {failure.rank for failure in said}}
    silent = {rank: end for rank, end in silent.items() if end.exitcode != -signal.SIGTERM} or silent
    rank, first = min(silent.items(), key=lambda item: (item[1].exitcode < 0, item[1].timestamp), default=(0, None))
    if first is not None and first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        memory = " Usually the memory has run out." if name == "SIGKILL" else ""
        return ProcessDied(
            f"The training's process {rank} was ended by {name}; the others were stopped.{memory}",
            "Continue from the last checkpoint: ptk train --resume",
            128 - first.exitcode,
        )
    if first is None:
        return processes.as_error(said[0])
    hint = "Its output is above; ptk train --debug shows more."
    return ProcessDied(f"The training's process {rank} ended with code {first.exitcode}.", hint, first.exitcode)


@contextmanager
def _environment(count: int, folder: str) -> Iterator[None]:
    """What the processes find in their environment: where errors go, and each its share of the cores."""
    before = dict(os.environ)
    os.environ[processes.ERRORS], os.environ[processes.LAUNCHER] = folder, str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // count)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _passing_on() -> Iterator[list[int]]:
    """Give Ctrl-C and its like to the processes and wait: the first saves and stops, the second stops at once."""
    sent: list[int] = []

    def send(number: int, frame: FrameType | None) -> None:
        if number in STOPS:
            sent.append(number)
        for child in psutil.Process().children():
            child.send_signal(number)

    before: dict[int, Callable[..., Any] | int | None] = {number: signal.signal(number, send) for number in HANDLED}
    try:
        yield sent
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
