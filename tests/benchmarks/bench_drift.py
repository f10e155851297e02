"""How often a tile of another kind is told by OOD_SCORE and by its mean colours, and a good one by mistake.

python tests/benchmarks/bench_drift.py FOLDER [--galaxies 12000] [--tile 30000] [--seeds 2] [--small]

FOLDER keeps mock surveys of HSC and Rubin, and the runs. Tiles are drawn, 200 of each size and kind, from one
of HSC's mock that no model was made with, whose images are changed; those of the largest size share objects.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
import studies
import torch
from studies import opened

from catalogs.mock.cameras import HSC
from catalogs.mock.image import bright_star, seeing
from catalogs.mock.survey import Mock
from catalogs.mock.survey import main as mock
from catalogs.products.drift import ColourDrift, Drift, colour_sums
from catalogs.store.cutouts import open_store
from catalogs.store.format import NO_METADATA, ImageMetadata
from mmae.bundles.bundle import Bundle
from mmae.bundles.program import estimates

SIZES, TILES, BLOCK = (500, 2000, 10_000), 200, 1024
FAINTER, STARS_SHARE, BAND, OFF = 2.0, 0.3, 2, 0.05
AS_HSC = ("lsst_u", "hsc_g", "hsc_r", "hsc_i", "hsc_z", "hsc_y")
"""Without it Rubin's tile is refused: the model does not know its bands."""
NAMES = {
    "like the training set": "none",
    "noise doubled": "noise",
    "zero point of i off by 0.05 mag": "zero point",
    "two magnitudes fainter": "faint",
    "3 of 10 are stars": "stars",
    "of Rubin's mock, its bands said to be HSC's": "other",
}


class Found(NamedTuple):
    """What a bundle says of the objects of a tile."""

    score: np.ndarray
    """(N,) OOD_SCORE"""
    colours: np.ndarray
    """(N, F)"""


def changed(image: np.ndarray, fault: str, rng: np.random.Generator) -> np.ndarray:
    """Images (N, bands, 64, 64) with a fault."""
    image, sky = image.copy(), np.array(HSC.sky_sigma, np.float32)[:, None, None]
    noise = sky * rng.standard_normal(image.shape, np.float32)
    match fault:
        case "noise":
            image += np.sqrt(3) * noise
        case "zero point":
            image[:, BAND] *= 10 ** (0.4 * OFF)
        case "faint":
            factor = 10 ** (-0.4 * FAINTER)
            image = image * factor + np.sqrt(1 - factor**2) * noise
        case "stars":
            for one in np.flatnonzero(rng.random(len(image)) < STARS_SHARE):
                psf, _ = seeing(rng, HSC)
                star = bright_star(rng, HSC, psf) * 10 ** (-0.4 * rng.uniform(3, 5))
                peak = np.unravel_index(star[BAND].argmax(), star[BAND].shape)
                image[one] = np.roll(star, (32 - peak[0], 32 - peak[1]), (1, 2)) + noise[one]
    return image.astype(np.float32)


def tile_of(folder: Path, survey: str, objects: int) -> Path:
    """A tile of a mock survey, drawn once."""
    store = folder / f"{survey} tile" / "rubin_tile.zarr"
    if not store.exists():
        mock(Mock(store.parent, survey=survey, galaxies=8, tile=objects, seed=9))
    return store


def found(bundle: Bundle, store: Path, fault: str) -> Found:
    """What is said of all objects of a tile that can be used, with a fault."""
    said = ImageMetadata(AS_HSC) if fault == "other" else NO_METADATA
    tile, rng, parts = open_store(store, said), np.random.default_rng(0), []
    program = bundle.load(torch.device("cpu"))
    for start in range(0, tile.n, BLOCK):
        read = bundle.input.read(tile, start, min(tile.n, start + BLOCK))
        usable = read.reason == ""
        image = changed(read.image[usable], fault, rng)
        told = torch.full((len(image), read.conditions.shape[1]), torch.nan)
        estimate = estimates(program, torch.from_numpy(image), told)
        parts.append((estimate.typical.numpy(), estimate.colours.numpy()))
    return Found(*map(np.concatenate, zip(*parts, strict=True)))


def alarms(said: Found, size: int, reference: int, rng: np.random.Generator) -> list[float]:
    """Shares of tiles of so many of the objects that are told by scores, by colours, by either."""
    told = []
    for _ in range(TILES):
        rows = rng.choice(len(said.score), size, replace=False)
        drift, colours = Drift(), ColourDrift(reference)
        drift.add(said.score[rows])
        colours.add(**colour_sums(said.colours[rows]))
        told.append([bool(drift.sentence), bool(colours.sentence)])
    return [*np.mean(told, 0).tolist(), float(np.mean(np.any(told, 1)))]


def rows(stores: dict[str, Path], runs: list[Path]) -> Iterator[str]:
    header = [
        "tile",
        *(f"told by {by}, {size:,}" for size in SIZES for by in ("scores", "colours", "either")),
    ]
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for name, fault in NAMES.items():
        told = []
        for run in runs:
            bundle, rng = opened(run), np.random.default_rng(0)
            said = found(bundle, stores[fault if fault == "other" else "own"], fault)
            reference = bundle.card["calibration"]["colours"]
            told.append([alarms(said, min(size, len(said.score)), reference, rng) for size in SIZES])
        cells = [f"{100 * share:.0f} %" for share in np.mean(told, 0).flatten()]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    options = studies.parser(__doc__, 12_000)
    options.add_argument("--tile", type=int, default=30_000)
    arguments = options.parse_args()
    _, runs = studies.with_seeds("all", arguments)
    stores = {
        "own": tile_of(arguments.folder, "hsc", arguments.tile),
        "other": tile_of(arguments.folder, "rubin", arguments.tile // 2),
    }
    command = " ".join(["bench_drift.py", "FOLDER", *sys.argv[2:]])
    report.write("drift", "Tiles that are not like the training set", command, rows(stores, runs))


if __name__ == "__main__":
    main()
