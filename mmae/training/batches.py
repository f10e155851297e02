"""The order of an epoch, which reads whole blocks of chunks, and its batches as ranks share them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmae.bundles.likeness.selection import drawn
from mmae.models.batch import Batch
from mmae.prefetch import Prefetch
from mmae.training.data import TrainingSet

SEGMENT_ROWS = 2048
"""Rows, or a few more, that are shuffled together and held in memory together: 170 MB."""


def segment_batches(batch: int) -> int:
    """Number of batches whose rows are shuffled together and read together."""
    return -(-SEGMENT_ROWS // batch)


def epoch_rows(rows: np.ndarray, times: np.ndarray, kind: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The rows that an epoch sees, ascending, drawn anew for each epoch.

    times (N,): how often it sees each row in the mean. Their number, and that of each kind (N,), is the same
    in every epoch.
    """
    if (times == 1).all():
        return rows
    return rows[drawn(times, np.random.default_rng([seed, epoch, 1]), kind)]


def epoch_order(rows: np.ndarray, block: np.ndarray, batch: int, seed: int, epoch: int) -> np.ndarray:
    """All `rows` in the order of this epoch: blocks are shuffled, then the rows within each segment.

    block (N,): that of each row, which are read together.
    The order does not depend on the number of ranks, and a run can resume at any position in it.
    """
    rng = np.random.default_rng([seed, epoch])
    position = rng.permutation(block.max(initial=0) + 1)
    order = rows[np.argsort(position[block], kind="stable")]
    segment_rows = segment_batches(batch) * batch
    for start in range(0, len(order), segment_rows):
        rng.shuffle(order[start : start + segment_rows])
    return order


@dataclass(frozen=True)
class Epochs:
    """The galaxies of a training split as the epochs see them."""

    rows: np.ndarray
    """(N,)"""
    times: np.ndarray
    """(N,), how often an epoch sees each in the mean"""
    kind: np.ndarray
    """(N,)"""
    block: np.ndarray
    """That of each row of the training set."""
    batch: int
    seed: int

    @cached_property
    def galaxies(self) -> int:
        """That an epoch sees."""
        return len(self.seen(0))

    def seen(self, epoch: int) -> np.ndarray:
        """Rows that an epoch sees, ascending."""
        return epoch_rows(self.rows, self.times, self.kind, self.seed, epoch)

    def order(self, epoch: int) -> np.ndarray:
        """These rows in the order of the epoch."""
        seen = self.seen(epoch)
        return epoch_order(seen, self.block[seen], self.batch, self.seed, epoch)


def steps_per_epoch(rows: int, batch: int, ranks: int) -> int:
    """Batches in an epoch; a last batch with fewer galaxies than ranks is dropped."""
    return rows // batch + (rows % batch >= ranks)


def batch_order(order: np.ndarray, batch: int, step: int) -> np.ndarray:
    """Rows of a batch of an epoch over all ranks, as they are divided among them: ascending."""
    return np.sort(order[step * batch : (step + 1) * batch])


def rank_slice(size: int, rank: int, ranks: int) -> slice:
    """Slice of `size` items that belongs to a rank; sizes differ by at most one, larger ones first."""
    quotient, remainder = divmod(size, ranks)
    start = rank * quotient + min(rank, remainder)
    return slice(start, start + quotient + (rank < remainder))


def batches(
    data: TrainingSet, order: np.ndarray, batch: int, rank: int, ranks: int, first: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """Yield this rank's share of each batch of `order`, from batch number `first` on.

    A share is contiguous in the sorted rows, so that each rank reads only part of the blocks of a segment. A
    thread prefetches the next segment of batches: two are in memory, pinned for the copy to a GPU if `pin`.
    """
    steps = range(first, steps_per_epoch(len(order), batch, ranks))
    together = (batch_order(order, batch, step) for step in steps)
    shares = [rows[rank_slice(len(rows), rank, ranks)] for rows in together]
    size = segment_batches(batch)
    segments = [shares[start : start + size] for start in range(0, len(shares), size)]

    def load(segment: Sequence[np.ndarray]) -> Batch:
        galaxies = data.read(np.concatenate(segment))
        return galaxies.pinned() if pin else galaxies

    with Prefetch(map(load, segments), most=1) as loaded:
        for segment, galaxies in zip(segments, loaded, strict=True):
            start = 0
            for rows in segment:
                yield galaxies.rows(slice(start, start + len(rows)))
                start += len(rows)
