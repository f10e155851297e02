"""The format of a cutout store: its arrays, files and attributes.

    tile.zarr/                 attributes: format, version, survey, bands, pixel_scale, zero_point, frame
      image      (N, bands, H, W) float32 or float16; chunks of 64 rows (columns: a shard) with crc32c, in
                 shards; NaN: no data, also in all of a band that an object lacks
      object_id  (N,) int64          ra, dec  (N,) float64, degrees, ICRS
      redshift   (N,) NaN: not known                        (stores to train on)
      redshift_weight  (N,) probability that it is right; NaN: nothing is said      (beside redshift, or not)
      spectype   (N,) uint8, code of SPECTYPES; 0: not known                        (beside redshift, or not)
      flux, ivar (N, P) float32      wave (P,) angstrom      (with spectra)
      spectrum   (N, P // 6) float32, flux normalised and pooled (spectra.py): what training reads
      noise      (N, bands) sigma of the sky a pixel, flux      psf_fwhm  (N, bands) arcsec, of the seeing
      ebv        (N,) E(B - V) of the Galaxy, mag               mask      (N, H, W) integer, not 0: no data
                 (in any store, each or none; NaN and what is not above 0 (ebv: below 0): not known)
      columns/NAME  (N,) float64, what else a catalogue says of each object; NaN: not known
    tile.zarr.manifest.json    file -> size, sha256, chunk_sums (of a shard; see manifest.py)

Stores of other programs have no manifest; they are read where their meaning is unambiguous.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import zarr

from catalogs.bands import canonical
from catalogs.errors import InputRefused, UsageError
from catalogs.place import Place

P = TypeVar("P", bound=Place)
FORMAT, VERSION = "mmae-cutouts", 1
FRAMES = ("icrs", "fk5", "j2000")
SIZE = 64
"""Pixels on a side of the cutouts the model takes."""
CHUNK = 64
"""Rows per inner chunk: one batch of the model, 5 MB of float32 pixels."""
SHARD = 4096
"""Rows per shard, the unit of writing and of verification: 336 MB of float32 pixels."""

REQUIRED = ("image", "object_id", "ra", "dec")
TRAINING = ("flux", "ivar", "redshift", "spectrum")
LABELS = ("redshift", "redshift_weight", "spectype")
"""What may be known of the redshift of an object, with a spectrum or without, and of what it is."""
SPECTYPES = ("", "STAR", "GALAXY", "QSO")
"""What an object is by its spectrum, in the words of DESI, by code; the first: not known."""
STAR = SPECTYPES.index("STAR")
OPTIONAL = ("noise", "psf_fwhm", "ebv", "mask")
"""What may be known of each object beside its image."""
COLUMNS = "columns"
"""Group of further columns, which a model may be trained to take."""
SPARSE = ("mask",)
"""Arrays of which chunks of nothing but 0 may be left out, as zarr does unless told otherwise."""
AXES = {
    "image": ("N", "bands", "size", "size"),
    "object_id": ("N",),
    "ra": ("N",),
    "dec": ("N",),
    "wave": ("P",),
    "flux": ("N", "P"),
    "ivar": ("N", "P"),
    "redshift": ("N",),
    "redshift_weight": ("N",),
    "spectype": ("N",),
    "spectrum": ("N", "L"),
    "noise": ("N", "bands"),
    "psf_fwhm": ("N", "bands"),
    "ebv": ("N",),
    "mask": ("N", "size", "size"),
}
"""Axes of the arrays; those of one name are of one length."""
FILL_VALUES = {dtype: float(np.finfo(dtype).min) for dtype in ("float16", "float32", "float64")}
FILL_VALUES |= {"int64": -(2**63), "uint8": 255}
"""Fill values that occur in no data: zarr omits a shard that is all fill, and reads a lost one as fill."""


def spectype_codes(names: np.ndarray) -> np.ndarray:
    """Codes (N,) uint8 of the names (N,) of SPECTYPES, str or bytes; 0 for any other."""
    words, codes = np.char.strip(names.astype(str)), np.zeros(len(names), np.uint8)
    for code, name in enumerate(SPECTYPES):
        codes[words == name] = code
    return codes


def beside(store: P, ending: str) -> P:
    """Path of a store with an ending appended; the store may be `.` or `..`."""
    named: Any = store if store.name not in ("", "..") else store.resolve()
    return named.parent / (named.name + ending)


def manifest_path(store: P) -> P:
    return beside(store, ".manifest.json")


def get_array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array), name
    return array


def rows_per_file(array: zarr.Array) -> int:
    return (array.shards or array.chunks)[0]


def shard_key(array: zarr.Array, shard: int) -> str:
    """File of the shard that begins with row shard * shard_rows, relative to the store."""
    return f"{array.path}/c/" + "/".join(map(str, (shard, *(0,) * (array.ndim - 1))))


def _can_be(name: str, value: float) -> bool:
    """Whether a pixel scale or a zero point is possible: of units in use maggies have 0, none less."""
    return 0 < value < math.inf or (name == "zero_point" and value == 0)


@dataclass(frozen=True)
class ImageMetadata:
    """What the user states about a store whose attributes lack it."""

    bands: tuple[str, ...] = ()
    """Names of the bands in the order of the array, whatever the store calls them."""
    pixel_scale: float | None = None
    """arcsec a pixel, if the store does not state it."""
    zero_point: float | None = None
    """AB magnitude of flux 1, if the store does not state it."""

    def __post_init__(self) -> None:
        for name, value in (("pixel_scale", self.pixel_scale), ("zero_point", self.zero_point)):
            if value is not None and not _can_be(name, value):
                raise UsageError(f"--{name.replace('_', '-')} must be a positive number, got {value}")


NO_METADATA = ImageMetadata()


def check_frame(path: Place, attributes: dict) -> None:
    """Raise InputRefused where ra and dec are said to be of another frame; J2000 is ICRS to 0.02 arcsec."""
    frame = attributes.get("frame", FRAMES[0])
    if not isinstance(frame, str) or frame.lower() not in FRAMES:
        raise InputRefused(f"{path} has ra and dec of the frame {frame!r}: write them in {FRAMES[0]}")


def read_bands(path: Place, attributes: dict, metadata: ImageMetadata, count: int) -> tuple[str, ...]:
    """Names of the planes in the table of bands; what the user says goes before what the store does."""
    stored = attributes.get("bands")
    if not isinstance(stored, list | None) or not all(isinstance(band, str) for band in stored or ()):
        raise InputRefused(f"{path} has bands {stored!r}: they must be a list of names")
    called = metadata.bands or tuple(stored or ())
    if not called:
        raise InputRefused(f"{path} does not name its {count} bands: pass --bands, in the order of the array")
    survey = attributes.get("survey")
    bands = tuple(canonical(band, survey if isinstance(survey, str) else "") for band in called)
    if len(called) != count or len(set(bands)) != count:
        raise InputRefused(
            f"{path} names the bands {' '.join(called)} for {count} planes: each once, in order"
        )
    return bands


def read_number(path: Place, attributes: dict, name: str, flag_value: float | None, unit: str) -> float:
    value = attributes.get(name, flag_value)
    flag = "--" + name.replace("_", "-")
    if value is None:
        raise InputRefused(f"{path} does not say its {name} ({unit}): pass {flag}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not _can_be(name, value):
        raise InputRefused(f"{path}: {name} {value!r} is not a positive number ({unit})")
    if flag_value is not None and value != flag_value:
        raise InputRefused(f"{path} has {name} {value}, {flag} says {flag_value}: leave the flag out")
    return float(value)
