"""Galaxies from a training store: a split that never changes, a shuffled order that reads whole chunks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from catalogs.errors import InputRefused
from catalogs.object_id import hash_ids
from catalogs.products.screen import screen_images
from catalogs.store.checks import REPAIR
from catalogs.store.cutouts import open_store, pad
from catalogs.store.spectra import STORED_POOL, pool
from mmae.models.batch import Batch, Spectra, check_spectra, pooled
from mmae.models.patches import PATCH
from mmae.prefetch import Prefetch

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}
BLOCK = 4
"""Chunks that are read at once: a read takes zarr as long as 40 galaxies, however many it brings."""
SEGMENT_ROWS = 2048
"""Rows, or a few more, that are shuffled among each other and held in memory together: 170 MB."""


def split(object_id: np.ndarray) -> np.ndarray:
    """(N,) names of the split each object is in: the paper's 70/15/15, by the id alone, whatever the file."""
    share = hash_ids(object_id) / 2.0**64
    edges = np.cumsum(list(SHARES.values()))[:-1]
    return np.array(list(SHARES))[np.searchsorted(edges, share, side="right")]


def sky_noise(image: np.ndarray) -> np.ndarray:
    """Sky noise of a pixel, by the corners of cutouts (N, bands, 64, 64): robust scatter, (bands,)."""
    corners = image[..., :PATCH, :PATCH].swapaxes(0, 1).reshape(image.shape[1], -1)
    sky = np.median(corners, axis=1, keepdims=True)
    return 1.4826 * np.median(np.abs(corners - sky), axis=1)


class TrainingSet:
    """A store with spectra and redshifts, opened to train a model that takes such spectra."""

    def __init__(self, path: Path, spectra: Spectra):
        self.store = open_store(path)
        check_spectra(self.store)
        self.spectra = spectra
        self.wave = pooled(pool(self.store.wave, STORED_POOL), spectra)
        self.object_id = self.store.column("object_id")
        self.redshift = self.store.column("redshift")
        self.usable = np.isfinite(self.redshift) & (self.redshift > -1)
        self.splits = split(self.object_id)
        self.block_rows = BLOCK * self.store.chunk_rows

    def rows(self, name: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero((self.splits == name) & self.usable)

    def read(self, rows: np.ndarray) -> Batch:
        """The galaxies of any row numbers, in their order; every block they lie in is read once."""
        size = self.block_rows
        image = np.empty((len(rows), 5, 64, 64), np.float32)
        spectrum = np.empty((len(rows), len(self.wave)), np.float32)
        for block in np.unique(rows // size):
            start, stop = int(block * size), int(min(self.store.n, (block + 1) * size))
            here = np.flatnonzero(rows // size == block)
            inside = rows[here] - start
            pixels, damaged = self.store.images(start, stop)
            if damaged.any():
                raise InputRefused(
                    f"{self.store.path}: the images of rows {start} to {stop} are damaged: {REPAIR}"
                )
            clean, _, _ = screen_images(pixels, damaged)
            image[here] = pad(clean)[inside]
            spectrum[here] = pooled(self.store.column("spectrum", start, stop)[inside], self.spectra)
        return Batch(*map(torch.from_numpy, (image, spectrum, self.redshift[rows].astype(np.float32))))


def segment_batches(batch: int) -> int:
    """Batches whose rows are shuffled among each other, and read together."""
    return -(-SEGMENT_ROWS // batch)


def epoch_order(rows: np.ndarray, block_rows: int, batch: int, seed: int, epoch: int) -> np.ndarray:
    """All `rows` once, in an order of this epoch: blocks shuffled, then the rows of each segment of them.

    The order does not depend on the number of ranks, and a run goes on from any place in it.
    """
    rng = np.random.default_rng([seed, epoch])
    place = rng.permutation(rows.max(initial=0) // block_rows + 1)
    order = rows[np.argsort(place[rows // block_rows], kind="stable")]
    segment_rows = segment_batches(batch) * batch
    for start in range(0, len(order), segment_rows):
        rng.shuffle(order[start : start + segment_rows])
    return order


def steps_per_epoch(rows: int, batch: int, ranks: int) -> int:
    """Batches in an epoch; a last one too small to give every rank a galaxy is left out."""
    return rows // batch + (rows % batch >= ranks)


def batch_rows(rows: int, batch: int, step: int) -> int:
    """Galaxies in a batch of an epoch, over all ranks; the last may be smaller."""
    return min(batch, rows - step * batch)


def share(size: int, rank: int, ranks: int) -> slice:
    """A rank's part of `size` things: parts differ by one at most, and the first ranks have the larger."""
    least, more = divmod(size, ranks)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


def batches(
    data: TrainingSet, order: np.ndarray, batch: int, rank: int, ranks: int, first: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """This rank's share of each batch of `order`, from batch number `first` on.

    A share is galaxies that lie side by side in the store, so that of the blocks of a segment each rank reads
    a part, not all. A segment of batches is read on a thread while the one before it is used: two are in
    memory, pinned for the copy to a GPU if asked for.
    """
    steps = range(first, steps_per_epoch(len(order), batch, ranks))
    whole = (np.sort(order[step * batch : (step + 1) * batch]) for step in steps)
    shares = [rows[share(len(rows), rank, ranks)] for rows in whole]
    size = segment_batches(batch)
    segments = [shares[start : start + size] for start in range(0, len(shares), size)]

    def load(segment: Sequence[np.ndarray]) -> Batch:
        read = data.read(np.concatenate(segment))
        return read.pinned() if pin else read

    with Prefetch(map(load, segments), most=1) as loaded:
        for segment, galaxies in zip(segments, loaded, strict=True):
            start = 0
            for part in segment:
                yield galaxies.rows(slice(start, start + len(part)))
                start += len(part)


def choose(data: TrainingSet, objects: int, seed: int) -> np.ndarray:
    """Row numbers of galaxies of the test split: as many as asked for, or all there are, in random order."""
    rows = data.rows(TEST)
    if not len(rows):
        raise InputRefused(f"{data.store.path} has no galaxy in the test split: take a larger one")
    return np.random.default_rng(seed).permutation(rows)[:objects]
