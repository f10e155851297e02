"""Failures by what a user can do about them; each class has an exit code."""


class UsageError(ValueError):
    """The command line asks for something that cannot be done; nothing was created. Exit code 2."""


class InputRefused(ValueError):
    """The input is damaged, ambiguous or not what the command takes; nothing was computed. Exit code 3."""


class Interrupted(Exception):
    """Stopped on request; the same command resumes from there. Exit code 4."""
