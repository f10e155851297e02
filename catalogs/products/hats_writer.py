"""Catalogues as one HATS catalogue on disk, in memory of a few partitions.

Rows are dealt out to a file for each partition as they are read, and each file is then sorted and written as
Parquet. What HATS has beside the rows is written by its own library: hats, and hats-import for margins.
"""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import hats_import.margin_cache.margin_cache as margin_cache
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dask.distributed import Client
from hats.catalog import PartitionInfo, TableProperties
from hats.io import file_io, parquet_metadata, paths, skymap
from hats.pixel_math import HealpixPixel
from hats_import.margin_cache.margin_cache_arguments import MarginCacheArguments
from rich.progress import Progress

from catalogs.cpus import cpus
from catalogs.products import hats_rows, schema
from catalogs.products.coverage import ROW_ORDER
from catalogs.products.finished import Finished, blocks_in
from catalogs.products.partitions import Counts, Partitions, partitions
from catalogs.products.schema import CATALOGUE

ROW_GROUP = 100_000
"""Rows of a partition that are turned into Arrow at a time, and that a reader can skip."""
COMPRESSION: dict[str, object] = {"compression_level": 3}
"""Of zstd; that of hats, 15, takes 13 times as long for files that are 3 % smaller."""
MAP_ORDER = 8
"""Order of the map of counts, cells of 14 arcmin."""
BUILDER = "mmae-survey"


def divide(tiles: Sequence[Finished], limit: int, progress: Progress) -> tuple[Partitions, Counts]:
    """Partitions of at most `limit` rows for the rows of all tiles that have a position, and their counts."""

    def read() -> Iterator[np.ndarray]:
        task = progress.add_task("counting", total=blocks_in(tiles))
        for tile in tiles:
            for block in tile.blocks():
                yield block["HEALPIX29"].astype(np.int64)
                progress.advance(task)

    return partitions(read, limit)


def deal(tiles: Sequence[Finished], found: Partitions, folder: Path, progress: Progress) -> None:
    """Append each row to the file of its partition in a folder: as many bytes as the tiles have."""
    task = progress.add_task("sorting", total=blocks_in(tiles))
    for tile in tiles:
        for block in tile.blocks():
            rows = block[block["HEALPIX29"] >= 0]
            place = found.of(rows["HEALPIX29"].astype(np.int64))
            rows = rows[np.argsort(place, kind="stable")]
            numbers, first = np.unique(np.sort(place), return_index=True)
            for number, part in zip(numbers.tolist(), np.split(rows, first[1:]), strict=False):
                with _dealt(folder, number).open("ab") as file:
                    file.write(part.tobytes())
            progress.advance(task)


def _dealt(folder: Path, number: int) -> Path:
    return folder / f"{number}.rows"


def write_partitions(
    folder: Path, found: Partitions, catalogue: Path, described: pa.Schema, progress: Progress
) -> None:
    """Write the Parquet file of each partition, and remove its rows from the folder they were dealt to."""
    task = progress.add_task("writing", total=len(found.order))
    with ThreadPoolExecutor(cpus()) as pool:  # Arrow and numpy compute outside Python's lock
        jobs = [
            pool.submit(_write_partition, _dealt(folder, number), catalogue, pixel, described)
            for number, pixel in enumerate(_pixels(found))
        ]
        try:
            for job in as_completed(jobs):
                job.result()
                progress.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _pixels(found: Partitions) -> list[HealpixPixel]:
    return [HealpixPixel(*cell) for cell in zip(found.order.tolist(), found.pixel.tolist(), strict=True)]


def _write_partition(dealt: Path, catalogue: Path, pixel: HealpixPixel, described: pa.Schema) -> None:
    rows = np.fromfile(dealt, schema.dtype(CATALOGUE))
    order = np.argsort(rows["HEALPIX29"].astype(np.int64), kind="stable")
    path = paths.new_pixel_catalog_file(catalogue, pixel).path
    options = file_io.get_parquet_write_table_kwargs(described, write_table_kwargs=COMPRESSION)
    options.pop("row_group_size", None)  # the rows of each table that is written
    with pq.ParquetWriter(path, described, **options) as writer:
        for first in range(0, len(rows), ROW_GROUP):
            writer.write_table(hats_rows.table(rows[order[first : first + ROW_GROUP]], described))
    dealt.unlink()


def write_metadata(
    catalogue: Path, found: Partitions, counts: Counts, flags: dict[str, str], properties: dict[str, Any]
) -> None:
    """Write what stands beside the rows: metadata of Parquet, partitions, map of counts, properties."""
    info = PartitionInfo.from_healpix(_pixels(found))
    info.write_to_file(paths.get_partition_info_pointer(catalogue))
    rows = parquet_metadata.write_parquet_metadata(catalogue)
    assert rows == found.rows.sum(), (rows, found.rows.sum())
    parquet_metadata.write_voparquet_in_common_metadata(
        catalogue,
        field_units=hats_rows.units(),
        field_ucds=hats_rows.ucds(),
        field_descriptions=hats_rows.descriptions(flags),
    )
    coarse = counts.at(MAP_ORDER)
    histogram = np.zeros(12 << 2 * MAP_ORDER, np.int64)
    histogram[coarse.cells] = coarse.rows
    skymap.write_skymap(histogram, catalogue)
    said: dict[str, Any] = {
        "obs_collection": catalogue.name,
        "dataproduct_type": "object",
        "hats_nrows": rows,
        "hats_col_ra": "RA",
        "hats_col_dec": "DEC",
        "hats_col_healpix": hats_rows.INDEX,
        "hats_col_healpix_order": ROW_ORDER,
        "hats_cols_sort": hats_rows.INDEX,
        "hats_cols_survey_id": "OBJECT_ID",
        "hats_skymap_order": MAP_ORDER,
        "hats_order": info.get_highest_order(),
        "moc_sky_fraction": f"{info.calculate_fractional_coverage():.8f}",
    }
    said |= TableProperties.new_provenance_dict(catalogue, builder=BUILDER, **properties)
    TableProperties(**said).to_properties_file(catalogue)


def write_margin(catalogue: Path, margin: Path, arcsec: float) -> None:
    """Write the rows of other partitions that are within some arcsec of each; hats-import finds them."""
    arguments = MarginCacheArguments(
        input_catalog_path=catalogue,
        output_path=margin.parent,
        output_artifact_name=margin.name,
        margin_threshold=arcsec,
        progress_bar=False,
    )
    with (
        Client(processes=False, n_workers=1, threads_per_worker=cpus(), dashboard_address=None) as client,
        warnings.catch_warnings(action="ignore"),  # that it looks for partitions, which it has just written
    ):
        margin_cache.generate_margin_cache(arguments, client)
    properties = TableProperties.read_from_dir(margin)
    # it was made in a temporary folder, and is to be found wherever the whole is copied to
    properties.copy_and_update(primary_catalog=catalogue.name).to_properties_file(margin)
