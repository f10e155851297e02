"""Die at a given step: for programs that tests start, with this folder on their path."""

import os
import signal
import sys

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
