"""Tells whether an optional package can be used: one that is installed may still fail to import."""

from __future__ import annotations

import functools
import importlib
import importlib.util

from pretrain_cli.errors import first_line

TOLD_LENGTH = 100


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
