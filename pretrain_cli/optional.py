"""Tells whether an optional package can be used, and how it is installed here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import shlex
import sys
import sysconfig
from pathlib import Path

from pretrain_cli.errors import first_line

TOLD_LENGTH = 100


def to_install(packages: str = "", extra: str = "") -> str:
    """The command that installs ``packages``, or an ``extra`` of ptk, into the environment that this process runs in.

    Those of pipx and uv have no pip, and another one would install elsewhere. What `uvx` runs is made for one line.
    """
    what = f'"pretrain-cli[{extra}]"' if extra else packages
    here = Path(sys.prefix)
    if (here / "pipx_metadata.json").is_file():
        return f"pipx runpip {here.name} install {what}"
    # Asked for as a module, pip turns setuptools' import hook off, without which no model compiles.
    if (Path(sysconfig.get_path("purelib")) / "pip").is_dir() or "\nuv = " not in _settings(here):
        return f"pip install {what}"
    if "archive-v0" in here.parts:
        return f"uvx --with {what} and the rest of the line as before"
    return f"uv pip install --python {shlex.quote(str(here))} {what}"


def _settings(environment: Path) -> str:
    file = environment / "pyvenv.cfg"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


@functools.cache
def fault_of(package: str) -> str:
    """Why ``package`` can't be used, as the end of a sentence about it; empty where its import works.

    A package that was built for another torch or driver is found, and fails when it is imported. Imports it.
    """
    if importlib.util.find_spec(package) is None:
        return "isn't installed"
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever its own code raises
        return f"is installed but can't be imported ({first_line(error)[:TOLD_LENGTH]})"
    return ""
