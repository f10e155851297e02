"""Where data lie: in a file system, or on S3."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from catalogs import object_path
from catalogs.object_path import READ, URL, ObjectPath, side_by_side

Place = Path | ObjectPath
T = TypeVar("T")
R = TypeVar("R")


def place(name: str | Place) -> Place:
    """The place of a path or a URL, one of whose slashes a Path may have dropped.

    Raises UsageError for a URL that is not of S3.
    """
    if isinstance(name, ObjectPath):
        return name
    return object_path.parse(str(name)) if URL.match(str(name)) else Path(name)


def snapshot(folder: Place) -> Place:
    """A folder as it is now: on S3, what is below it is read as it was listed, or refused as changed."""
    return folder.listed() if isinstance(folder, ObjectPath) else folder


@contextlib.contextmanager
def local_copy(file: Place | None) -> Iterator[Any]:
    """The file, for those who read it in a file system; of one on S3 a copy of the same name, for a while."""
    if not isinstance(file, ObjectPath):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="mmae-") as folder:
        copy = Path(folder, file.name)
        if file.is_file():
            with file.open() as content, copy.open("wb") as here:
                shutil.copyfileobj(content, here, READ)
        yield copy


def together(work: Callable[[T], R], items: Iterable[T], where: Place) -> Iterator[R]:
    """What work makes of each item, in order; where data lie on S3, of some at a time."""
    return side_by_side(work, items) if isinstance(where, ObjectPath) else map(work, items)


def pieces(file: Place, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Bytes start:stop of a file, for each range; fewer where it ends before. On S3, in one go."""
    if isinstance(file, ObjectPath):
        return file.read_ranges(ranges)
    with file.open("rb", buffering=0) as stream:
        found = []
        for start, stop in ranges:
            stream.seek(start)
            found.append(stream.read(stop - start))
        return found
