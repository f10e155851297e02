"""Writing of HDF5 in which a full disk is an error: libhdf5 alone cannot close the file, and crashes."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py


class _Stream(io.FileIO):
    """A file that stores its first failure instead of raising it, and discards all later writes."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        remaining = memoryview(data).cast("B")
        size = len(remaining)
        with self._storing_failure():
            while len(remaining) and self.failure is None:
                remaining = remaining[super().write(remaining) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        with self._storing_failure():
            if self.failure is None:
                super().truncate(size)
        return size or 0

    @contextlib.contextmanager
    def _storing_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


@contextlib.contextmanager
def create(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Create a file; yield it, and a function that raises OSError if a write to it has failed.

    The function serves to stop a long write early; it is called at the end in any case.
    """
    with _Stream(path, "w+") as stream:
        with h5py.File(stream, "w") as file:
            yield file, stream.check
        stream.check()
