"""Prepared rows for training tests, and a config that trains in a second."""

from __future__ import annotations

from tests.support.prepared import prepared, prose, rows

__all__ = ["prepared", "prose", "rows"]
