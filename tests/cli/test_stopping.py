"""A signal ends a command wherever the program is when it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SWALLOWED = """
import signal, sys, time, weakref
from pretrain_cli.cli.stopping import STOPPING, Terminated

class Held: pass

def finalize(reference):
    print("in a finalizer", flush=True)
    time.sleep(30)

signal.signal(signal.SIGINT, signal.default_int_handler)
STOPPING.listen()
try:
    held = Held()
    reference = weakref.ref(held, finalize)
    del held
    time.sleep(30)
except KeyboardInterrupt as error:
    print(type(error).__name__, *STOPPING.tell())
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows gives a process no signals")
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGINT, "KeyboardInterrupt Stopped by Ctrl-C. 130"),
        (signal.SIGTERM, "Terminated Stopped by SIGTERM. 143"),
    ],
)
def test_a_signal_that_a_finalizer_swallows_ends_the_command_all_the_same(number: signal.Signals, told: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SWALLOWED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "in a finalizer\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (out, err) == (f"{told}\n", "")
