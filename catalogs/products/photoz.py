"""The photo-z catalogue as FITS: one part per unit of work, its manifest, and the merge into one file.

A unit writes three files, the manifest last; only a part whose manifest verifies counts as finished:
    unit-000007.fits   unit-000007.rejects.fits   unit-000007.json
"""

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy_healpix import HEALPix

from catalogs import atomic, fits_stream
from catalogs.place import Place
from catalogs.products import schema
from catalogs.products.drift import ColourDrift, colour_sums
from catalogs.products.schema import CATALOGUE, PDF, PDF_BINS, REJECTS

COLOUR_DRIFT, COLOUR_CHANCE = "PZCDRIFT", "PZCCHNCE"
"""Keywords of the drift of colours (drift.py)."""
HEALPIX = HEALPix(nside=2**29, order="nested")


@dataclass(frozen=True)
class Provenance:
    """Provenance of the rows, as in every header; no dates, hosts or attempts."""

    model_sha256: str
    training_set: str
    code_version: str
    input_sha256: str
    z_range: tuple[float, float]
    image_mask: float = 0.0
    """Share of every image hidden from the model."""
    draws: int = 1
    """Masks drawn for each image."""
    mc_seed: int = 0
    zero_point: float = 27.0
    """Of the fluxes that the model took."""
    input_zero_point: float = 27.0
    """Of those of the input, which were brought to it."""
    pixel_scale: float = 0.168
    """Of the images that the model took, arcsec."""
    input_pixel_scale: float = 0.168
    """Of those of the input, which were resampled to it where it is another."""
    bands: tuple[str, ...] = ()
    """Of the model: bit k of BANDMASK is the band at place k."""
    pdf_bins: int = 0
    """Bins of the whole p(z) in the catalogue, equal in ln(1 + z) from 0 to `pdf_z_max`; 0: none is kept."""
    pdf_z_max: float = 0.0
    colours: int = 0
    """Galaxies in which the photometry that is summed up is white; 0: none is."""
    has_tail: bool = True
    """Whether OOD_SCORE of the model falls far enough for ATYPICAL to be raised."""


