"""One look for the progress bars of long work."""

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def bar(label: str, *fields: str, disable: bool = False) -> Progress:
    """A bar with counts, elapsed and remaining time, and texts such as "loss {task.fields[loss]:.4f}"."""
    return Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(field) for field in fields),
        disable=disable,
    )
