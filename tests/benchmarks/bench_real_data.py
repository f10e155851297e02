"""Reconstruction of real HSC images and DESI spectra by a model trained on the mock survey.

    python tests/benchmarks/bench_real_data.py RUN STORE [--out DIR]

RUN is a run directory or a checkpoint, STORE its training store, whose test split is compared to the real
galaxies. The real data are in MMAE_SHARED_DATA. 75 % of the tokens are hidden, with eight different masks;
errors are in units of the noise of the data. Writes results/real_data.md, and real_images.png and
real_spectra.png to DIR.

Images are rebuilt without a spectrum, as in training. In training every spectrum has an image: so real
spectra, which have none, are rebuilt with all image tokens hidden, and again with a quarter of the image of
a twin, the mock galaxy of the training split whose spectrum is nearest in the visible pixels.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
from bench_mock_realism import SKY
from real_data import ZERO_POINT, Cutouts, Library, as_wide, mock_cutouts, real_cutouts, real_spectra
from real_data_figures import images_figure, spectra_figure
from real_data_scores import (
    ABSENT,
    FLAT,
    HIDDEN,
    MASKS,
    MEAN,
    MODEL,
    NOTHING,
    OWN,
    ROUND,
    STRAIGHT,
    TWIN,
    TWIN_SPECTRUM,
    Scores,
    measure_images,
    measure_spectra,
)

from catalogs import atomic
from mmae.models import checkpoint
from mmae.models.batch import pooled
from mmae.models.families import AnyModel
from mmae.models.mmae_config import ModelConfig
from mmae.progress import bar
from mmae.scores.line_scores import CLEAR_SNR, LineFits, detected, errors, flux, median
from mmae.scores.lines import LINES, signal_to_noise
from mmae.scores.rebuilding import Survey, Truth, rebuilt_lines, true_lines, truth_of
from mmae.scores.reconstruction import Reconstruction
from mmae.scores.spectrum_scores import coarse_noise
from mmae.training.data import TrainingSet, sample_test_rows

MOCK_SPECTRA = 48
MAGNITUDES = {"all": (0.0, 40.0), "< 21": (0.0, 21.0), "21-22": (21.0, 22.0), "> 22": (22.0, 40.0)}
MIN_GALAXIES = 5
"""Smallest number of galaxies of a median."""
SHAPES = ("flux error", "colour error", "radius error", "shape error")


# ---------------------------------------------------------------- tables


def row(*cells: object) -> str:
    return "| " + " | ".join(map(shown, cells)) + " |"


def shown(cell: object) -> str:
    """Format a cell, numbers with three digits."""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def header(*names: str) -> list[str]:
    return [row(*names), "|" + "---|" * len(names)]


def selections(sets: dict[str, Cutouts]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield set, bin of magnitude and its mask (B,), for bins with enough galaxies."""
    for name, these in sets.items():
        for label, (low, high) in MAGNITUDES.items():
            inside = (these.magnitude >= low) & (these.magnitude < high)
            if inside.sum() >= MIN_GALAXIES:
                yield name, label, inside


def pixel_table(sets: dict[str, Cutouts], scores: dict[str, Scores]) -> Iterator[str]:
    yield from header("images", "i", "n", MODEL, ROUND, MEAN, NOTHING, f"{MODEL}, median error")
    for name, label, inside in selections(sets):
        of_set = scores[name]
        rms = (median(of_set[by]["rms error"][:, inside]) for by in (MODEL, ROUND, MEAN, NOTHING))
        yield row(name, label, inside.sum(), *rms, median(of_set[MODEL]["median error"][:, inside]))


def galaxy_table(sets: dict[str, Cutouts], scores: dict[str, Scores]) -> Iterator[str]:
    yield from header("images", "i", "n", *(f"{score}: {MODEL} ({ROUND})" for score in SHAPES))
    for name, label, inside in selections(sets):
        pairs = [[median(scores[name][by][score][:, inside]) for by in (MODEL, ROUND)] for score in SHAPES]
        yield row(name, label, inside.sum(), *(f"{model:.2g} ({other:.2g})" for model, other in pairs))


