"""Places to write to: what cannot be written is refused before hours go into it."""

import os
from collections.abc import Iterable
from pathlib import Path

from catalogs.errors import UsageError


def check_output(path: Path) -> None:
    """Raise UsageError where no file or store can be written."""
    _check(path, path.absolute().parents)


def check_output_folder(path: Path) -> None:
    """Raise UsageError where no files can be written into a folder, which need not be there yet."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: pass a folder with --out")
    _check(path, (path, *path.absolute().parents))


def _check(path: Path, places: Iterable[Path]) -> None:
    existing = next(place for place in places if place.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise UsageError(f"{path} cannot be written, as {existing} is no folder to write to: choose another")
