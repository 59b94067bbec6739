"""What every test stands on: one torch thread each."""

from __future__ import annotations

import os

# Before torch is imported: more threads than cores make small models tens of times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
