"""How often a tile of another kind is told by the distribution of OOD_SCORE, and a good one by mistake.

python tests/benchmarks/bench_drift.py FOLDER [--galaxies 12000] [--epochs 3] [--seeds 2] [--small]

FOLDER keeps a mock survey of HSC and the runs. Tiles are drawn from the test split, whose images are changed:
200 tiles of each size and kind.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from studies import held_out, opened

from catalogs.mock.cameras import HSC
from catalogs.mock.image import bright_star, seeing
from catalogs.products.drift import Drift
from mmae.bundles.program import estimates

SIZES, TILES = (300, 500, 1000), 200
FAINTER, STARS_SHARE, BAND, OFF = 2.0, 0.3, 2, 0.05
NAMES = {
    "like the training set": "none",
    "noise doubled": "noise",
    "zero point of i off by 0.05 mag": "zero point",
    "two magnitudes fainter": "faint",
    "3 of 10 are stars": "stars",
}


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


def alarms(score: np.ndarray, size: int, rng: np.random.Generator) -> tuple[float, float]:
    """Share of tiles of so many of the objects that are told, and their median distance."""
    found = []
    for _ in range(TILES):
        drift = Drift()
        drift.add(rng.choice(score, size, replace=False))
        found.append((bool(drift.sentence), drift.distance))
    told, distance = zip(*found, strict=True)
    return float(np.mean(told)), float(np.median(distance))


def rows(store: Path, runs: list[Path]) -> Iterator[str]:
    header = ["tile", *(f"told, {size} objects" for size in SIZES), f"distance, {SIZES[-1]}"]
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for name, fault in NAMES.items():
        told = []
        for run in runs:
            bundle, rng = opened(run), np.random.default_rng(0)
            batch = held_out(bundle, store)
            image = torch.from_numpy(changed(batch.image.numpy(), fault, rng))
            program = bundle.load(torch.device("cpu"))
            score = estimates(program, image, torch.full_like(batch.conditions, torch.nan)).typical.numpy()
            told.append([alarms(score, size, rng) for size in SIZES])
        mean = np.mean(told, 0)
        cells = [f"{100 * share:.0f} %" for share in mean[:, 0]]
        yield f"| {name} | {' | '.join(cells)} | {mean[-1, 1]:.2f} |"


def main() -> None:
    arguments = studies.parser(__doc__, 12_000).parse_args()
    store, runs = studies.with_seeds("trails", arguments)
    command = " ".join(["bench_drift.py", "FOLDER", *sys.argv[2:]])
    body = rows(store, runs)
    report.write("drift", "Tiles that are not like the training set", command, body)


if __name__ == "__main__":
    main()
