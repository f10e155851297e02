"""Finished catalogues (`TILE.photoz.fits`), checked when they are opened and read block by block.

Several are one catalogue where the same model made them: their headers agree in all but what is of a tile.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from catalogs import fits_stream, fits_strict
from catalogs.atomic import naming
from catalogs.errors import InputRefused, UsageError
from catalogs.products import photoz, schema
from catalogs.products.photoz import COLOUR_CHANCE, COLOUR_DRIFT, table_header
from catalogs.products.schema import CATALOGUE, LEVELS, PDF, PDF_BINS, REJECTS
from catalogs.regular_file import refuse_special
from catalogs.store.checks import refusing

BLOCK_ROWS = 1 << 18
"""Rows read at a time: some 60 MB."""
ENDING, REJECTS_ENDING = ".photoz.fits", ".rejects.fits"
OF_A_TILE = {"PZINPUT", "PZINZERO", "PZINPIX", "PZCODE", "PZPDF", COLOUR_DRIFT, COLOUR_CHANCE}
"""Cards in which tiles of one model may differ."""
AGAIN = "copy it again from where it is whole, or make it again with `mmae infer`"


class Rows(NamedTuple):
    """Where the rows of a table are in a file."""

    start: int
    """The byte at which they begin."""
    dtype: np.dtype
    data_sum: int


@dataclass(frozen=True)
class Finished:
    """A catalogue on disk whose header is in order; its rows are checked when they are read."""

    path: Path
    header: fits.Header
    """Of the file: provenance."""
    flags: dict[str, str]
    """`PZFLAGk` of the table: name and meaning of bit k of PHOTOZ_FLAGS."""
    n: int
    rows: Rows
    pdf: Rows | None
    """The whole p(z), a row for each of the others, where it was kept."""
    edges: np.ndarray
    """(K + 1,) redshifts, of the bins of the whole p(z); (0,) without it."""

    @property
    def provenance(self) -> dict[str, str | int | float | bool]:
        """The cards PZ... of the file, in order."""
        return {name: value for name, value in self.header.items() if name.startswith("PZ")}

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """The rows in order, (m,) of schema.dtype(CATALOGUE) each, at most `rows`, a multiple of 4.

        Raises InputRefused at the end where they are not those that were written, by the checksum in the
        header: what was made of them must not be kept.
        """
        return self._read(self.rows, rows)

    def pdf_blocks(self, rows: int) -> Iterator[np.ndarray]:
        """The whole p(z) of the same rows, (m, K) float32; raises as `blocks`."""
        assert self.pdf, self.path
        return (block[PDF].astype(np.float32) for block in self._read(self.pdf, rows))

    def _read(self, table: Rows, rows: int) -> Iterator[np.ndarray]:
        assert rows % 4 == 0, rows  # all blocks but the last are whole words of the checksum
        total = 0
        with naming(self.path), self.path.open("rb") as file:
            file.seek(table.start)
            for first in range(0, self.n, rows):
                block = np.fromfile(file, table.dtype, min(rows, self.n - first))
                if len(block) < min(rows, self.n - first):
                    raise InputRefused(f"{self.path} was cut short while it was read: {AGAIN}")
                data = block.tobytes()
                total = fits_stream.add_words(data + b"\0" * (-len(data) % 4), total)
                yield block
        if total != table.data_sum:
            raise InputRefused(f"{self.path} is damaged: its rows do not add up to DATASUM; {AGAIN}")


def open_finished(path: Path) -> Finished:
    """Open a catalogue of `mmae infer`.

    Raises UsageError where there is no file, InputRefused where it is not a whole catalogue of this version
    of the column definitions.
    """
    refuse_special(path)
    if path.is_dir():
        unfinished = f"{path} keeps a catalogue that is not finished: the same `mmae infer` goes on with it"
        folder = f"{path} is a folder: name the catalogues in it, as '{path}'/*.photoz.fits"
        raise UsageError(unfinished if path.suffix == ".photoz" else folder)
    if not path.exists():
        raise UsageError(f"{path} does not exist: name a catalogue of `mmae infer`, TILE.photoz.fits")
    with path.open("rb") as file, naming(path):
        if file.read(6) != b"SIMPLE":
            raise InputRefused(f"{path} is not a FITS file: unpack it, or name a catalogue of `mmae infer`")
    with (
        refusing(f"{path} is no whole FITS file", AGAIN),
        warnings.catch_warnings(action="ignore"),  # of a file that is cut short, which is refused below
        fits.open(path, memmap=False) as hdus,
    ):
        primary, names = hdus[0].header.copy(), [hdu.name for hdu in hdus[1:]]
        table = hdus[1] if len(hdus) > 1 else hdus[0]
        header, start = table.header.copy(), table.fileinfo()["datLoc"]
        pdf, edges = _whole_pdf(hdus) if names[-2:] == [PDF, PDF_BINS] else (None, np.zeros(0))
    _check_kind(path, primary, header)
    n = header["NAXIS2"]
    if (whole := (path.stat().st_size - start) // header["NAXIS1"]) < n:
        raise InputRefused(f"{path} ends after {max(0, whole)} of its {n} rows: {AGAIN}")
    expected = [CATALOGUE, LEVELS, *([PDF, PDF_BINS] if "PZPDF" in primary else [])]
    if names != expected:
        raise InputRefused(f"{path} has tables {', '.join(names)}, not {', '.join(expected)}: {AGAIN}")
    flags = {name: f"{header[name]}: {header.comments[name]}" for name in header if name.startswith("PZFLAG")}
    rows = Rows(start, schema.dtype(CATALOGUE), _data_sum(path, header))
    return Finished(path, primary, flags, n, rows, pdf, edges)


def _whole_pdf(hdus: fits.HDUList) -> tuple[Rows, np.ndarray]:
    """Where the rows of the whole p(z) are, and the edges of its bins."""
    bins, header = hdus[PDF_BINS].data, hdus[PDF].header
    dtype = photoz.pdf_dtype(len(bins))
    rows = Rows(hdus[PDF].fileinfo()["datLoc"], dtype, int(header["DATASUM"]))
    return rows, np.append(bins["Z_MIN"], bins["Z_MAX"][-1:])


def _data_sum(path: Path, header: fits.Header) -> int:
    """The checksum of the rows of a table."""
    if "DATASUM" not in header:
        raise InputRefused(f"{path} has no DATASUM, by which its rows are checked: {AGAIN}")
    return int(header["DATASUM"])


def _check_kind(path: Path, primary: fits.Header, header: fits.Header) -> None:
    name = header.get("EXTNAME")
    if name == REJECTS:
        raise InputRefused(f"{path} is a table of rejects, which have no redshift: name TILE.photoz.fits")
    if name != CATALOGUE or "PZSCHEMA" not in primary:
        raise InputRefused(f"{path} is no catalogue of `mmae infer`: it has no table {CATALOGUE}")
    expected, version = table_header(CATALOGUE, 0), schema.schema_version()
    keys = ["NAXIS1", "TFIELDS"]
    keys += [f"{key}{k}" for k in range(1, expected["TFIELDS"] + 1) for key in ("TTYPE", "TFORM")]
    major = str(primary["PZSCHEMA"]).partition(".")[0]
    if major != version.partition(".")[0] or any(header.get(key) != expected[key] for key in keys):
        raise InputRefused(
            f"{path} has the columns of version {primary['PZSCHEMA']}, and this mmae those of {version}: "
            f"infer again, or use the mmae that wrote it, {primary.get('PZCODE')}"
        )


def open_all(paths: Sequence[Path]) -> list[Finished]:
    """Open catalogues that are to be one.

    Raises as `open_finished`; UsageError where one is named twice, or a copy of another, InputRefused where
    two are of different models, or none has a row.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in seen:
            raise UsageError(f"{path} is named twice: name each catalogue once")
        seen[path.resolve()] = path
    tiles = [open_finished(path) for path in paths]
    same: dict[tuple[object, ...], Path] = {}
    for tile in tiles:  # a sum of 32 bits alone may be that of two among thousands of tiles
        contents = tile.n, tile.rows.data_sum, tile.provenance.get("PZINPUT")
        other = same.setdefault(contents, tile.path)
        if tile.n and other is not tile.path:
            raise UsageError(f"{tile.path} has the same rows as {other}: name one of them")
    first = tiles[0]
    for tile in tiles[1:]:
        cards = [one.provenance for one in (first, tile)]
        for name in sorted(cards[0].keys() | cards[1].keys()):
            if name not in OF_A_TILE and cards[0].get(name) != cards[1].get(name):
                raise InputRefused(
                    f"{tile.path} and {first.path} are not of one run of one model ({name} is "
                    f"{cards[1].get(name)} and {cards[0].get(name)}): make a catalogue of each"
                )
    if not any(tile.n for tile in tiles):
        raise InputRefused(f"there is no object in {tiles[0].path}{' and the others' if tiles[1:] else ''}")
    return tiles