def spectrum_table(real: Scores, mock: Scores) -> Iterator[str]:
    yield from header("rebuilt by", "real", "mock")
    for name in (OWN, TWIN, ABSENT, TWIN_SPECTRUM, STRAIGHT, FLAT):
        yield row(name, *(median(part[name]["chi2"]) if name in part else "-" for part in (real, mock)))


def each_spectrum(truth: Truth, kinds: list[str], scores: Scores) -> Iterator[str]:
    names = (TWIN, ABSENT, TWIN_SPECTRUM, STRAIGHT, FLAT)
    yield from header("spectrum", "type", "z", "noise / rms", *names)
    for k, kind in enumerate(kinds):
        chi2 = (median(scores[name]["chi2"][:, k]) for name in names)
        noise = median(coarse_noise(truth.noise)[k])
        yield row(truth.object_id[k], kind, f"{truth.redshift[k]:.4f}", noise, *chi2)


def line_fits(
    model: AnyModel, truth: Truth, survey: Survey, reconstructions: list[Reconstruction]
) -> list[LineFits]:
    """Fits of lines in the reconstruction with each mask."""
    true, noise = true_lines(truth, survey)
    strength, wave = signal_to_noise(true, noise), pooled(survey.wave, model.config)
    rebuilt = (rebuilt_lines(by_mask, truth, wave, strength) for by_mask in reconstructions)
    return [LineFits(true, lines, noise, truth.redshift) for lines in rebuilt]


def line_table(fits: list[LineFits], truth: Truth) -> Iterator[str]:
    """Lines of S/N > 10: numbers of masks that hide and that rebuild them; medians over the latter."""
    yield from header(
        "spectrum", "line", "S/N", "hidden", "rebuilt", "velocity error, km/s", "flux / true flux"
    )
    evaluated = np.stack([fit.evaluated for fit in fits])  # (MASKS, B, L)
    rebuilt = np.stack([detected(fit) for fit in fits]) & evaluated
    velocity = np.stack([errors(fit)["velocity error"] for fit in fits])
    ratio = np.stack([flux(fit.rebuilt) / flux(fit.true) for fit in fits])
    strength = signal_to_noise(fits[0].true, fits[0].noise)
    for k, line in np.argwhere((strength > CLEAR_SNR) & evaluated.any(0)):
        is_rebuilt = rebuilt[:, k, line]
        medians = (
            median(values[:, k, line][is_rebuilt]) if is_rebuilt.any() else "-"
            for values in (velocity, ratio)
        )
        counts = evaluated[:, k, line].sum(), is_rebuilt.sum()
        yield row(truth.object_id[k], list(LINES)[line], float(strength[k, line]), *counts, *medians)


