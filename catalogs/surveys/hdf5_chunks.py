"""HDF5 chunks, measured before HDF5 decodes them: its deflate filter grows its buffer without a bound."""

import math

import h5py

from catalogs.store.checks import MAX_CHUNK_BYTES
from catalogs.store.compression import check_decoded_size

REFERENCE = 16
"""Bytes in a chunk of a text of any length, which stands elsewhere in the file."""


def check_chunks(dataset: h5py.Dataset, start: int, stop: int) -> None:
    """Raise ValueError where a chunk with rows start:stop decodes to more than its shape holds.

    Or where that is over MAX_CHUNK_BYTES.
    """
    if dataset.chunks is None:
        return
    item = REFERENCE if dataset.dtype.kind == "O" else dataset.dtype.itemsize
    size = math.prod(dataset.chunks) * item
    if size > MAX_CHUNK_BYTES:
        raise ValueError(f"{dataset.name} has chunks of {size / 2**30:.1f} GiB, over 1; see h5repack")
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    if h5py.h5z.FILTER_DEFLATE not in filters or start >= stop:
        return
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise ValueError(f"{dataset.name} is compressed twice")
    skipped = 1 << filters.index(h5py.h5z.FILTER_DEFLATE)
    for region in dataset.iter_chunks((slice(start, stop), *map(slice, dataset.shape[1:]))):
        corner = tuple(
            part.start - part.start % width for part, width in zip(region, dataset.chunks, strict=True)
        )
        if dataset.id.get_chunk_info_by_coord(corner).size:  # else it was never written
            mask, data = dataset.id.read_direct_chunk(corner)
            if not mask & skipped:
                check_decoded_size("zlib", data, size)
