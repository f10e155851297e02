"""Faults at a chosen moment: wait for it; or, in a program with this folder on its path, die at it."""

import os
import signal
import sys
import time

WAIT_SECONDS = 120

CHANGES = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir")
"""Audit events of what changes files."""


def die_at(folder, step):
    """Be killed before the `step`th change, counted from now, of anything below `folder`."""
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if event in CHANGES and str(arguments[0]).startswith(str(folder)):
            steps += event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR) != 0
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def wait_for(condition, process):
    """Until the condition is true, of a run that is still alive."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert process.poll() is None, "the run ended before the fault"
        assert time.monotonic() < deadline, "the moment for the fault never came"
        time.sleep(0.01)
