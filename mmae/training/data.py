"""Galaxies of a training store: a fixed split, and a shuffled order that reads whole chunks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catalogs.errors import InputRefused
from catalogs.object_id import hash_ids
from catalogs.products.model_input import ModelInput
from catalogs.products.schema import Reject
from catalogs.products.screen import REASON_DTYPE
from catalogs.store.checks import REPAIR
from catalogs.store.cutouts import CutoutStore, open_store
from catalogs.store.format import SIZE
from catalogs.store.spectra import STORED_POOL, WAVE, pool
from mmae.models.batch import Batch, check_labels, check_spectra, pooled
from mmae.models.families import AnyConfig
from mmae.models.patches import PATCH
from mmae.prefetch import Prefetch

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}
BLOCK = 4
"""Chunks per read: the overhead of a read in zarr is the time of 40 galaxies, whatever its size."""
SEGMENT_ROWS = 2048
"""Rows, or a few more, that are shuffled together and held in memory together: 170 MB."""


def split(object_id: np.ndarray) -> np.ndarray:
    """Name of the split of each object, (N,): the paper's 70/15/15, a function of the id alone."""
    share = hash_ids(object_id) / 2.0**64
    edges = np.cumsum(list(SHARES.values()))[:-1]
    return np.array(list(SHARES))[np.searchsorted(edges, share, side="right")]


def sky_noise(image: np.ndarray) -> np.ndarray:
    """Sky noise per pixel, (bands,): robust scatter of the corners of cutouts (N, bands, 64, 64)."""
    corners = image[..., :PATCH, :PATCH].swapaxes(0, 1).reshape(image.shape[1], -1)
    sky = np.nanmedian(corners, axis=1, keepdims=True)
    return 1.4826 * np.nanmedian(np.abs(corners - sky), axis=1)


def known_redshifts(store: CutoutStore) -> np.ndarray:
    """Redshifts (N,) float64 of the objects of a store; NaN: not known."""
    if not store.has_redshifts:
        return np.full(store.n, np.nan)
    redshift = store.column("redshift").astype(np.float64)
    return np.where(np.isfinite(redshift) & (redshift > -1), redshift, np.nan)


def known_spectra(store: CutoutStore, block_rows: int) -> np.ndarray:
    """Which objects of a store have a spectrum with a valid pixel, (N,); without, it is 0 (spectra.py)."""
    known = np.zeros(store.n, bool)
    if store.has_spectra:
        for start in range(0, store.n, block_rows):
            rows = slice(start, min(store.n, start + block_rows))
            known[rows] = store.column("spectrum", rows.start, rows.stop).any(1)
    return known


def image_reasons(store: CutoutStore, wanted: ModelInput, block_rows: int) -> np.ndarray:
    """Why inference would reject each image of a store (screen.py), (N,) str, "" for a usable one.

    All images are read once, about 10,000 a second.
    """
    reason = np.zeros(store.n, REASON_DTYPE)
    for start in range(0, store.n, block_rows):
        rows = slice(start, min(store.n, start + block_rows))
        reason[rows] = wanted.read(store, rows.start, rows.stop).reason
    return reason


