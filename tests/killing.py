"""Faults at a chosen moment: wait for it, or, in a program with this folder on its path, be killed at it."""

import os
import signal
import sys
import time

WAIT_SECONDS = 120

CHANGES = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir")
"""Audit events of changes to files and folders."""


def die_at(folder, step):
    """Kill this process before the `step`th change, from now on, of anything below `folder`."""
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if event in CHANGES and str(arguments[0]).startswith(str(folder)):
            steps += event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR) != 0
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def wait_for(condition, process):
    """Wait until the condition is true; the process must still be running."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert process.poll() is None, "the run ended before the fault"
        assert time.monotonic() < deadline, "the moment for the fault never came"
        time.sleep(0.01)
