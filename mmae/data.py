"""Galaxies from a training store: a split that never changes, a shuffled order that reads whole chunks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from catalogs.cutout_format import REPAIR
from catalogs.cutouts import open_store, pad
from catalogs.errors import InputRefused
from catalogs.screen import screen_images
from catalogs.spectra import POOL, POOLED_LENGTH, STORED_POOL, pool
from mmae.ahead import Ahead
from mmae.object_id import hash_ids
from mmae.patches import PATCH

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}
BLOCK = 4
"""Chunks that are read at once: a read takes zarr as long as 40 galaxies, however many it brings."""
SEGMENT_ROWS = 2048
"""Rows, or a few more, that are shuffled among each other and held in memory together: 170 MB."""


class Batch(NamedTuple):
    image: Tensor
    """(B, 5, 64, 64) float32, flux at the zero point of the store"""
    spectrum: Tensor
    """(B, L) float32, normalised and pooled as the model takes it"""
    redshift: Tensor
    """(B,) float32"""

    def rows(self, which: slice) -> "Batch":
        return Batch(*(tensor[which] for tensor in self))

    def pinned(self) -> "Batch":
        """The same in memory that a GPU copies from by itself."""
        return Batch(*(tensor.pin_memory() for tensor in self))

    def to(self, device: torch.device) -> "Batch":
        """On a device; the copy of a pinned batch goes on behind what the program does next."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def split(object_id: np.ndarray) -> np.ndarray:
    """(N,) names of the split each object is in: the paper's 70/15/15, by the id alone, whatever the file."""
    share = hash_ids(object_id) / 2.0**64
    edges = np.cumsum(list(SHARES.values()))[:-1]
    return np.array(list(SHARES))[np.searchsorted(edges, share, side="right")]


class Spectra(Protocol):
    """What a model takes of spectra."""

    @property
    def spectrum_pool(self) -> int:
        """Native pixels averaged into one."""

    @property
    def spectrum_length(self) -> int:
        """Such pixels, from the blue end."""


def pooled(spectrum: np.ndarray, spectra: Spectra) -> np.ndarray:
    """Spectra (..., P) as a model takes them, from the resolution of a store: (..., L)."""
    return pool(spectrum, spectra.spectrum_pool // STORED_POOL)[..., : spectra.spectrum_length]


def sky_noise(image: np.ndarray) -> np.ndarray:
    """Sky noise of a pixel, by the corners of cutouts (N, bands, 64, 64): robust scatter, (bands,)."""
    corners = image[..., :PATCH, :PATCH].swapaxes(0, 1).reshape(image.shape[1], -1)
    sky = np.median(corners, axis=1, keepdims=True)
    return 1.4826 * np.median(np.abs(corners - sky), axis=1)


class TrainingSet:
    """A store with spectra and redshifts, opened to train a model that takes such spectra."""

    def __init__(self, path: Path, spectra: Spectra):
        self.store = open_store(path)
        if not self.store.has_spectra:
            raise InputRefused(
                f"{path} lacks spectra or redshifts to train on: ingest a GalaxiesML-Spectra file (again)"
            )
        if len(self.store.wave) // POOL != POOLED_LENGTH:
            raise InputRefused(
                f"{path} has spectra of {len(self.store.wave)} pixels, not {POOLED_LENGTH} x {POOL} and a few"
            )
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

    with Ahead(map(load, segments), most=1) as loaded:
        for segment, galaxies in zip(segments, loaded, strict=True):
            start = 0
            for part in segment:
                yield galaxies.rows(slice(start, start + len(part)))
                start += len(part)
