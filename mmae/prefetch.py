"""Prefetch: a thread runs an iterator a bounded number of items ahead of whoever takes them."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """The items of `source`, none of which is None, at most `most` of them made before they are taken.

    Iterating waits for each item; leaving the context stops the thread.
    """

    def __init__(self, source: Iterable[T], most: int):
        self.ended = False
        """Whether all has been taken."""
        self._items: queue.SimpleQueue[T | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(most)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(iter(source),), name="prefetch", daemon=True)
        self._thread.start()

    def _run(self, source: Iterator[T]) -> None:
        try:
            while self._room.acquire() and not self._stopped:
                item = next(source, None)
                self._items.put(item)
                if item is None:
                    return
        except BaseException as error:  # noqa: BLE001 - take raises it
            self._items.put(error)

    @property
    def waiting(self) -> int:
        """Items that can be taken at once."""
        return self._items.qsize()

    def take(self, seconds: float | None = 0.0) -> T | None:
        """The next item; None if none came within `seconds`, or none will. Raises what the source raised."""
        if self.ended:
            return None
        try:
            item = self._items.get(timeout=seconds) if seconds != 0 else self._items.get_nowait()
        except queue.Empty:
            return None
        self._room.release()
        if isinstance(item, BaseException):
            self.ended = True
            raise item
        self.ended = item is None
        return item

    def __iter__(self) -> Iterator[T]:
        while (item := self.take(None)) is not None:
            yield item

    def stop(self) -> None:
        """Make no more items, and wait for the one that is being made."""
        self._stopped = True
        self._room.release()
        self._thread.join()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
