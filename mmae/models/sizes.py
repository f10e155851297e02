"""Bounds on the size of a model: a larger one would fill any memory before it could be refused."""

from catalogs.ranges import check_range

MAX_LAYERS, MAX_WIDTH = 256, 16384


def check_sizes(layers: dict[str, int], widths: dict[str, int]) -> None:
    """Raises UsageError for a number of layers, or a width, that is negative or too large."""
    for sizes, most in ((layers, MAX_LAYERS), (widths, MAX_WIDTH)):
        for name, size in sizes.items():
            check_range(f"--model.{name.replace('_', '-')}", size, 0, most)
