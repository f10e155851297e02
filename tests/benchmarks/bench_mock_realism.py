"""How real the mock survey is: its numbers beside those of real catalogues, images and spectra.

    python tests/benchmarks/bench_mock_realism.py

prints a table and writes it to results/mock_realism.md. The real tables are found through MMAE_SHARED_DATA.
tests/catalogs/test_mock_realism.py holds the same numbers to the tolerances given here.
"""

import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import report
from astropy.table import Table
from sklearn.ensemble import HistGradientBoostingRegressor

from catalogs.mock.cameras import HSC
from catalogs.mock.image import observe_image, transforms
from catalogs.mock.objects import TRAINING, draw
from catalogs.mock.population import draw_target
from catalogs.mock.preview import signal_to_noise
from catalogs.mock.workers import workers
from catalogs.store.format import SIZE

SEED = 2026
BANDS = "grizy"
I_BAND = BANDS.index("i")
SKY = np.array([0.037, 0.057, 0.077, 0.156, 0.287])
"""HSC-SSP Wide, per pixel at zero point 27."""
REDSHIFTS = {5: 0.075, 10: 0.098, 25: 0.162, 50: 0.338, 75: 0.611, 90: 1.652, 95: 2.320}
"""Percentiles of the 20,181 test galaxies of Himes et al. (2025)."""
I_90 = 20.635
"""Their 90th percentile of i (Himes et al. 2025, table 1)."""


@dataclass
class Comparison:
    """One number of the mock beside the same number of the real sky."""

    what: str
    real: float
    mock: float
    tolerance: float
    relative: bool = False

    @property
    def agrees(self) -> bool:
        scale = abs(self.real) if self.relative else 1
        return abs(self.mock - self.real) <= self.tolerance * scale


# --- The population: targets without pixels ----------------------------------------------------------------


@dataclass
class Population:
    redshift: np.ndarray
    magnitudes: np.ndarray
    """(N, 5)"""
    quasar: np.ndarray
    passive: np.ndarray


def population(count: int = 4000) -> Population:
    sources = [draw_target(np.random.default_rng([SEED, k])) for k in range(count)]
    quasar = np.array([source.kind == "QSO" for source in sources])
    single = np.array([len(source.components) == 1 for source in sources])
    return Population(
        np.array([source.redshift for source in sources]),
        np.array([source.magnitudes(HSC) for source in sources]),
        quasar,
        single & ~quasar,
    )


def redshifts_and_magnitudes(mock: Population) -> list[Comparison]:
    rows = [
        Comparison(f"z, {p}th percentile", z, float(np.percentile(mock.redshift, p)), 0.12, relative=True)
        for p, z in REDSHIFTS.items()
    ]
    faint = float(np.percentile(mock.magnitudes[:, I_BAND], 90))
    quasars = float(mock.quasar[mock.redshift > 1].mean())  # in reality "nearly all"
    rows.append(Comparison("i, 90th percentile", I_90, faint, 0.25))
    rows.append(Comparison("share of quasars at z > 1", 1.0, quasars, 0.15))
    return rows


