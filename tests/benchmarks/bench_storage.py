"""What a stored pixel costs and what it loses: types, codecs, chunks and shards of the cutout store.

    python tests/benchmarks/bench_storage.py [--objects 4096] [--rounds 3]

Prints the tables and writes results/storage.md. Every round runs all cases in turn, so that a slow minute of
the machine hits them alike; a rate is the median of the rounds. Files are in the page cache, without fsync.
"""

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from catalogs.bands import HSC
from catalogs.store.format import FILL_VALUES, SIZE

ROOT = Path(__file__).parents[2]
SKY = np.array([0.037, 0.057, 0.077, 0.156, 0.287], np.float32)
"""Noise per pixel of HSC Wide in g r i z y at zero point 27."""
HALF_MAX = float(np.finfo(np.float16).max)
BATCH = 1024
"""Rows read at a time when streaming."""

CODECS = {
    "none": [],
    "zstd 3": [ZstdCodec(level=3)],
    "lz4, shuffle": [BloscCodec(cname="lz4", shuffle="shuffle")],
    "lz4, bitshuffle": [BloscCodec(cname="lz4", shuffle="bitshuffle")],
    "blosc zstd, shuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
    "blosc zstd, bitshuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
}


def round_mantissa(values: np.ndarray, keep: int) -> np.ndarray:
    """Keep `keep` of the 23 bits of mantissa of float32, to nearest, ties to even; the others become 0."""
    drop = 23 - keep
    bits = values.view(np.uint32)
    bits = bits + np.uint32(2 ** (drop - 1) - 1) + (bits >> drop & 1)
    return (bits & np.uint32(2**32 - 2**drop)).view(np.float32)


TYPES = {
    "float32": lambda image: image,
    "float32, 10 bits": lambda image: round_mantissa(image, 10),
    "float32, 7 bits": lambda image: round_mantissa(image, 7),
    "float16": lambda image: image.astype(np.float16),
}


class Case(NamedTuple):
    kind: str
    codec: str
    chunk: int
    shard: int


CASES = [Case(kind, codec, 64, 4096) for kind, codec in itertools.product(TYPES, CODECS)]
CASES += [
    Case(kind, "none", chunk, shard)
    for kind, chunk, shard in itertools.product(("float32", "float16"), (1, 64, 256), (1024, 4096))
    if (chunk, shard) != (64, 4096)
]


def pixels(n: int) -> tuple[np.ndarray, str]:
    """(n, 5, 64, 64) float32 with the noise of HSC Wide, and what they are."""
    rng = np.random.default_rng(0)
    file = (
        Path(os.environ.get("MMAE_SHARED_DATA", ROOT.parent / "shared" / "data")) / "hsc_stamps64_grizy.npz"
    )
    if not file.exists():
        noise = rng.standard_normal((n, len(HSC), SIZE, SIZE), np.float32)
        return noise * SKY[:, None, None], "noise alone, as that of HSC Wide"
    stamps = np.load(file)
    lacking = np.sqrt(np.clip(SKY**2 - stamps["sky_sigma"] ** 2, 0, None)).astype(np.float32)
    rows = np.arange(n) % len(lacking)
    noise = rng.standard_normal((n, len(HSC), SIZE, SIZE), np.float32)
    image = stamps["images"][rows] + noise * lacking[rows, :, None, None]
    return (
        image,
        f"{len(lacking)} real HSC cutouts over and over, each with fresh noise up to that of HSC Wide",
    )


