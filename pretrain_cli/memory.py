"""Measures how much memory this process may still take, and how much it has taken at most."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
OWN_CGROUP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Bytes that this process may still take: what the machine or its container (cgroup v2) has left."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        own = OWN_CGROUP.read_text(encoding="utf-8").split("0::/", 1)[1].split("\n", 1)[0]
        limit, used, stat = (
            (CGROUPS / own / f"memory.{name}").read_text(encoding="utf-8") for name in ("max", "current", "stat")
        )
        # Cached files count as used, but are dropped when memory is asked for.
        cached = int(stat.split("inactive_file ", 1)[1].split("\n", 1)[0])
        return min(free, int(limit) - int(used) + cached)
    except (OSError, IndexError, ValueError):  # no such system, or no limit: "max"
        return free


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of a GPU, or the machine's, has run out.

    CUDA and XPU have a type for it; Apple's GPU and torch's CPU allocator say it in a RuntimeError.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "DefaultCPUAllocator" in text)


def peak_resident_bytes() -> int:
    """Bytes of this program's largest resident set.

    From the kernel's own record where there is one: on Linux, getrusage's figure survives an exec, so that a process
    started by a large one would report that one's peak (getrusage(2), proc(5)).
    """
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def resident_bytes() -> int:
    """Bytes of memory that this process holds now."""
    import psutil

    return int(psutil.Process().memory_info().rss)
