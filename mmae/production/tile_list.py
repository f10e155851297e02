"""Which cutout stores `--catalog` names: paths, URLs, quoted globs, and lists of these in text files."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from catalogs.errors import UsageError
from catalogs.object_path import ObjectPath
from catalogs.place import Place, place
from catalogs.products.embeddings import is_product
from catalogs.regular_file import refuse_special
from catalogs.store.checks import check_folder

LIST_MARK = "@"


def named_stores(catalog: Sequence[str]) -> list[Place]:
    """The stores that --catalog names, each once; a glob passes over what was made of stores.

    Raises UsageError where one of them is not there, InputRefused where it is a FIFO or a device.
    """
    stores = [store for entry in catalog for store in _stores(entry)]
    return list({store.resolve(): store for store in stores}.values())


def _stores(entry: str, within: tuple[Path, ...] = ()) -> list[Place]:
    """Stores of an entry of the command line, or of the list files it stands in."""
    if entry.startswith(LIST_MARK):
        return list(_listed(Path(entry.removeprefix(LIST_MARK)), within))
    path = place(entry)
    if glob.has_magic(str(path)) and not path.exists():
        stores = [match for match in _matches(path) if match.is_dir() and not is_product(match)]
        if not stores:
            raise UsageError(f"no cutout store matches {entry}")
        return stores
    try:
        check_folder(path)
    except UsageError as error:
        may_be_list = path.is_file() and path.suffix != ".zip"
        hint = f", a list of stores is {LIST_MARK}{path}" if may_be_list else ""
        raise UsageError(f"{error}{hint}") from None
    return [path]


def _matches(pattern: Place) -> list[Place]:
    """What there is by a pattern, by name."""
    if isinstance(pattern, ObjectPath):
        return [*sorted(ObjectPath(pattern.bucket).glob(pattern.key))]
    return [*map(Path, sorted(glob.glob(str(pattern))))]  # noqa: PTH207 - of absolute patterns too


def _listed(file: Path, within: tuple[Path, ...]) -> Iterator[Place]:
    """Stores in a list file, without comments (#); relative paths start at the working directory."""
    refuse_special(file)
    if file.resolve() in within:
        raise UsageError(f"the list {file} names itself")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list {file} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if entry := line.partition("#")[0].strip():
            try:
                yield from _stores(entry, (*within, file.resolve()))
            except UsageError as error:
                raise UsageError(f"{file}, line {number}: {error}") from None