def healpix29(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """HEALPix cells, nested, order 29, of positions in degrees; NULL where a coordinate is invalid."""
    known = (np.abs(ra) <= 720) & (np.abs(dec) <= 90)  # a turn or two more may have been added to RA
    cells = np.full(ra.shape, schema.NULL, np.int64)
    cells[known] = HEALPIX.lonlat_to_healpix(ra[known] * u.deg, dec[known] * u.deg)
    return cells


def rows(
    object_id: np.ndarray,
    ra: np.ndarray,
    dec: np.ndarray,
    columns: dict[str, np.ndarray],
    flags: np.ndarray,
    reason: np.ndarray,
    observed: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Catalogue rows and reject rows of (N,) objects, each in input order.

    columns : columns by name, (N,) or (N, width) each, used for the objects that are not rejected; a missing
        column is null.
    reason : (N,) str, a `schema.Reject`, or "" for an object that is not rejected.
    observed : (N, bands) bool, which of the bands of the model were observed.
    """
    table = schema.nulls(REJECTS, len(object_id))
    table["OBJECT_ID"], table["RA"], table["DEC"] = object_id, ra, dec
    table["HEALPIX29"] = healpix29(ra, dec)
    kept = reason == ""
    for name, values in columns.items():
        table[name][kept] = values[kept]
    used = observed & kept[:, None]
    table["NBANDS_USED"] = used.sum(1)
    table["BANDMASK"] = used @ (1 << np.arange(used.shape[1]))
    table["PHOTOZ_FLAGS"] = flags | np.where(table["HEALPIX29"] == schema.NULL, schema.Flag.NO_POSITION, 0)
    table["REASON"] = reason
    catalogue = np.zeros(int(kept.sum()), schema.dtype(CATALOGUE))
    for name in catalogue.dtype.names or ():
        catalogue[name] = table[name][kept]
    return catalogue, table[~kept]


# ---------------------------------------------------------------- headers


def primary_header(provenance: Provenance) -> fits.Header:
    low, high = provenance.z_range
    header = fits.Header()
    header["PZSCHEMA"] = (schema.schema_version(), "version of the column definitions")
    header["PZCODE"] = (provenance.code_version, "version of mmae-survey")
    header["PZTRAIN"] = (_one_card(provenance.training_set), "training set")
    header["PZZMIN"] = (low, "lowest redshift of the training set")
    header["PZZMAX"] = (high, "highest redshift of the training set")
    header["PZMASK"] = (provenance.image_mask, "share of each image hidden from the model")
    header["PZSEED"] = (provenance.mc_seed, "seed of PHOTOZ_MC")
    header["PZDRAWS"] = (provenance.draws, "masks drawn for each image, averaged over")
    header["PZTAIL"] = (provenance.has_tail, "whether the model can raise ATYPICAL")
    if provenance.pdf_bins:
        header["PZPDF"] = (provenance.pdf_bins, "bins of the whole p(z), table PDF")
    for bit, band in enumerate(provenance.bands):
        header[f"PZBAND{bit}"] = (_one_card(band), f"band of the model, bit {bit} of BANDMASK")
    header["PZZEROPT"] = (provenance.zero_point, "AB mag of flux 1 for the model")
    header["PZINZERO"] = (provenance.input_zero_point, "AB mag of flux 1 in the input, brought to that")
    header["PZPIXEL"] = (provenance.pixel_scale, "[arcsec] pixel scale for the model")
    header["PZINPIX"] = (provenance.input_pixel_scale, "[arcsec] of the input, brought to that")
    header["PZMODEL"] = provenance.model_sha256
    header["PZINPUT"] = provenance.input_sha256
    header["COMMENT"] = "PZMODEL: sha256 of the model's program. PZINPUT: sha256 of the joined sha256 of"
    header["COMMENT"] = "the input's OBJECT_ID (int64), RA and DEC (float64), little-endian, in order."
    header["COMMENT"] = "PZINPIX to PZPIXEL, where RESAMPLED: flux is conserved, that up to the edges of the"
    header["COMMENT"] = "new pixels is interpolated by the quintic polynomial through the six nearest edges."
    return header


def _one_card(text: str) -> str:
    """Text as FITS can hold it in one card: printable ASCII, 40 characters."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:40]


def table_header(table: str, n: int) -> fits.Header:
    """Header of a table with `n` rows: formats, units, UCDs, comments, null values, meanings of codes."""
    columns = schema.columns(table)
    header = fits.BinTableHDU.from_columns(
        [
            fits.Column(c.name, c.fits_format, unit=c.unit, null=schema.NULL if c.nullable else None)
            for c in columns
        ],
        nrows=0,
        name=table,
    ).header
    header["NAXIS2"] = n
    for k, column in enumerate(columns, 1):
        header[f"TUCD{k}"] = column.ucd
        header[f"TCOMM{k}"] = column.comment
    if table == CATALOGUE:
        for flag, meaning in schema.FLAG_MEANINGS.items():
            bit = flag.value.bit_length() - 1
            header[f"PZFLAG{bit}"] = (flag.name, f"bit {bit}: {meaning}")
    else:
        for k, (reason, meaning) in enumerate(schema.REJECT_MEANINGS.items()):
            header[f"PZREJ{k}"] = (reason.value, meaning)
    return header


def pdf_edges(bins: int, z_max: float) -> np.ndarray:
    """Edges of bins equal in ln(1 + z) from 0 to z_max, (bins + 1,) float64."""
    return np.expm1(np.log1p(z_max) / bins * np.arange(bins + 1))


def pdf_dtype(bins: int) -> np.dtype:
    return np.dtype([(PDF, ">f4", (bins,))])


def pdf_tables(provenance: Provenance, n: int, blocks: Iterable[np.ndarray]) -> Iterator[fits_stream.Table]:
    """p(z) of `n` rows, blocks of pdf_dtype, and the table of its bins; nothing where none is kept."""
    bins = provenance.pdf_bins
    if not bins:
        return
    for table, rows, parts in ((PDF, n, blocks), (PDF_BINS, bins, [_bins(provenance)])):
        described = schema.columns(table)
        sizes = {PDF: f"{bins}E"}
        made = [fits.Column(c.name, sizes.get(c.name, c.fits_format)) for c in described]
        header = fits.BinTableHDU.from_columns(made, nrows=0, name=table).header
        header["NAXIS2"] = rows
        for k, column in enumerate(described, 1):
            header[f"TUCD{k}"] = column.ucd
            header[f"TCOMM{k}"] = column.comment
        yield header, parts


def _bins(provenance: Provenance) -> np.ndarray:
    edges = pdf_edges(provenance.pdf_bins, provenance.pdf_z_max)
    bins = np.zeros(len(edges) - 1, [(column.name, column.dtype) for column in schema.columns(PDF_BINS)])
    for column, values in zip(bins.dtype.names or (), (edges[:-1], edges[1:]), strict=True):
        bins[column] = values
    return bins


def tables(table: str, n: int, blocks: Iterable[np.ndarray]) -> Iterator[fits_stream.Table]:
    """A table with `n` rows, and the table of its quantile levels."""
    yield table_header(table, n), blocks
    levels = np.array(schema.QUANTILE_LEVELS).view([("LEVEL", np.float64)]).astype([("LEVEL", ">f8")])
    header = fits.BinTableHDU.from_columns([fits.Column("LEVEL", "D")], nrows=0, name=schema.LEVELS).header
    header["NAXIS2"] = len(levels)
    header["TCOMM1"] = "level of the quantile of p(z) in that place of PDF_QUANT"
    yield header, [levels]


# ---------------------------------------------------------------- parts


DAMAGED = "is damaged since it was written: the same command makes it again"


@dataclass(frozen=True)
class Part:
    """Files with the rows of one unit; `unit` counts from 0 in the plan."""

    directory: Place
    unit: int

    @property
    def catalogue(self) -> Place:
        return self.directory / f"unit-{self.unit:06d}.fits"

    @property
    def rejects(self) -> Place:
        return self.directory / f"unit-{self.unit:06d}.rejects.fits"

    @property
    def manifest(self) -> Place:
        return self.directory / f"unit-{self.unit:06d}.json"

    def write(
        self,
        plan_sha256: str,
        provenance: Provenance,
        catalogue: np.ndarray,
        rejects: np.ndarray,
        pdf: np.ndarray | None = None,
        colours: np.ndarray | None = None,
    ) -> dict:
        """Write both tables, then the manifest that marks them as finished; return the manifest.

        pdf : (rows of the catalogue, provenance.pdf_bins), where these are not 0
        colours : (rows of the catalogue, F) white photometry, of which the manifest keeps the sums
        """
        primary = primary_header(provenance)
        whole = [] if pdf is None else [np.ascontiguousarray(pdf, ">f4").view(np.uint8)]
        for path, table, part, more in (
            (self.catalogue, CATALOGUE, catalogue, pdf_tables(provenance, len(catalogue), whole)),
            (self.rejects, REJECTS, rejects, iter(())),
        ):
            with atomic.replacing(path) as temporary:
                written = itertools.chain(tables(table, len(part), [part]), more)
                fits_stream.write_tables(temporary, primary, written)
        reasons = Counter(rejects["REASON"].astype(str).tolist())
        manifest = {
            "plan": plan_sha256,
            "rows": len(catalogue),
            "rejects": len(rejects),
            "reasons": dict(sorted(reasons.items())),
            "colours": colour_sums(np.zeros((0, 0)) if colours is None else colours),
            "files": {path.name: atomic.entry(path) for path in (self.catalogue, self.rejects)},
        }
        atomic.write_json(self.manifest, atomic.sealed(manifest))
        return manifest

    def finished(self, plan_sha256: str) -> dict | None:
        """The manifest if this unit was finished for this plan and its files are intact; else None."""
        manifest = atomic.read_sealed(self.manifest)
        if manifest is None or manifest["plan"] != plan_sha256:
            return None
        files = manifest["files"]
        intact = all(atomic.matches(path, files[path.name]) for path in (self.catalogue, self.rejects))
        return manifest if intact else None

    def written(self, plan_sha256: str) -> dict[str, Any]:
        """Its manifest, unread files trusted; OSError where there is none for this plan."""
        manifest = atomic.read_sealed(self.manifest)
        if manifest is None or manifest["plan"] != plan_sha256:
            raise OSError(f"{self.manifest} {DAMAGED}")
        return manifest

    def read(self, table: str, plan_sha256: str, dtype: np.dtype | None = None) -> np.ndarray:
        """Rows of one of its tables, as a structured big-endian array.

        dtype : of a row; by default that of the columns of the table

        The very bytes that are read are checked against the manifest. Raises OSError where they are not those
        that were written.
        """
        path = self.rejects if table == REJECTS else self.catalogue
        expected = self.written(plan_sha256)["files"][path.name]["sha256"]
        content = b""
        with atomic.naming(path), contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise OSError(f"{path} {DAMAGED}")
        return np.frombuffer(content, dtype or schema.dtype(table), *fits_stream.find_table(content, table))


def merge(
    parts: Sequence[Part],
    plan_sha256: str,
    counts: tuple[int, int],
    provenance: Provenance,
    catalogue: Place,
    rejects: Place,
    colours: ColourDrift | None = None,
    check: Callable[[Part, np.ndarray], None] = lambda part, rows: None,
) -> None:
    """Join the parts, in the order of their units, into one catalogue and one table of rejects.

    The header says how far their mean colours are off. `counts` are the total numbers of rows and of rejects.
    check : called with each part and its rows of the catalogue as they pass; what it raises ends the merge

    The rejects come first, so that a catalogue that exists is complete. Raises OSError where a part is
    damaged; then there is no catalogue.
    """
    primary = primary_header(provenance)
    if colours and colours.known:
        primary[COLOUR_DRIFT] = (round(colours.distance, 4), "mean colours off, in units of their scatter")
        primary[COLOUR_CHANCE] = (round(colours.chance, 4), "that 1 % of good tiles exceed")
    row = pdf_dtype(provenance.pdf_bins)
    pdf = pdf_tables(provenance, counts[0], (part.read(PDF, plan_sha256, row) for part in parts))

    def checked() -> Iterator[np.ndarray]:
        for part in parts:
            rows = part.read(CATALOGUE, plan_sha256)
            check(part, rows)
            yield rows

    with atomic.replacing(rejects) as temporary:
        of_rejects = (part.read(REJECTS, plan_sha256) for part in parts)
        fits_stream.write_tables(temporary, primary, tables(REJECTS, counts[1], of_rejects))
    with atomic.replacing(catalogue) as temporary:
        of_catalogue = itertools.chain(tables(CATALOGUE, counts[0], checked()), pdf)
        fits_stream.write_tables(temporary, primary, of_catalogue)