def measure(case: Case, image: np.ndarray, folder: Path) -> dict[str, float]:
    """Write, stream, and pick single rows."""
    path = folder / "a.zarr"
    dtype = TYPES[case.kind](image[:1]).dtype
    array = zarr.create_array(
        path,
        shape=image.shape,
        chunks=(case.chunk, *image.shape[1:]),
        shards=(case.shard, *image.shape[1:]),
        dtype=dtype,
        fill_value=FILL_VALUES.get(str(dtype), -HALF_MAX),
        compressors=[*CODECS[case.codec], Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    n = len(image)
    started = time.perf_counter()
    for start in range(0, n, case.shard):
        array[start : start + case.shard] = TYPES[case.kind](image[start : start + case.shard])
    written = time.perf_counter()
    for start in range(0, n, BATCH):
        np.asarray(array[start : start + BATCH]).astype(np.float32, copy=False)
    streamed = time.perf_counter()
    picked = np.random.default_rng(1).integers(0, n, 100)
    for row in picked.tolist():
        np.asarray(array[row : row + 1])
    done = time.perf_counter()
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return {
        "bytes": stored / n,
        "write": n / (written - started),
        "stream": n / (streamed - written),
        "pick": len(picked) / (done - streamed),
    }


def rates(image: np.ndarray, rounds: int) -> list[str]:
    """Table of all cases."""
    runs: dict[Case, list[dict[str, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for turn, case in itertools.product(range(rounds), CASES):
            runs[case].append(measure(case, image, Path(folder)))
            print(f"round {turn + 1}/{rounds}: {case}", file=sys.stderr)
    lines = [
        "| type | codec | chunk | shard | bytes an object | written/s | streamed/s | single rows/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, measured in runs.items():
        middle = {name: statistics.median(run[name] for run in measured) for name in measured[0]}
        numbers = (f"{middle[name]:,.0f}" for name in ("bytes", "write", "stream", "pick"))
        lines.append(f"| {' | '.join(map(str, case))} | {' | '.join(numbers)} |")
    return lines


def errors(image: np.ndarray) -> list[str]:
    """What a type loses: stored minus true flux, in units of the sky noise of the band."""
    lines = ["| type | rms error / sky noise | greatest | greatest error / flux |", "|---|---|---|---|"]
    for kind, store in TYPES.items():
        error = np.abs(store(image).astype(np.float32) - image)
        relative = error / SKY[:, None, None]
        bright = np.abs(image) > 10 * SKY[:, None, None]
        share = (error[bright] / np.abs(image[bright])).max(initial=0)
        rms = np.sqrt((relative.astype(np.float64) ** 2).mean())
        lines.append(f"| {kind} | {rms:.2g} | {relative.max():.2g} | {share:.2g} |")
    return lines


def overflow(image: np.ndarray) -> list[str]:
    """Pixels that float16 turns into infinity, at the zero point of HSC and in nJy as Rubin has it."""
    lines = ["| pixels | brightest | beyond 65504 | magnitude of a pixel of 65504 |", "|---|---|---|---|"]
    star = 0.05 * 10 ** (0.4 * (27 - 16.0))
    for name, zero_point in (("at zero point 27", 27.0), ("at zero point 31.4 (nJy)", 31.4)):
        scale = 10 ** (0.4 * (zero_point - 27))
        limit = zero_point - 2.5 * np.log10(HALF_MAX)
        for what, flux in (
            ("these cutouts", image),
            ("a star of 16 mag, 5 % in its pixel", np.array([star])),
        ):
            scaled = flux * scale
            beyond = int((np.abs(scaled) > HALF_MAX).sum())
            lines.append(f"| {what}, {name} | {np.abs(scaled).max():,.0f} | {beyond} | {limit:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    image, what = pixels(options.objects)
    body = [
        f"zarr {zarr.__version__}, numpy {np.__version__}. {options.objects} objects of 5 x 64 x 64 pixels: "
        f"{what}. Rates are medians of {options.rounds} rounds, in objects a second, warm, one process; "
        "every chunk ends in a crc32c.",
        "",
        *rates(image, options.rounds),
        "",
        *errors(image),
        "",
        *overflow(image),
    ]
    command = f"bench_storage.py --objects {options.objects} --rounds {options.rounds}"
    report.write("storage", "Storage", command, body)


if __name__ == "__main__":
    main()
