"""Which cutout stores `--catalog` names: paths, quoted globs, and lists of these in text files."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from catalogs.errors import UsageError

LIST_MARK = "@"


def named_stores(catalog: Sequence[str]) -> list[Path]:
    """The stores that --catalog names, each once.

    Raises UsageError where one of them is not there.
    """
    stores = [store for said in catalog for store in _stores(said)]
    return list({store.resolve(): store for store in stores}.values())


def _stores(said: str) -> list[Path]:
    if said.startswith(LIST_MARK):
        return list(_listed(Path(said.removeprefix(LIST_MARK))))
    path = Path(said)
    if not path.exists() and glob.has_magic(said):
        matches = map(Path, sorted(glob.glob(said)))  # noqa: PTH207 - of absolute patterns too
        found = [match for match in matches if match.is_dir()]
        if not found:
            raise UsageError(f"no cutout store matches {said}")
        return found
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if not path.is_dir():
        raise UsageError(
            f"{path} is a file; a cutout store is a directory (Zarr), a list of stores is {LIST_MARK}{path}"
        )
    return [path]


def _listed(file: Path) -> Iterator[Path]:
    """Stores in a list; empty lines and what follows a # count for nothing, paths start where we run."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list {file} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if said := line.partition("#")[0].strip():
            try:
                yield from _stores(said)
            except UsageError as error:
                raise UsageError(f"{file}, line {number}: {error}") from None
