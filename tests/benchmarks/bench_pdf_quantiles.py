"""What quantiles lose of p(z): against the whole p(z) that `mmae infer --pdf` keeps, and the truth.

    python tests/benchmarks/bench_pdf_quantiles.py tile.photoz.fits --truth tile.truth.fits

The CDF of quantiles is the polyline through them, as `mmae evaluate` reads PDF_QUANT; 20 are kept, other
numbers are beside it to compare. Second peaks are those of PHOTOZ_MODE2, looked for in either density by the
same rule: over 0.15 (1 + z) from the first, and 5 % as high.
"""

import argparse
from pathlib import Path

import numpy as np
import report
import torch
from astropy.io import fits

from catalogs.products.pdf_grid import cumulative_of_bins
from mmae.layers import pdf
from mmae.layers.pdf import Grid

NUMBERS = (10, 20, 40, 99)
FINE = 4
"""Steps of the integrals in a bin of p(z)."""


def read(catalogue: Path, truth: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masses (N, K), edges (K + 1,), and true redshifts (N,) of the objects that have one."""
    with fits.open(catalogue) as hdus:
        rows, bins = hdus["PHOTOZ"].data, hdus["PDFBINS"].data
        mass = np.array(hdus["PDF"].data["PDF"], np.float64)
        edges = np.append(bins["Z_MIN"], bins["Z_MAX"][-1:])
        ids = np.array(rows["OBJECT_ID"])
    table = fits.getdata(truth)
    known = dict(zip(table["OBJECT_ID"].tolist(), table["Z_SPEC"].tolist(), strict=True))
    z = np.array([known.get(object_id, np.nan) for object_id in ids.tolist()])
    kept = np.isfinite(z)
    return mass[kept] / mass[kept].sum(1, keepdims=True), edges, z[kept]


def polylines(quantiles: np.ndarray, z: np.ndarray) -> np.ndarray:
    """CDF at redshifts z (M,) of quantiles (N, n) at the levels (k + 1/2) / n: (N, M)."""
    n = quantiles.shape[1]
    levels = np.concatenate([[0], (np.arange(n) + 0.5) / n, [1]])
    first = np.maximum(quantiles[:, 0] - (quantiles[:, 1] - quantiles[:, 0]) / 2, 0)
    last = quantiles[:, -1] + (quantiles[:, -1] - quantiles[:, -2]) / 2
    lines = np.column_stack([first, quantiles, last])
    return np.stack([np.interp(z, line, levels, 0, 1) for line in lines])


def crps(cdf: np.ndarray, z: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Integral (F - [z >= truth])^2 dz at a fine grid z (M,): (N, M), (N,) -> (N,)."""
    return np.trapezoid((cdf - (z >= truth[:, None])) ** 2, z, axis=1)


def ends(cdf: np.ndarray, z: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Redshifts at which CDFs (N, M) reach some levels, (N, L)."""
    return np.stack([np.interp(levels, row, z) for row in cdf])


def second_peaks(cdf_at_edges: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The second peak (N,), NaN where there is none, and the first, of densities by their CDFs (N, K + 1)."""
    mass = torch.from_numpy(np.diff(cdf_at_edges, axis=1))
    first, second = pdf.modes(mass, grid)
    return second.numpy(), first.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--of", default="", help="what the model is, for the table")
    arguments = parser.parse_args()
    mass, edges, truth = read(arguments.catalogue, arguments.truth)
    grid = Grid(len(edges) - 1, float(edges[-1]))
    x = np.linspace(0, np.log1p(edges[-1]), FINE * (len(edges) - 1) + 1)
    z = np.expm1(x)
    whole = cumulative_of_bins(mass, edges, z)
    at_edges = cumulative_of_bins(mass, edges, edges)
    true_crps = crps(whole, z, truth)
    levels = (0.16, 0.84, 0.025, 0.975)
    whole_ends = ends(whole, z, levels)
    peaks, first = second_peaks(at_edges, grid)
    had = np.isfinite(peaks)
    lines = []
    for n in NUMBERS:
        wanted = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        quantiles = pdf.quantiles(torch.from_numpy(mass), grid, wanted.expand(len(mass), -1)).numpy()
        cdf = polylines(quantiles.astype(np.float32).astype(np.float64), z)
        loss = crps(cdf, z, truth) - true_crps
        moved = np.abs(ends(cdf, z, levels) - whole_ends) / (1 + truth[:, None])
        found, main_peak = second_peaks(polylines(quantiles, edges), grid)
        kept = had & np.isfinite(found) & (np.abs(found - peaks) < pdf.HSC_WIDTH * (1 + peaks))
        swapped = np.abs(main_peak - first) > pdf.HSC_WIDTH * (1 + first)
        distance = np.trapezoid((cdf - whole) ** 2, z, axis=1)
        lines.append(
            f"| {n} | {4 * n} | {100 * loss.mean() / true_crps.mean():+.2f} | "
            f"{100 * distance.mean() / true_crps.mean():.2f} | "
            + " | ".join(
                f"{np.median(m):.5f}, {np.quantile(m, 0.95):.4f}" for m in (moved[:, :2], moved[:, 2:])
            )
            + f" | {100 * (1 - kept.sum() / max(had.sum(), 1)):.1f} | "
            f"{100 * (np.isfinite(found) & ~had).mean():.1f} | {100 * swapped.mean():.1f} |"
        )
    inside = [(whole_ends[:, k] <= truth) & (truth <= whole_ends[:, k + 1]) for k in (0, 2)]
    report.write(
        "pdf_quantiles",
        "What quantiles lose of p(z)",
        f"bench_pdf_quantiles.py {arguments.catalogue.name} --truth {arguments.truth.name}",
        [
            f"{len(truth):,} galaxies, {arguments.of}. p(z) has {grid.bins} bins, {4 * grid.bins} bytes.",
            f"The whole p(z): CRPS {true_crps.mean():.4f}, 68 and 95 % intervals hold "
            f"{100 * inside[0].mean():.1f} and {100 * inside[1].mean():.1f} %, "
            f"{100 * had.mean():.1f} % have a second peak.",
            "",
            "- CRPS: how much more it is by quantiles; distance: integral of the squared difference of the",
            "  CDFs; both in % of the CRPS.",
            "- ends: how far the ends of the intervals move, over 1 + z: median, and 95 % of galaxies.",
            "- second peaks: those lost, in % of those there were; those invented, and first peaks that are",
            "  elsewhere, in % of all galaxies.",
            "",
            "| quantiles | bytes | CRPS | distance | 68 % ends | 95 % ends | lost | invented | elsewhere |",
            "|---|---|---|---|---|---|---|---|---|",
            *lines,
        ],
    )


if __name__ == "__main__":
    main()