def _catalogue(path: Path, redshift: str, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Redshifts (N,) and magnitudes (N, 5), NaN where there are none, of galaxies with g r i z."""
    table = Table.read(path)
    magnitudes = np.full((len(table), 5), np.nan)
    for k, name in enumerate(columns):
        magnitudes[:, k] = np.where((table[name] > 10) & (table[name] < 30), table[name], np.nan)
    good = np.isfinite(magnitudes[:, :4]).all(1)
    return np.asarray(table[redshift], float)[good], magnitudes[good]


def egs(data: Path) -> tuple[np.ndarray, np.ndarray]:
    path = data / "photometry/egs_deep2_3dhst_cfhtls_ugrizY_specz_15878.fits"
    return _catalogue(path, "redshift", ["g", "r", "i", "z", "y"])


def massive(data: Path) -> tuple[np.ndarray, np.ndarray]:
    path = data / "photometry/hsc_s16a_griz_massive_zbest_2530.fits"
    return _catalogue(path, "z_best", [f"{band}cmodel_mag" for band in "griz"])


def zcosmos(data: Path) -> tuple[np.ndarray, np.ndarray]:
    path = data / "photometry/zcosmos_bright_subaru_BVgriz_specz_17358.csv"
    return _catalogue(path, "zpec", [f"{band}_photzi25" for band in "griz"])


def _colours(what: str, real: np.ndarray, mock: np.ndarray, tolerance: float) -> list[Comparison]:
    """Compare medians of g-r, r-i, i-z and, where there is a y, z-y."""
    names = [f"{a}-{b}" for a, b in itertools.pairwise(BANDS)]
    pairs = zip(names, np.nanmedian(-np.diff(real), 0), np.median(-np.diff(mock), 0), strict=False)
    return [
        Comparison(f"{name}, {what}", float(a), float(b), tolerance) for name, a, b in pairs if np.isfinite(a)
    ]


def colours(data: Path, mock: Population) -> list[Comparison]:
    """All galaxies against EGS at the same i; passive ones against massive HSC galaxies, then red zCOSMOS."""
    rows = []
    z, magnitudes = egs(data)
    galaxy = ~mock.quasar
    for low, high in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.7)):
        real = magnitudes[(z >= low) & (z < high)]
        ours = mock.magnitudes[galaxy & (mock.redshift >= low) & (mock.redshift < high)]
        distance = np.abs(real[:, I_BAND] - ours[:, I_BAND, None])  # (mock, real)
        near = distance.min(1) < 0.25
        twins = real[distance.argmin(1)[near]]
        rows += _colours(f"all, {low} < z < {high}, as EGS at the same i", twins, ours[near], 0.2)
    z, magnitudes = massive(data)
    for low, high in ((0.2, 0.3), (0.3, 0.4), (0.4, 0.5)):
        ours = mock.magnitudes[mock.passive & (mock.redshift >= low) & (mock.redshift < high)]
        real = magnitudes[(z >= low) & (z < high), :4]
        rows += _colours(f"passive, {low} < z < {high}, as massive HSC", real, ours[:, :4], 0.15)
    z, magnitudes = zcosmos(data)
    for low, high, reddest in ((0.7, 0.85, 1.0), (0.85, 1.05, 0.95)):
        red = (z >= low) & (z < high) & (magnitudes[:, 1] - magnitudes[:, 2] > reddest)
        red &= (magnitudes[:, 0] - magnitudes[:, 1] > 1.1) & (magnitudes[:, I_BAND] < 22)
        real = magnitudes[red, :4]
        ours = mock.magnitudes[mock.passive & (mock.redshift >= low) & (mock.redshift < high)]
        rows += _colours(f"passive, {low} < z < {high}, as red zCOSMOS", real, ours[:, :4], 0.3)
    return rows


# --- Images ------------------------------------------------------------------------------------------------

RADIUS = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE // 2))
APERTURE = RADIUS < 9


def photometry(image: np.ndarray) -> np.ndarray:
    """Aperture magnitudes (3 arcsec across) g r i z y, and the half-light radius in i in pixels: (6,)."""
    flux = image[:, APERTURE].sum(1)
    magnitudes = 27 - 2.5 / np.log(10) * (np.arcsinh(flux / 0.2) + np.log(0.1))
    steps = np.arange(1, 16, 0.5)
    inside = np.maximum.accumulate([image[I_BAND][step > RADIUS].sum() for step in steps])
    return np.append(magnitudes, np.interp(0.5 * inside[-1], inside, steps))


def _measure(k: int) -> tuple[float, bool, np.ndarray]:
    rng = np.random.default_rng([SEED, 1, k])
    source = draw_target(rng)
    image = observe_image(rng, HSC, source, transforms(source, rng, HSC), artefact_share=0).image
    return source.redshift, source.kind == "QSO", photometry(image)


def measured(pool: ProcessPoolExecutor, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Redshift (N,), whether it is a quasar (N,), photometry (N, 6)."""
    redshift, quasar, measures = zip(*pool.map(_measure, range(count), chunksize=50), strict=True)
    return np.array(redshift), np.array(quasar), np.stack(measures)


def baseline(redshift: np.ndarray, measures: np.ndarray) -> float:
    """sigma_NMAD at z < 0.4 of gradient boosting on magnitudes, colours and size; a fifth is held out."""
    features = np.hstack([measures, -np.diff(measures[:, :5])])
    training = np.arange(len(redshift)) < 0.8 * len(redshift)
    model = HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05, random_state=0)
    predicted = model.fit(features[training], redshift[training]).predict(features[~training])
    truth = redshift[~training]
    dz = ((predicted - truth) / (1 + truth))[truth < 0.4]
    return float(1.4826 * np.median(np.abs(dz - np.median(dz))))


def sizes(data: Path, quasar: np.ndarray, measures: np.ndarray) -> list[Comparison]:
    """Half-light radii at the magnitudes of the real stamps, seeing included."""
    with np.load(data / "hsc_stamps64_grizy.npz") as stamps:
        whole = (stamps["frac_real"] > 0.6) & (stamps["size_i_pix"] > 2.15)  # below: stars
        real = np.stack([photometry(image) for image in stamps["images"][whole]])
    rows = []
    for low, high in ((19.5, 21.0), (21.0, 22.0)):
        theirs = real[(real[:, I_BAND] > low) & (real[:, I_BAND] < high), 5]
        ours = measures[~quasar & (measures[:, I_BAND] > low) & (measures[:, I_BAND] < high), 5]
        what = f"half-light radius (pixels), {low} < i < {high}, {len(theirs)} real stamps"
        rows.append(Comparison(what, float(np.median(theirs)), float(np.median(ours)), 0.25, relative=True))
    return rows


