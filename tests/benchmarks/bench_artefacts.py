"""What bleed trails do to redshifts, taken for light or left out; and how often one is seen where none is.

python tests/benchmarks/bench_artefacts.py FOLDER [--galaxies 12000] [--epochs 3] [--seeds 2] [--small]

FOLDER keeps a mock survey of HSC and the runs. A trail is planted in every galaxy of the test split, as the
mock plants them, in one band. With MMAE_SHARED_DATA, a folder with real HSC images, these are searched, too.
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
from catalogs.mock.image import Artefact, add_artefact
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_images

HEADER = ["images", *studies.SCORES[:5], "flagged"]
STAMPS, FIELD, STEP = "hsc_stamps64_grizy.npz", "hsc_field_grizy_191x191.npz", 3


def planted(image: np.ndarray) -> np.ndarray:
    """Images (N, bands, 64, 64), each with a trail in one band."""
    rng = np.random.default_rng(0)
    with_trail = image.copy()
    for one in with_trail:
        add_artefact(rng, HSC, one, Artefact.BLEED_TRAIL)
    return with_trail


def screened(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Images as a model takes them, and the share of them with the flag."""
    found = screen_images(image.copy(), np.zeros(len(image), bool))
    return found.image, float(np.mean(found.flags & Flag.BLEED_TRAIL.value > 0))


def rows(store: Path, runs: list[Path]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    image = held_out(opened(runs[0]), store).image.numpy()
    trails = planted(image)
    left_out, flagged = screened(trails)
    clean, wrongly = screened(image)
    ways = {
        "without trails": (clean, wrongly),
        "with one, taken for light": (trails, 0.0),
        "with one, found and left out": (left_out, flagged),
    }
    for name, (images, share) in ways.items():
        scores = []
        for run in runs:
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
    store, runs = studies.with_seeds("trails", arguments)
    body = list(rows(store, runs))
    if shared := os.environ.get("MMAE_SHARED_DATA"):
        body += real(Path(shared))
    command = " ".join(["bench_artefacts.py", "FOLDER", *sys.argv[2:]])
    report.write("artefacts", "Bleed trails in images", command, body)


if __name__ == "__main__":
    main()
