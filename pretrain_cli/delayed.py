"""Puts off the import of a package that libraries import whether or not it is used."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Delayed(ModuleType):
    """A package that is imported once something in it is asked for, its submodules included."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if spec is None or spec.loader is None:
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__path__ = spec.submodule_search_locations or []
        try:
            spec.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(self.__name__, None)
            raise
        return getattr(self, name)


def delay(name: str) -> None:
    """Let ``import NAME`` import nothing yet; a package that is missing, or imported already, stays so.

    importlib's own LazyLoader imports the package at the next ``import`` of it, until Python 3.12.
    """
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        return
    module = _Delayed(name)
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    module.__package__ = name
    sys.modules[name] = module