# --- Sky and spectra ---------------------------------------------------------------------------------------


def sky(images: np.ndarray) -> list[Comparison]:
    """Robust sigma in the corners of stamps (N, 5, 64, 64), and the correlation of neighbouring pixels."""
    corners = np.concatenate([images[..., :10, :10], images[..., -10:, -10:]])
    middle = np.nanmedian(corners, (2, 3), keepdims=True)
    sigma = 1.4826 * np.nanmedian(np.abs(corners - middle), (0, 2, 3))
    return [
        Comparison(f"sky sigma in {band}", float(a), float(b), 0.1, relative=True)
        for band, a, b in zip(BANDS, SKY, sigma, strict=True)
    ]


WINDOWS = ((3700, 4000), (4000, 4500), (4500, 5000), (5900, 6500), (6500, 7300), (7700, 8500), (8500, 9000))


def fibre_sigma(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths and noise of DESI fibres: the median of three, of about 1000 to 1400 s."""
    with np.load(data / "desi_sigma_templates.npz") as templates:
        fibres = [templates[name] for name in templates if name.startswith("sigma_edr")]
        return templates["wave"], np.nanmedian(fibres, 0)


def spectral_noise(data: Path, wave: np.ndarray, ivar: np.ndarray) -> list[Comparison]:
    """Median sigma(lambda) of faint objects beside that of DESI fibres."""
    real_wave, real = fibre_sigma(data)
    sigma = np.where(ivar > 0, ivar, np.nan) ** -0.5
    rows = []
    for low, high in WINDOWS:
        a = float(np.nanmedian(real[(real_wave > low) & (real_wave < high)]))
        b = float(np.nanmedian(sigma[:, (wave > low) & (wave < high)]))
        rows.append(Comparison(f"sigma at {low}-{high} A, 1e-17 cgs", a, b, 0.35, relative=True))
    return rows


def signal(data: Path, flux: np.ndarray, ivar: np.ndarray) -> Comparison:
    """Median S/N a pixel of real spectra, beside that of mock spectra as bright as each of them.

    The real ones are deep coadds: their S/N is scaled to the noise of a usual fibre.
    """
    _, usual = fibre_sigma(data)
    with np.load(data / "desi_spectra_7781px.npz") as real:
        real_flux, real_ivar = real["flux"], real["ivar"]
    depth = np.nanmedian(np.where(real_ivar > 0, real_ivar, np.nan) ** -0.5 / usual, 1)
    scaled = signal_to_noise(real_flux, real_ivar) * depth
    ours, theirs = np.median(flux, 1), np.median(real_flux, 1)
    order = np.argsort(ours)
    expected = np.interp(theirs, ours[order], signal_to_noise(flux, ivar)[order])
    what = f"median S/N a pixel of {len(scaled)} DESI spectra, at the depth of a usual fibre"
    return Comparison(what, float(np.median(scaled)), float(np.median(expected)), 0.35, relative=True)


def compare(data: Path, count: int = 8000) -> tuple[list[Comparison], float]:
    """All comparisons, and sigma_NMAD of the photometric baseline on `count` objects."""
    mock = population()
    with workers(len(os.sched_getaffinity(0))) as pool:
        redshift, quasar, measures = measured(pool, count)
    objects = draw(SEED, TRAINING, range(300), artefacts=0)
    wave = np.linspace(3600, 9824, objects.flux.shape[1])
    faint = objects.magnitudes[:, I_BAND] > 19.5
    rows = redshifts_and_magnitudes(mock) + colours(data, mock) + sizes(data, quasar, measures)
    rows += sky(objects.image[faint]) + spectral_noise(data, wave, objects.ivar[faint])
    rows.append(signal(data, objects.flux, objects.ivar))
    return rows, baseline(redshift, measures)


def main() -> None:
    data = Path(os.environ.get("MMAE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    rows, sigma = compare(data)
    lines = ["| | real | mock | tolerance |", "|---|---|---|---|"]
    for row in rows:
        tolerance = f"{row.tolerance:.0%}" if row.relative else f"{row.tolerance:g}"
        verdict = "" if row.agrees else " **missed**"
        lines.append(f"| {row.what} | {row.real:.3f} | {row.mock:.3f} | {tolerance}{verdict} |")
    verdict = f"Photometric baseline, 8,000 objects, z < 0.4: sigma_NMAD {sigma:.4f} (wanted: 0.02 to 0.05)."
    body = [*lines, "", verdict]
    report.write("mock_realism", "The mock survey beside the real sky", "bench_mock_realism.py", body)


if __name__ == "__main__":
    main()
