"""Bounds of flags, told in one sentence."""

from catalogs.errors import UsageError

SEEDS = (0, 2**63 - 1)


def check_range(flag: str, value: float, low: float, high: float) -> None:
    """Raises UsageError for a value that is not from `low` to `high`, both included, as NaN is not."""
    if not low <= value <= high:
        raise UsageError(f"{flag} must be from {low:g} to {high:g}, got {value}")
