"""Finds out whether this process is one of several that train together, and reports the failure of one for all.

Imports nothing heavy, because the command line asks it first.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from pretrain_cli.errors import ConfigError, PtkError
from pretrain_cli.formatting import shortened

ERRORS = "PTK_ERRORS"
"""Folder where the processes that ptk started leave their errors; unset with any other launcher."""
LAUNCHER = "PTK_LAUNCHER"
"""Process id of the launcher. It tells a process its parent even if that parent died before it looked."""
PARENT_LOOK_S = 0.5
MOST, MOST_PER_CORE = 16, 4
"""Processes or threads that may be asked for: some wait for the disk or the network, so more than one a core."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
MOST_THREADS = 1024
"""Threads that a variable of a library may ask for, or `MOST_PER_CORE` for each core: libraries abort over too many."""
OTHERS_SPEAK_S = 2.0
"""A launcher ends the other processes within this time, so a later error must be printed here."""
STEP_APART = 7919
"""Distance between the ports of two steps of a SLURM job."""
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Variables of a launcher."""
LOST_PEER = ("DistBackendError", "DistNetworkError", "DistStoreError")


def safe_path() -> dict[str, str]:
    """What keeps a Python process from importing from the working folder, whose files may be anybody's: a variable.

    Python does so for ``-m`` and ``-c``. Where this process does too (``python -m pretrain_cli``), they may need it.
    """
    try:
        here = str(Path.cwd())
    except OSError:  # it was removed
        here = ""
    return {} if {"", here} & set(sys.path) else {"PYTHONSAFEPATH": "1"}


class ProcessDied(PtkError):
    """A training process was killed or crashed; the exit code is the one a shell would give."""

    kind = "process"

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[ProcessDied], tuple[str, str, int]]:  # type: ignore[override]
        return type(self), (self.message, self.hint, self.exit_code)


@dataclass(frozen=True)
class Failure:
    """The error that one process left; ``secondary``: it only lost another process, or was told to stop."""

    rank: int
    time: float
    kind: str
    message: str
    hint: str
    exit_code: int
    secondary: bool


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_amount(key: str, amount: int | str) -> None:
    """Refuse more processes or threads than a machine of this size could start.

    Raises:
        ConfigError: ``amount`` is a number over ``MOST_PER_CORE`` for each core and over ``MOST``.
    """
    cores = available_cores()
    most = max(MOST, MOST_PER_CORE * cores)
    if isinstance(amount, int) and amount > most:
        machine = "one core" if cores == 1 else f"{cores} cores"
        raise ConfigError(
            f"{key} = {amount:,} is too many: this machine has {machine}, so {most} is the most.",
            f"Leave it to ptk: --set {key}=auto",
        )


def check_threads(environ: Mapping[str, str]) -> None:
    """Refuse a variable that asks a library for more threads than it could start.

    Raises:
        ConfigError: it does.
    """
    most = max(MOST_THREADS, MOST_PER_CORE * available_cores())
    for name in THREADS:
        value = environ.get(name, "").strip()
        if any(each.strip().isdecimal() and int(each) > most for each in value[:99].split(",")):
            raise ConfigError(
                f"The variable {name} is {shortened(value)}, but more than {most:,} threads can't be started here.",
                f"Unset it, or name at most the number of cores: {available_cores()}.",
            )


def rank() -> int:
    """Rank of this process among those that train together; 0 if it is alone."""
    return _number(os.environ, "RANK", 0)


def world_size() -> int:
    """Number of processes in this training run, as the launcher says."""
    return _number(os.environ, "WORLD_SIZE", 1)


def _number(environ: Mapping[str, str], name: str, otherwise: int) -> int:
    """A variable's number; ``otherwise`` where it isn't set, or is something else."""
    value = environ.get(name, "")
    return int(value) if _is_number(value) else otherwise


def _is_number(value: str) -> bool:
    return value.isascii() and value.strip().isdigit()


def launcher() -> str:
    """What started this process as one of several: "ptk", "torchrun", "srun", "a launcher", or "" if it is alone."""
    if world_size() == 1:
        return ""
    if ERRORS in os.environ:
        return "ptk"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    return "srun" if "SLURM_STEP_NUM_TASKS" in os.environ else "a launcher"


def join_launcher(environ: MutableMapping[str, str] | None = None, *, trains: bool = True) -> None:
    """Translate srun's variables into torchrun's, and arrange to end with the launcher, if there is one.

    Args:
        environ: variables; None: those of this process.
        trains: whether the command may be one of several. Others take variables that hold no numbers for somebody
            else's, and leave them out: libraries would fail over them.

    Raises:
        ConfigError: a variable of a launcher holds no number.
    """
    environ = os.environ if environ is None else environ
    for name in NUMBERS:
        value = environ.get(name, "0").strip()
        if value in ("", "-1") or not (trains or _is_number(value)):
            del environ[name]
    if not trains:
        return
    environ.update(slurm_variables(environ))
    _check_numbers(environ)
    if _number(environ, "WORLD_SIZE", 1) > 1:
        if "OMP_NUM_THREADS" not in environ or _torchruns_own_threads(environ):
            environ["OMP_NUM_THREADS"] = str(share_of_cores(environ))
        end_with_parent(int(environ.get(LAUNCHER) or os.getppid()))


def _check_numbers(environ: Mapping[str, str]) -> None:
    for name in NUMBERS:
        if not _is_number(environ.get(name, "0")):
            raise ConfigError(
                f"The variable {name} is '{environ[name]}', but has to be a number.",
                f"torchrun and srun set it for each process. To train in one process: unset {name}",
            )
    place, size = _number(environ, "RANK", 0), _number(environ, "WORLD_SIZE", 1)
    if place >= max(1, size):
        raise ConfigError(
            f"The variables RANK and WORLD_SIZE say that this is process {place} of {size}, counted from 0.",
            "Check both. To train in one process, unset them; for several: ptk train --processes N",
        )


def share_of_cores(environ: Mapping[str, str]) -> int:
    """Number of cores for each process on this machine: what srun gives a task, else an even share."""
    if "TORCHELASTIC_RUN_ID" not in environ and environ.get("SLURM_CPUS_PER_TASK", "").isdecimal():
        return max(1, min(int(environ["SLURM_CPUS_PER_TASK"]), available_cores()))
    return max(1, available_cores() // max(1, _number(environ, "LOCAL_WORLD_SIZE", 1)))


def _torchruns_own_threads(environ: Mapping[str, str]) -> bool:
    """Whether OMP_NUM_THREADS=1 comes from torchrun, which sets it if it isn't set, however many cores there are."""
    if environ["OMP_NUM_THREADS"] != "1" or "TORCHELASTIC_RUN_ID" not in environ or ERRORS in environ:
        return False
    import psutil

    try:
        return "OMP_NUM_THREADS" not in psutil.Process().parent().environ()  # what torchrun itself was started with
    except (psutil.Error, AttributeError):
        return False


