"""Bounds of flags, told in one sentence."""

from catalogs.errors import UsageError

SEEDS = (0, 2**63 - 1)
MAX_LAYERS, MAX_WIDTH = 256, 16384
"""Of a model: a larger one would fill any memory before it could be refused."""


def check_range(flag: str, value: float, low: float, high: float) -> None:
    """Raises UsageError for a value that is not from `low` to `high`, both included, as NaN is not."""
    if not low <= value <= high:
        raise UsageError(f"{flag} must be from {low:g} to {high:g}, got {value}")


def check_sizes(layers: dict[str, int], widths: dict[str, int]) -> None:
    """Raises UsageError for a number of layers, or a width, of a model that is negative or too large."""
    for sizes, most in ((layers, MAX_LAYERS), (widths, MAX_WIDTH)):
        for name, size in sizes.items():
            check_range(f"--model.{name.replace('_', '-')}", size, 0, most)