class TrainingSet:
    """A store opened for a model: its bands, and its format of spectra.

    Its splits are of the objects with an image that inference would not reject, and those of validation and
    test of objects with a redshift. Of the others each teaches what it has: a spectrum, or the image alone.

    trained_on : description (state.py) of what a model was trained on, to whose zero point and pixel scale
        images are brought; by default those of the store. Raises InputRefused where they are too unlike.
    least_bands : observed bands that an image must have, if more than the model needs
    complete : whether to leave out what has no spectrum or no redshift
    """

    def __init__(
        self,
        path: Path,
        model: AnyConfig,
        trained_on: Mapping[str, Any] | None = None,
        least_bands: int = 0,
        complete: bool = False,
    ):
        self.store = open_store(path)
        check_spectra(self.store) if complete else check_labels(self.store)
        self.model = model
        taken = trained_on or {"zero_point": self.store.zero_point, "pixel_scale": self.store.pixel_scale}
        self.input = ModelInput.of({**taken, "bands": model.bands}, max(least_bands, model.least_bands))
        self.input.check(self.store)
        self.wave = pooled(pool(self.store.wave if self.store.has_spectra else WAVE, STORED_POOL), model)
        self.object_id = self.store.column("object_id")
        self.redshift = known_redshifts(self.store)
        self.splits = split(self.object_id)
        self.block_rows = BLOCK * self.store.chunk_rows
        self.has_spectrum = known_spectra(self.store, self.block_rows)
        wanted = np.isfinite(self.redshift) & self.has_spectrum if complete else np.ones(self.store.n, bool)
        reason = image_reasons(self.store, self.input, self.block_rows)
        self.usable = wanted & (reason == "")
        self.rejected = Counter(reason[wanted & ~self.usable].tolist())
        """Objects that are left out, by the reason why inference rejects the image."""

    @property
    def left_out(self) -> str:
        """A line on the objects that are left out; empty where there are none."""
        if not self.rejected:
            return ""
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.rejected.items()))
        return f"left out: {self.rejected.total()} objects whose images cannot be used ({reasons})"

    @property
    def kinds(self) -> str:
        """How many objects of the training split have what: a line."""
        rows = self.rows(TRAIN)
        redshift, spectrum = np.isfinite(self.redshift[rows]), self.has_spectrum[rows]
        numbers = {
            "with spectrum and redshift": redshift & spectrum,
            "with a redshift alone": redshift & ~spectrum,
            "with a spectrum alone": spectrum & ~redshift,
            "with neither": ~(redshift | spectrum),
        }
        return ", ".join(f"{int(of_kind.sum())} {name}" for name, of_kind in numbers.items() if of_kind.any())

    def require_splits(self, ranks: int = 1) -> None:
        """Raise InputRefused where a split has no galaxy for each rank, or too few for a covariance."""
        for name, least in ((TRAIN, max(2, ranks)), (VALIDATION, ranks)):
            if (number := int(np.isfinite(self.redshift[self.rows(name)]).sum())) < least:
                raise InputRefused(
                    f"{self.store.path} has too few galaxies with a redshift and a usable image: {number} in "
                    f"the {name} split, at least {least} are needed; take a larger store"
                )

    def rows(self, name: str) -> np.ndarray:
        """Indices of the rows of a split, ascending; but for that of training, of those with a redshift."""
        wanted = self.usable if name == TRAIN else self.usable & np.isfinite(self.redshift)
        return np.flatnonzero((self.splits == name) & wanted)

    def known(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the rows have a spectrum, and which a redshift: (m,) bool each."""
        return torch.from_numpy(self.has_spectrum[rows]), torch.from_numpy(np.isfinite(self.redshift[rows]))

    def sample(self, name: str, n: int) -> np.ndarray:
        """Up to n rows of a split, drawn by object id: stores are in the order of the sky or a program."""
        rows = self.rows(name)
        return rows[np.argsort(hash_ids(hash_ids(self.object_id[rows])), kind="stable")[:n]]

    def read(self, rows: np.ndarray) -> Batch:
        """Read the galaxies at any row indices, in that order; each block is read once."""
        size = self.block_rows
        bands = len(self.input.bands)
        image = np.empty((len(rows), bands, SIZE, SIZE), np.float32)
        conditions = np.empty((len(rows), 2 * bands + 1), np.float32)
        spectrum = np.zeros((len(rows), len(self.wave)), np.float32)
        for block in np.unique(rows // size):
            start, stop = int(block * size), int(min(self.store.n, (block + 1) * size))
            of_block = np.flatnonzero(rows // size == block)
            inside = rows[of_block] - start
            read = self.input.read(self.store, start, stop)
            if (read.reason[inside] == Reject.DAMAGED).any():  # since they were screened
                raise InputRefused(
                    f"{self.store.path}: the images of rows {start} to {stop} are damaged: {REPAIR}"
                )
            image[of_block], conditions[of_block] = read.image[inside], read.conditions[inside]
            if self.store.has_spectra:
                spectrum[of_block] = pooled(self.store.column("spectrum", start, stop)[inside], self.model)
        redshift = self.redshift[rows].astype(np.float32)
        return Batch(*map(torch.from_numpy, (image, spectrum, redshift, conditions)))


def segment_batches(batch: int) -> int:
    """Number of batches whose rows are shuffled together and read together."""
    return -(-SEGMENT_ROWS // batch)


def epoch_order(rows: np.ndarray, block_rows: int, batch: int, seed: int, epoch: int) -> np.ndarray:
    """All `rows` once, in the order of this epoch: blocks are shuffled, then the rows within each segment.

    The order does not depend on the number of ranks, and a run can resume at any position in it.
    """
    rng = np.random.default_rng([seed, epoch])
    position = rng.permutation(rows.max(initial=0) // block_rows + 1)
    order = rows[np.argsort(position[rows // block_rows], kind="stable")]
    segment_rows = segment_batches(batch) * batch
    for start in range(0, len(order), segment_rows):
        rng.shuffle(order[start : start + segment_rows])
    return order


def steps_per_epoch(rows: int, batch: int, ranks: int) -> int:
    """Batches in an epoch; a last batch with fewer galaxies than ranks is dropped."""
    return rows // batch + (rows % batch >= ranks)


def batch_rows(rows: int, batch: int, step: int) -> int:
    """Galaxies in a batch of an epoch, over all ranks; the last batch may be smaller."""
    return min(batch, rows - step * batch)


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


def sample_test_rows(data: TrainingSet, objects: int, seed: int, held_out: bool = False) -> np.ndarray:
    """Row indices of a random sample of the test split, in random order: `objects`, or all if fewer.

    held_out : sample all galaxies, where the model was made with none of them
    """
    rows = np.flatnonzero(data.usable) if held_out else data.rows(TEST)
    if not len(rows):
        raise InputRefused(f"{data.store.path} has no galaxy in the test split: take a larger one")
    return np.random.default_rng(seed).permutation(rows)[:objects]
