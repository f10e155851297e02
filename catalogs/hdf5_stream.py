"""HDF5 written so that a full disk is an error: libhdf5 alone fails to close the file then, and crashes."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py


class _Stream(io.FileIO):
    """A file that keeps its first failure to itself, and from then on only pretends to write."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        with self._keeping():
            while len(rest) and self.failure is None:
                rest = rest[super().write(rest) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        with self._keeping():
            if self.failure is None:
                super().truncate(size)
        return size or 0

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


@contextlib.contextmanager
def create(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Create a file; gives it, and a function that raises OSError if a write to it has failed.

    The function is for those who write for long: it is called at the end in any case.
    """
    with _Stream(path, "w+") as stream:
        with h5py.File(stream, "w") as file:
            yield file, stream.check
        stream.check()
