"""What bleed trails and bright stars do to redshifts, taken for light or left out.

python tests/benchmarks/bench_artefacts.py FOLDER [--galaxies 12000] [--epochs 3] [--seeds 2] [--small]

FOLDER keeps a mock survey of HSC and the runs. A trail is planted in every galaxy of the test split, as the
mock plants them, in one band; and a bright star, 12 to 26 pixels from the middle. Beside models that leave
out the light of other sources are those that do not. With MMAE_SHARED_DATA, a folder with real HSC images,
these are searched for trails, too.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from studies import held_out, measured, opened

from catalogs.mock.cameras import HSC
from catalogs.mock.image import Artefact, add_artefact, bright_star, seeing
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_images

HEADER = ["images", *studies.SCORES[:5], "flagged"]
FAINTER, DISTANCES = (2, 5), (12, 26)
"""Magnitudes that a star is fainter than the brightest, and pixels that it is from the middle."""
STAMPS, FIELD, STEP = "hsc_stamps64_grizy.npz", "hsc_field_grizy_191x191.npz", 3


def planted(image: np.ndarray) -> np.ndarray:
    """Images (N, bands, 64, 64), each with a trail in one band."""
    rng = np.random.default_rng(0)
    with_trail = image.copy()
    for one in with_trail:
        add_artefact(rng, HSC, one, Artefact.BLEED_TRAIL)
    return with_trail


def beside_stars(image: np.ndarray) -> np.ndarray:
    """Images (N, bands, 64, 64), each with a bright star near the middle."""
    rng, starry = np.random.default_rng(3), image.copy()
    for one in starry:
        psf, _ = seeing(rng, HSC)
        star = bright_star(rng, HSC, psf) * 10 ** (-0.4 * rng.uniform(*FAINTER))
        peak = np.unravel_index(star[2].argmax(), star[2].shape)
        distance, angle = rng.uniform(*DISTANCES), rng.uniform(0, 2 * np.pi)
        place = 32 + distance * np.array([np.sin(angle), np.cos(angle)])
        one += np.roll(star, tuple((place.astype(int) - peak).tolist()), (1, 2))
    return starry


def screened(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Images as a model takes them, and the share of them with the flag."""
    found = screen_images(image.copy(), np.zeros(len(image), bool))
    return found.image, float(np.mean(found.flags & Flag.BLEED_TRAIL.value > 0))


def rows(store: Path, runs: list[Path], of_all_light: list[Path]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    image = held_out(opened(runs[0]), store).image.numpy()
    trails = planted(image)
    left_out, flagged = screened(trails)
    clean, wrongly = screened(image)
    starry = beside_stars(clean)
    ways = {
        "as they are": (clean, wrongly, runs),
        "with a trail, taken for light": (trails, 0.0, runs),
        "with a trail, found and left out": (left_out, flagged, runs),
        "beside a star": (starry, 0.0, runs),
        "as they are, all light": (clean, wrongly, of_all_light),
        "beside a star, all light": (starry, 0.0, of_all_light),
    }
    for name, (images, share, of_seeds) in ways.items():
        scores = []
        for run in of_seeds:
            bundle = opened(run)
            batch = held_out(bundle, store)._replace(image=torch.from_numpy(images))
            scores.append(measured(bundle, batch)[:5])
        yield f"| {name} | {' | '.join(studies.cells(np.mean(scores, 0)))} | {100 * share:.1f} % |"


def real(folder: Path) -> Iterator[str]:
    """How many of real images have a trail; none of them was seen to have one."""
    stamps = np.load(folder / STAMPS)["images"].astype(np.float32)
    field = next(x for x in np.load(folder / FIELD).values() if x.ndim == 3).astype(np.float32)
    size, places = stamps.shape[-1], range(0, field.shape[-1] - stamps.shape[-1], STEP)
    cutouts = np.stack([field[:, y : y + size, x : x + size] for y in places for x in places])
    yield ""
    for name, images in (("stamps", stamps), ("cutouts of a field", cutouts)):
        yield f"{round(len(images) * screened(images)[1])} of {len(images):,} real {name} are flagged.  "


def main() -> None:
    arguments = studies.parser(__doc__, 12_000).parse_args()
    store, runs = studies.with_seeds("all", arguments)
    _, of_all_light = studies.with_seeds("all light", arguments, own_light=False)
    body = list(rows(store, runs, of_all_light))
    if shared := os.environ.get("MMAE_SHARED_DATA"):
        body += real(Path(shared))
    command = " ".join(["bench_artefacts.py", "FOLDER", *sys.argv[2:]])
    report.write("artefacts", "Bleed trails, and bright stars beside galaxies", command, body)


if __name__ == "__main__":
    main()
