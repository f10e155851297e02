"""Galaxies of training stores: their splits, what is known of each, and their rows as batches."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from catalogs.errors import InputRefused
from catalogs.object_id import hash_ids
from catalogs.object_path import ObjectPath
from catalogs.place import Place
from catalogs.products.model_input import ModelInput
from catalogs.products.schema import Reject
from catalogs.store.checks import REPAIR
from catalogs.store.cutouts import CutoutStore, open_store
from catalogs.store.format import SIZE, SPECTYPES, STAR
from catalogs.store.spectra import STORED_POOL, WAVE, pool
from mmae.bundles.likeness.selection import Standing, drawn, effective, magnitudes, target_of, weights
from mmae.bundles.roles import Positions
from mmae.layers.patches import PATCH
from mmae.models.batch import Batch, check_labels, pooled
from mmae.models.families import AnyConfig
from mmae.models.masking import Known

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}
BLOCK = 4
"""Chunks per read: the overhead of a read in zarr is the time of 40 galaxies, whatever its size."""
MEASURED_ROWS = 2048
"""Galaxies that are read together to be measured."""


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


def spectypes(store: CutoutStore) -> np.ndarray:
    """What the objects of a store are, (N,) uint8, codes of SPECTYPES.

    Raises InputRefused for other codes.
    """
    if not store.has("spectype"):
        return np.zeros(store.n, np.uint8)
    codes = store.column("spectype")
    if (wrong := (codes < 0) | (codes >= len(SPECTYPES))).any():
        meanings = ", ".join(f"{code} {name or 'not known'}" for code, name in enumerate(SPECTYPES))
        raise InputRefused(f"{store.path} has a spectype of {codes[wrong][0]}: write one of {meanings}")
    return codes.astype(np.uint8)


def has_stars(stores: Iterable[CutoutStore]) -> bool:
    """Whether an object of the stores is known to be a star."""
    return any((spectypes(store) == STAR).any() for store in stores)


def redshifts_right(store: CutoutStore) -> np.ndarray:
    """Probabilities (N,) float32 that the redshifts of a store are right; 1 where it says nothing.

    Raises InputRefused for what is no probability.
    """
    if not store.has("redshift_weight"):
        return np.ones(store.n, np.float32)
    weight = store.column("redshift_weight").astype(np.float32)
    if (wrong := (weight < 0) | (weight > 1)).any():
        raise InputRefused(
            f"{store.path} has a redshift_weight of {weight[wrong][0]:g}: write the probability that the "
            "redshift is right, from 0 to 1, and NaN where nothing is known of it"
        )
    return np.where(np.isnan(weight), np.float32(1), weight)


def splits(stores: Sequence[CutoutStore]) -> np.ndarray:
    """Names of the splits of all objects of stores, one after the other, (N,).

    Those of the first store are its own. An object of another store that is at the position of one before it
    is in the split of that: no galaxy is trained on in one survey and judged by in another.
    """
    ra, dec, names = np.zeros(0), np.zeros(0), np.zeros(0, "<U10")
    for store in stores:
        own, *place = (store.column(name) for name in ("object_id", "ra", "dec"))
        before = Positions(ra, dec).nearest(*place)
        of_store = split(own)
        if len(names):
            of_store = np.where(before >= 0, names[before], of_store)
        ra, dec = (np.concatenate(pair) for pair in zip((ra, dec), place, strict=True))
        names = np.concatenate([names, of_store])
    return names


class Block(NamedTuple):
    """Rows of a store that are read together."""

    store: CutoutStore
    start: int
    stop: int
    first: int
    """Number of its first row among those of all stores."""
    number: int
    """Of the store."""

    @classmethod
    def of(cls, stores: Sequence[CutoutStore]) -> list[Self]:
        blocks, first = [], 0
        for number, store in enumerate(stores):
            size = BLOCK * store.chunk_rows
            blocks += [
                cls(store, start, min(store.n, start + size), first + start, number)
                for start in range(0, store.n, size)
            ]
            first += store.n
        return blocks

    def has_spectrum(self) -> np.ndarray:
        """Which of its objects have a spectrum with a valid pixel, (m,); without, it is 0 (spectra.py)."""
        if not self.store.has_spectra:
            return np.zeros(self.stop - self.start, bool)
        return np.asarray(self.store.column("spectrum", self.start, self.stop).any(1))


class TrainingSet:
    """Stores opened for a model: its bands, and its format of spectra. Rows are numbered through all of them.

    Its splits are of the objects with an image that inference would not reject, and those of validation and
    test of objects with a redshift, which no star has. Of the others each teaches what it has: what it is, a
    spectrum, or the image alone.
    All images are read once, about 10,000 a second, to know which inference would reject.

    trained_on : description (state.py) of what a model was trained on, to whose zero point and pixel scale
        images are brought; by default those of the first store. Raises InputRefused where they are too
        unlike.
    least_bands : observed bands that an image must have, if more than the model needs
    complete : whether to leave out what has no spectrum or no redshift
    """

    def __init__(
        self,
        paths: Place | Sequence[Place],
        model: AnyConfig,
        trained_on: Mapping[str, Any] | None = None,
        least_bands: int = 0,
        complete: bool = False,
    ):
        paths = [paths] if isinstance(paths, Path | ObjectPath) else paths
        self.stores = [open_store(path) for path in paths]
        self.store, self.model = self.stores[0], model
        check_labels(self.stores, complete)
        taken = trained_on or {"zero_point": self.store.zero_point, "pixel_scale": self.store.pixel_scale}
        taken = {**taken, "bands": model.bands, "columns": model.columns}
        self.input = ModelInput.of(taken, max(least_bands, model.least_bands))
        for store in self.stores:
            self.input.check(store)
        wave = next((store.wave for store in self.stores if store.has_spectra), WAVE)
        self.wave = pooled(pool(wave, STORED_POOL), model)
        self.object_id = np.concatenate([store.column("object_id") for store in self.stores])
        self.redshift = np.concatenate([store.redshifts() for store in self.stores])
        self.right = np.concatenate([redshifts_right(store) for store in self.stores])
        self.spectype = np.concatenate([spectypes(store) for store in self.stores])
        columns = [self.input.columns_of(store) for store in self.stores]
        self.has_columns = np.isfinite(np.concatenate(columns))
        """(N, C) bool, which columns of the catalogue are known of each row."""
        self.splits = splits(self.stores)
        self.blocks = Block.of(self.stores)
        sizes = [block.stop - block.start for block in self.blocks]
        self.block = np.repeat(np.arange(len(sizes)), sizes)
        """(N,), index of the block of each row."""
        self.has_spectrum = np.concatenate([block.has_spectrum() for block in self.blocks])
        labelled = np.isfinite(self.redshift) & self.has_spectrum
        wanted = labelled if complete else np.ones(len(labelled), bool)
        screened = [(read.reason, read.observed) for read in (self.input.read(*b[:3]) for b in self.blocks)]
        reason, self.has_bands = map(np.concatenate, zip(*screened, strict=True))
        """(N, bands) bool, which bands of each row were observed."""
        self.usable = wanted & (reason == "")
        self.rejected = Counter(reason[wanted & ~self.usable].tolist())
        """Objects that are left out, by the reason why inference rejects the image."""
        self.weight = np.ones(len(labelled))
        """(N,), how much each counts: 1, or that by which those with a redshift stand for others."""
        self.stands: Standing | None = None
        """How well they do."""

    @property
    def name(self) -> str:
        """Its stores, by their paths."""
        return ", ".join(str(store.path) for store in self.stores)

    @property
    def remarks(self) -> Iterator[str]:
        """Lines on what is learned from: kinds, what is left out, what is brought to the model's input."""
        yield self.kinds
        if self.stands:
            yield str(self.stands)
        if self.left_out:
            yield self.left_out
        for store in self.stores:
            if differences := self.input.differences(store):
                yield f"of {store.path}, the model {differences}"

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
        kinds = [f"{int(of_kind.sum())} {name}" for name, of_kind in numbers.items() if of_kind.any()]
        stars = int((self.spectype[rows] == STAR).sum())
        return ", ".join(kinds) + (f"; {stars} of these are stars" if stars else "")

    def require_splits(self, ranks: int = 1) -> None:
        """Raise InputRefused where a split has no galaxy for each rank, or too few for a covariance."""
        for name, least in ((TRAIN, max(2, ranks)), (VALIDATION, ranks)):
            if (number := len(self.labelled(name))) < least:
                raise InputRefused(
                    f"{self.name} has too few galaxies with a redshift and a usable image: {number} in the "
                    f"{name} split, at least {least} are needed; take a larger store"
                )

    def rows(self, name: str, stars: bool = False) -> np.ndarray:
        """Indices of the rows of a split, ascending; but for that of training, of those with a redshift.

        stars : and of stars
        """
        wanted = np.isfinite(self.redshift) | ((self.spectype == STAR) & stars) | (name == TRAIN)
        return np.flatnonzero((self.splits == name) & self.usable & wanted)

    def kind(self, rows: np.ndarray) -> np.ndarray:
        """Kinds (m,) of objects: twice the number of the store, and 1 more for those of an image alone."""
        of_block = np.array([block.number for block in self.blocks])
        taught = np.isfinite(self.redshift[rows]) | (self.spectype[rows] > 0) | self.has_spectrum[rows]
        return 2 * of_block[self.block[rows]] + ~taught

    def times(self, rows: np.ndarray, of_stores: Sequence[float], unlabelled: float) -> np.ndarray:
        """How often an epoch sees each of the rows (m,) in the mean.

        of_stores : those of each store; unlabelled : those of images alone, for each of the others
        """
        of_stores = of_stores or [1.0] * len(self.stores)
        of_kinds = np.array([share * factor for share in of_stores for factor in (1.0, unlabelled)])
        return np.asarray(of_kinds[self.kind(rows)] * self.weight[rows])

    def stand_for(self, store: CutoutStore, noise: Sequence[float]) -> Standing:
        """Weigh galaxies with a redshift so that those of a split stand for the objects of a store.

        Of the splits that are trained on, and calibrated on; the images of these are read. noise (bands,):
        that of the training set. Raises InputRefused for a store whose images the model does not take.
        """
        unit = torch.tensor(noise)
        own_light = getattr(self.model, "own_light", False)
        target, unlike = target_of(store, self.input, unit, own_light), {}
        for name in (TRAIN, VALIDATION):
            rows = self.labelled(name)
            parts = [rows[start : start + MEASURED_ROWS] for start in range(0, len(rows), MEASURED_ROWS)]
            measured = [magnitudes(self.read(part).image, unit, own_light) for part in parts]
            if measured:
                self.weight[rows], unlike[name] = weights(torch.cat(measured).numpy(), target)
        rows = self.labelled(TRAIN)
        counted = effective(self.weight[rows])
        self.stands = Standing(store.fingerprint, len(rows), counted, unlike[TRAIN])
        return self.stands

    def standing(self, rows: np.ndarray) -> np.ndarray:
        """Of the rows those that stand for others, as often as they do, ascending; always the same ones."""
        weight = self.weight[rows]
        return rows if (weight == 1).all() else rows[drawn(weight, np.random.default_rng(0))]

    def labelled(self, name: str) -> np.ndarray:
        """The `rows` with a redshift."""
        rows = self.rows(name)
        return rows[np.isfinite(self.redshift[rows])]

    def known(self, rows: np.ndarray) -> Known:
        """What is known of the rows (m,)."""
        labels = (self.has_spectrum[rows], np.isfinite(self.redshift[rows]), self.spectype[rows] > 0)
        return Known(*map(torch.from_numpy, (*labels, self.has_columns[rows], self.has_bands[rows])))

    def sample(self, name: str, n: int, stars: bool = False) -> np.ndarray:
        """Up to n of the `rows`, drawn by object id: stores are in the order of the sky or a program."""
        rows = self.rows(name, stars)
        return rows[np.argsort(hash_ids(hash_ids(self.object_id[rows])), kind="stable")[:n]]

    def read(self, rows: np.ndarray) -> Batch:
        """Read the galaxies at any row indices, in that order; each block is read once."""
        bands = len(self.input.bands)
        image = np.empty((len(rows), bands, SIZE, SIZE), np.float32)
        conditions = np.empty((len(rows), self.input.told_width), np.float32)
        spectrum = np.zeros((len(rows), len(self.wave)), np.float32)
        for number in np.unique(self.block[rows]):
            store, start, stop, first, _ = self.blocks[number]
            of_block = np.flatnonzero(self.block[rows] == number)
            inside = rows[of_block] - first
            read = self.input.read(store, start, stop)
            if (read.reason[inside] == Reject.DAMAGED).any():  # since they were screened
                raise InputRefused(
                    f"{store.path}: the images of rows {start} to {stop} are damaged: {REPAIR}"
                )
            image[of_block], conditions[of_block] = read.image[inside], read.conditions[inside]
            if store.has_spectra:
                spectrum[of_block] = pooled(store.column("spectrum", start, stop)[inside], self.model)
        labels = (self.redshift[rows].astype(np.float32), conditions, self.right[rows], self.spectype[rows])
        return Batch(*map(torch.from_numpy, (image, spectrum, *labels)))


def sample_test_rows(data: TrainingSet, objects: int, seed: int, held_out: bool = False) -> np.ndarray:
    """Row indices of a random sample of the test split, in random order: `objects`, or all if fewer.

    held_out : sample all galaxies, where the model was made with none of them
    """
    rows = np.flatnonzero(data.usable) if held_out else data.rows(TEST)
    if not len(rows):
        raise InputRefused(f"{data.name} has no galaxy in the test split: take a larger one")
    return np.random.default_rng(seed).permutation(rows)[:objects]
