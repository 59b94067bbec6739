"""Formats the numbers that people read: counts, bytes, durations, rates and losses, alike in every message and page."""

from __future__ import annotations

LONG_PATH = 200


def count(number: float) -> str:
    """A count at the precision a person needs: "4,321", "12.3M", "1.5B"."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return exact(number)


def exact(number: float) -> str:
    """A count with all its digits: "12,345,678"."""
    return f"{number:,.0f}"


def count_of(number: float, thing: str, plural: str = "") -> str:
    """A count with its noun: "1 row", "4,321 rows", "2 processes".

    Args:
        number: how many.
        thing: the noun in the singular.
        plural: its plural, where that isn't ``thing`` with an s.
    """
    return f"{count(number)} {thing if number == 1 else plural or f'{thing}s'}"


def byte_size(size: float) -> str:
    """Bytes in decimal units: "412 kB", "10.8 MB", "1.2 GB"."""
    if size < 1e3:
        return f"{size:.0f} B"
    for limit, unit, divisor in ((1e6, "kB", 1e3), (1e9, "MB", 1e6), (1e12, "GB", 1e9)):
        if size < limit:
            return f"{size / divisor:.3g} {unit}" if size < 100 * divisor else f"{size / divisor:.0f} {unit}"
    return f"{size / 1e12:.3g} TB"


def duration(seconds: float) -> str:
    """A time span with its unit: "35 ms", "0.8 s", "42 s", "3:05 min", "2:10 h"."""
    if 0 < seconds < 0.1:
        return f"{max(1, 1000 * seconds):.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    whole = max(60, int(seconds))
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def step_time(seconds: float) -> str:
    """The time of a step, in three digits: "0.253 ms", "148 ms", "1.83 s", "16 s"."""
    return (
        f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s" if seconds < 9.95 else duration(seconds)
    )


def clock(seconds: float) -> str:
    """A running time as a clock shows it: "1:07", "2:05:00"."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def rate(per_second: float, unit: str) -> str:
    """A speed with its unit: "8,123 tokens/s"; for bytes "12.3 MB/s"."""
    return f"{byte_size(per_second)}/s" if unit == "bytes" else f"{count(per_second)} {unit}/s"


def percent(share: float, digits: int = 0) -> str:
    """A share of 1 as a percentage: 0.053 → "5%"."""
    return f"{share:.{digits}%}"


def score(value: float | None, missing: str = "-") -> str:
    """A loss or bits per byte: "3.142"; after divergence "3.4e+19"; ``missing`` where there is none."""
    if value is None:
        return missing
    return f"{value:.3f}" if abs(value) < 1e5 else f"{value:.1e}"


def shortened(path: str) -> str:
    """A path or value for a message, without the middle of a very long one."""
    return path if len(path) <= LONG_PATH else f"{path[: LONG_PATH // 2]}…{path[-LONG_PATH // 2 :]}"
