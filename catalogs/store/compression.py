"""What a compressed chunk decodes to, told before the memory for it is taken.

Three megabytes of zeros, well compressed, become gigabytes; the codecs themselves set no bound.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from numcodecs import zstd

COMPRESSORS = {"gzip", "zstd", "blosc", "zlib", "lz4", "bz2", "lzma"}
ZSTD_MAGIC = bytes.fromhex("28b52ffd")
STREAMS: dict[str, Callable[[io.BytesIO], Any]] = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}


def check_decoded_size(codec: str, data: bytes, most: int) -> None:
    """Raise ValueError where `data`, compressed by one of COMPRESSORS, decodes to more than `most` bytes.

    At most that many bytes are decoded to find out. Malformed bytes raise what the codec raises.
    """
    match codec:
        case "blosc":  # versions, flags, type size; then decoded, block and stored sizes
            if int.from_bytes(data[12:16], "little") != len(data) or len(data) < 16:
                raise ValueError("the Blosc chunk is not as long as its header says")
            size = int.from_bytes(data[4:8], "little")
        case "lz4":
            size = int.from_bytes(data[:4], "little")
        case "zstd":
            size = _zstd_size(data, most)
        case "zlib":
            size = len(zlib.decompressobj().decompress(data, most + 1))
        case _:
            with STREAMS[codec](io.BytesIO(data)) as stream:
                size = len(stream.read(most + 1))
    if size > most:
        raise ValueError(f"the chunk decodes to more than its {most:,} bytes")


def _zstd_size(data: bytes, most: int) -> int:
    """Decoded size in the header of the frame (RFC 8878, section 3.1.1.1); a frame without is decoded."""
    if data[:4] != ZSTD_MAGIC or len(data) < 5:
        raise ValueError("the chunk is no Zstandard frame")
    single_segment, width = data[4] >> 5 & 1, (0, 2, 4, 8)[data[4] >> 6]
    if not (width or single_segment):
        return len(zstd.decompress(data, bytearray(most)))  # an error where it does not fit exactly
    start = 5 + (not single_segment) + (0, 1, 2, 4)[data[4] & 3]
    size = int.from_bytes(data[start : start + (width or 1)], "little")
    return size + 256 if width == 2 else size
