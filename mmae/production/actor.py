"""What the Ray actors of `mmae infer` and `mmae embed` share: how rows of a store are done.

Pixels never pass through Ray: an actor gets row numbers, and reads the rows itself.
"""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.products.model_input import Cutouts, ModelInput
from catalogs.products.schema import Reject
from catalogs.products.screen import REASON_DTYPE
from catalogs.store.cutouts import CutoutStore, open_store
from catalogs.store.format import SIZE, ImageMetadata
from mmae.prefetch import Prefetch
from mmae.production.units import Rows

OPEN_STORES = 4
GPU_READERS = 4
"""Threads that read and screen for a GPU, 40,000 objects/s each; a core has its own."""
GPU_BATCHES = 4
"""Batches of a block for a GPU: while one is computed, the next are launched and copied. 0.7 GB of pixels."""


class Task(Protocol):
    """What an actor needs to know of a tile."""

    @property
    def store(self) -> Place: ...

    @property
    def described(self) -> ImageMetadata: ...

    @property
    def stamp(self) -> str:
        """Of the store as it was checked."""


Memory = Callable[[tuple[int, ...]], np.ndarray]
"""Gives an array of float32 of a shape, whose numbers are to be written."""


def usual_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Memory that the system gives."""
    return np.empty(shape, np.float32)


class Actor(ABC):
    """A process with one thread (or one GPU), its own copy of the model, and its own handles on the stores.

    Units are computed one after the other. A second one may come while the first is computed: its first rows
    are prefetched, and it is computed while the result of the first is kept. Until then it can be recalled.
    """

    def __init__(self) -> None:
        self.stores: OrderedDict[Place, CutoutStore] = OrderedDict()
        self.opening, self.computing, self.claiming = threading.Lock(), threading.Lock(), threading.Lock()
        self.begun = -1
        self.recalled: set[int] = set()
        self.least_block = 1
        self.readers: ThreadPoolExecutor | None = None
        self.empty: Memory = usual_memory

    input: ModelInput
    """The images that the model takes."""

    def feed_gpu(self, empty: Memory, batch: int) -> None:
        """Read blocks of batches for a GPU, by several threads, into memory that `empty` gives."""
        self.least_block, self.empty = GPU_BATCHES * batch, empty
        self.readers = ThreadPoolExecutor(GPU_READERS, "reader")

    @abstractmethod
    def begin(self) -> None:
        """Load the model; here, and not when the actor is made, errors keep their kind."""

    def process(self, ticket: int, task: Any, rows: Rows) -> dict | None:
        """Do rows of a task; returns what came of them, or None if they were recalled.

        After a crash the same rows give the same bytes again.
        """
        store, (start, stop) = self.open(task), (rows.start, rows.stop)
        columns = {name: store.column(name, start, stop) for name in ("object_id", "ra", "dec")}
        columns["object_id"] = columns["object_id"].astype(np.int64)
        size = max(store.block_rows, self.least_block)
        spans = [(a, min(stop, a + size)) for a in range(start, stop, size)]
        blocks = Prefetch((self.read(store, *span, rows.crashing) for span in spans), most=1)
        with blocks, self.computing:
            if not self.claim(ticket):
                return None
            done = [
                self.compute(task, store, (a, b), cutouts, columns["object_id"][a - start : b - start])
                for (a, b), cutouts in zip(spans, blocks, strict=True)
            ]
        return {} if rows.is_trial else self.keep(task, store, rows, columns, done)

    def read(self, store: CutoutStore, start: int, stop: int, crashing: tuple[int, ...] = ()) -> Cutouts:
        """Read and screen the rows of a block; runs on a prefetching thread."""
        return read(store, start, stop, self.input, crashing, self.empty, self.readers)

    @abstractmethod
    def compute(
        self, task: Any, store: CutoutStore, span: tuple[int, int], cutouts: Cutouts, object_id: np.ndarray
    ) -> Any:
        """What the model makes of a block of rows."""

    @abstractmethod
    def keep(
        self, task: Any, store: CutoutStore, rows: Rows, columns: dict[str, np.ndarray], done: list[Any]
    ) -> dict:
        """Keep the results of all blocks of `rows`, whose ids and positions are given."""

    def claim(self, ticket: int) -> bool:
        """Begin a unit, unless it was recalled; returns whether it has begun."""
        with self.claiming:
            if ticket in self.recalled:
                self.recalled.remove(ticket)
                return False
            self.begun = ticket
            return True

    def recall(self, ticket: int) -> bool:
        """Give a unit back that has not begun; returns whether another actor may have it."""
        with self.claiming:
            if ticket > self.begun:
                self.recalled.add(ticket)
            return ticket > self.begun

    def open(self, task: Task) -> CutoutStore:
        """The store of a tile; the last few stay open."""
        with self.opening:
            if task.store not in self.stores:
                store = open_store(task.store, task.described)
                if store.stamp != task.stamp:
                    raise InputRefused(f"{task.store} was changed while it was being read: start again")
                self.stores[task.store] = store
                if len(self.stores) > OPEN_STORES:
                    self.stores.popitem(last=False)
            self.stores.move_to_end(task.store)
            return self.stores[task.store]


def read(
    store: CutoutStore,
    start: int,
    stop: int,
    wanted: ModelInput,
    crashing: tuple[int, ...] = (),
    empty: Memory = usual_memory,
    readers: ThreadPoolExecutor | None = None,
) -> Cutouts:
    """Read and screen the rows start:stop; those that kill who reads them are rejected unread.

    empty : gives the memory that pixels are put together in, if they are not read in one go
    readers : threads that read parts of them
    """
    lost = np.isin(np.arange(start, stop), crashing)
    pieces = list(_pieces(lost, start, store.block_rows))
    if pieces == [(start, stop)]:
        return wanted.read(store, start, stop)
    m, bands = len(lost), len(wanted.bands)
    cutouts = Cutouts(
        empty((m, bands, SIZE, SIZE)),
        np.full((m, wanted.told_width), np.nan, np.float32),
        np.full(m, Reject.CRASHES.value, REASON_DTYPE),
        np.zeros(m, np.int64),
        np.zeros((m, bands), bool),
    )
    cutouts.image[lost] = 0

    def fill(piece: tuple[int, int]) -> None:
        first, end = piece
        for column, rows in zip(cutouts, wanted.read(store, first, end), strict=True):
            column[first - start : end - start] = rows

    for _ in (readers.map if readers else map)(fill, pieces):
        pass
    return cutouts


def _pieces(lost: np.ndarray, start: int, most: int) -> Iterator[tuple[int, int]]:
    """First row, and the row after the last, of runs of rows from `start` on that are not lost (m,).

    They end at multiples of `most`, where chunks do.
    """
    edges = [-1, *np.flatnonzero(lost).tolist(), len(lost)]
    for before, after in pairwise(edges):
        first, end = start + before + 1, start + after
        while first < end:
            yield first, min(end, (first // most + 1) * most)
            first = min(end, (first // most + 1) * most)
