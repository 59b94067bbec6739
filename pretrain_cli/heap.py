"""Does a step on a CPU get its memory from the step before, or new from the system each time?"""

from __future__ import annotations

import ctypes
import platform
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next step; whether its C library can (glibc's mallopt(3)).

    By default glibc gives large blocks back when they are freed, and the system clears new ones page by page: a step
    frees and takes all activations, gradients and weights cast to bf16. Kept, the steps of a 248M model at 64 tokens
    took 0.73 s in place of 1.05 in bf16, and the peak was 5 % higher.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all((mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_TOP_PAD, TOP_PAD_BYTES)))