def blocks_in(tiles: Sequence[Finished]) -> int:
    """Number of blocks that the rows of all are read in."""
    return sum(math.ceil(tile.n / BLOCK_ROWS) for tile in tiles)


def native(block: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Some of the columns of rows (m,), in the byte order of this machine."""
    kinds = [(name, block.dtype[name].base.newbyteorder("="), block.dtype[name].shape) for name in names]
    few = np.empty(len(block), kinds)
    for name in names:
        few[name] = block[name]
    return few


def rejects_beside(path: Path) -> Iterator[np.ndarray]:
    """Rows of the table of rejects that was written with a catalogue, (m,); none where it is not there.

    Raises InputRefused where it is damaged.
    """
    beside = path.with_name(path.name.removesuffix(ENDING) + REJECTS_ENDING)
    if not beside.is_file():
        return
    with fits_strict.opened(beside, (REJECTS,)) as hdus:
        if not hdus:
            raise InputRefused(f"{beside} has no table {REJECTS}: {AGAIN}")
        data = hdus[0].data
        for first in range(0, len(data), BLOCK_ROWS):
            yield np.array(data[first : first + BLOCK_ROWS])


def reasons_of(rejects: np.ndarray) -> list[str]:
    """The reason of each row of rejects."""
    return [str(reason) for reason in np.char.strip(rejects["REASON"].astype(str)).tolist()]