def slurm_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE and so on from what srun sets; empty outside a step of several tasks, or with torchrun.

    SLURM_NTASKS doesn't help: it is also set in a batch script, where one process runs alone.
    """
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS", 1)
    if tasks < 2 or "RANK" in environ or "SLURM_PROCID" not in environ:
        return {}
    per_node = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    job, step = (_number(environ, name, 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": environ.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": per_node[0] if per_node else "1",
        "MASTER_ADDR": environ.get("MASTER_ADDR") or first_host(environ.get("SLURM_STEP_NODELIST", "")),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(20_000 + (job + STEP_APART * step) % 20_000),
    }


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: "gpu[03-06,9],login1" → "gpu03"."""
    match = re.match(r"([^\[,]*)(?:\[([^],-]+)[^]]*\]([^,]*))?", nodes)
    host = "".join(part or "" for part in match.groups()) if match else ""
    return host or "127.0.0.1"


def end_with_parent(parent: int) -> None:
    """End this process as soon as the one that started it is gone, so that nothing keeps writing.

    This also works if the launcher was killed by SIGKILL. It takes a thread, because not every system tells a child.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_LOOK_S)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows, SIGTERM ends it at once

    threading.Thread(target=look, name="parent", daemon=True).start()


def lost_another(error: BaseException | None) -> bool:
    """Whether ``error`` only says that another process is gone, whose error is the one to show."""
    if error is None:
        return False
    text = str(error)
    return type(error).__name__ in LOST_PEER or (
        isinstance(error, RuntimeError) and ("gloo" in text or "Connection closed by peer" in text or "NCCL" in text)
    )


def report(error: PtkError, cause: BaseException | None) -> PtkError | None:
    """The error that this process, one of several, must print; None if another process reports it."""
    secondary = lost_another(cause) or error.kind == "interrupted"
    folder = os.environ.get(ERRORS)
    if folder:
        _leave(Path(folder), error, secondary)
        return None
    if error.kind == "interrupted":
        return error if rank() == 0 and not lost_another(cause) else None
    if rank() == 0 and not secondary:
        return error
    time.sleep(OTHERS_SPEAK_S)  # the launcher ends this process meanwhile if another one has reported
    if lost_another(cause):
        return ProcessDied("Another process of this training run has ended.", "Its error says why.")
    return type(error)(f"Process {rank()}: {error.message}", error.hint) if rank() else error


def _leave(folder: Path, error: PtkError, secondary: bool) -> None:
    path = folder / f"rank-{rank()}.json"
    failure = Failure(rank(), time.time(), error.kind, error.message, error.hint, error.exit_code, secondary)
    if not path.exists():
        staging = path.with_suffix(".part")
        staging.write_text(json.dumps(failure.__dict__), encoding="utf-8")
        staging.replace(path)


def failures(folder: Path) -> list[Failure]:
    """The errors that the processes left: first their own errors, then the secondary ones, each by time."""
    found = [Failure(**json.loads(path.read_text("utf-8"))) for path in folder.glob("rank-*.json")]
    return sorted(found, key=lambda failure: (failure.secondary, failure.time))


def as_error(failure: Failure) -> PtkError:
    """The error to show for all processes."""
    error = PtkError(failure.message, failure.hint)
    error.kind, error.exit_code = failure.kind, failure.exit_code
    return error