# ---------------------------------------------------------------- the whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    config = parser.parse_args()
    real = Path(os.environ.get("MMAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    model, state = checkpoint.load_model(checkpoint.find(config.run))
    data = TrainingSet(config.store, ModelConfig())
    config.out.mkdir(parents=True, exist_ok=True)
    body = [*provenance(model, state["step"], data), *images(model, data, real, config.out)]
    body += spectra(model, data, real, config.out)
    report.write("real_data", "Real images and spectra, rebuilt", "bench_real_data.py RUN STORE", body)
    print(f"wrote results/real_data.md, and real_images.png and real_spectra.png to {config.out}")


def provenance(model: AnyModel, trained: int, data: TrainingSet) -> list[str]:
    return [
        f"The model ({model.config.family}, step {trained}) was trained on the {data.store.survey} survey "
        f"alone, on no real galaxy. {HIDDEN:.0%} of the tokens are hidden; medians over galaxies and {MASKS} "
        "masks. No real object here has both an image and a spectrum.",
    ]


def images(model: AnyModel, data: TrainingSet, folder: Path, out: Path) -> list[str]:
    kinds = real_cutouts(folder)
    sets = {
        "real": kinds["galaxies"],
        "real, at the noise of Wide": as_wide(kinds["galaxies"]),
        "mock": mock_cutouts(data, kinds["galaxies"]),
        "real stars": kinds["stars"],
        "real, mostly padding": kinds["padded galaxies"],
    }
    scores, reconstructions = {}, {}
    with bar("sets of images") as progress:
        for name in progress.track(sets):
            scores[name], reconstructions[name] = measure_images(model, sets[name])
    with atomic.replacing(out / "real_images.png") as temporary:
        images_figure(sets["real"], reconstructions["real"]).savefig(temporary, format="png", dpi=200)
    deep = np.median(sets["real"].noise, 0)
    return [
        "",
        "## HSC images of COSMOS",
        "",
        "No spectrum is given. Errors are in units of the noise of the sky in each image. COSMOS is deeper "
        f"than HSC Wide, which the mock survey is made after: {numbers(deep)} in g r i z y (median of the "
        f"real galaxies, a pixel at zero point 27) against {numbers(SKY)}; the model expects the latter. So "
        "the second set is the first with white noise added up to that of Wide. The mock galaxies are those "
        "of the test split that come nearest in magnitude. Real images hold neighbours, and where one is "
        "hidden whole, nobody can know of it. Stars, and cutouts most of which is Gaussian padding, stand "
        "apart. Some cutouts overlap on the sky: n counts cutouts. i is measured in an aperture of 2 arcsec; "
        f"bins of fewer than {MIN_GALAXIES} are left out.",
        "",
        "Rms error over hidden pixels, in units of the sky noise; 1 is perfect. "
        f"{ROUND.capitalize()}: the mean of what is seen at the same radius; {MEAN}: of all that is seen.",
        "",
        *pixel_table(sets, scores),
        "",
        "Measured on the filled image against the true one, in the same aperture: flux and half-light radius "
        f"in i (relative), g - i (mag), ellipticity. In brackets those of the {ROUND}.",
        "",
        *galaxy_table(sets, scores),
        "",
        "Figure: `real_images.png`, which the command draws; the pixels of HSC are not ours to keep here.",
    ]


def spectra(model: AnyModel, data: TrainingSet, folder: Path, out: Path) -> list[str]:
    truth, kinds = real_spectra(folder)
    rows = np.sort(sample_test_rows(data, MOCK_SPECTRA, seed=1))
    mock = truth_of(data.object_id[rows], data.read(rows))
    survey, library = Survey(data.wave, SKY, ZERO_POINT), Library(data)
    with bar("sets of spectra") as progress:
        real, beside = (measure_spectra(model, x, data.wave, library) for x in progress.track((truth, mock)))
    with atomic.replacing(out / "real_spectra.png") as temporary:
        plot = spectra_figure(
            pooled(data.wave, model.config), truth, kinds, (real.twin[0], real.absent), model
        )
        plot.savefig(temporary, format="png", dpi=200)
    return [
        "",
        "## DESI spectra",
        "",
        "chi2 per hidden pixel of 24 A; 1 is perfect. The noise of real spectra is that of their ivar, "
        "carried through normalisation and pooling (`catalogs.spectra.pooled_noise`); that of mock spectra, "
        "of which a store has no ivar, the scatter of neighbouring pixels. The real spectra are deep coadds: "
        "the same error counts more.",
        "",
        f"Real spectra have no image, and in training every spectrum has one: `{ABSENT}` is what the model "
        f"has never seen. `{TWIN}`: a quarter of the image of the mock galaxy of the training split whose "
        f"spectrum is nearest to what is seen. `{TWIN_SPECTRUM}` is that galaxy's own, unchanged. "
        f"{len(kinds)} real spectra, {len(rows)} mock ones of the test split.",
        "",
        *spectrum_table(real.scores, beside.scores),
        "",
        "Each real spectrum; noise of a pixel of 24 A in units of the rms of the spectrum:",
        "",
        *each_spectrum(truth, kinds, real.scores),
        "",
        f"Emission lines of true S/N > {CLEAR_SNR:g}, `{TWIN}`: under how many of {MASKS} masks they are "
        "hidden whole, and rebuilt; medians over the latter:",
        "",
        *line_table(line_fits(model, truth, survey, real.twin), truth),
        "",
        "Figure: `real_spectra.png`, which the command draws.",
    ]


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    main()
