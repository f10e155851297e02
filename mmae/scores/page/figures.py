"""Figures of the page: redshifts, examples of p(z), how far its numbers can be relied on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from catalogs.products.schema import QUANTILE_LEVELS, Flag
from mmae.scores.calibration import LEVELS, polyline
from mmae.scores.catalogue.tomography import stacked
from mmae.scores.page.light import Judged, losses

DEEP, WARM, GREY = "#2a6f97", "#d1495b", "#8d99ae"
SIZE, WIDE = (6.4, 3.8), (6.4, 3.2)
BINS = 60
DECILES = 10
PEAK_Z = 0.1
"""Redshift beyond the highest of an example that is shown, over 1 + z."""


def axes_of(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    plot = Figure(figsize=size, layout="constrained")
    return plot, plot.subplots()


def redshifts(quantiles: np.ndarray, best: np.ndarray, truth: np.ndarray | None) -> Figure:
    """n(z): the mean of all p(z) (N, 20), the point estimates (N,), and true redshifts where known."""
    plot, axes = axes_of()
    top = float(np.quantile(best, 0.999)) * 1.1 + 0.05
    edges = np.linspace(0, top, BINS + 1)
    axes.stairs(
        stacked(quantiles.astype(np.float64), edges),
        edges,
        fill=True,
        color=DEEP,
        alpha=0.35,
        label="sum of p(z)",
    )
    axes.hist(best, edges.tolist(), density=True, histtype="step", color=DEEP, lw=1.5, label="PHOTOZ_BEST")
    if truth is not None:
        axes.hist(
            truth,
            edges.tolist(),
            density=True,
            histtype="step",
            color=WARM,
            lw=1.5,
            label="spectra (a part of the objects)",
        )
    axes.set(xlabel="redshift z", ylabel="n(z)", xlim=(0, top))
    axes.legend(frameon=False)
    return plot


def widths(best: np.ndarray, low: np.ndarray, high: np.ndarray) -> Figure:
    """Half of the 68 % interval over 1 + z, by redshift: density of objects, and its median."""
    plot, axes = axes_of()
    width = (high - low) / 2 / (1 + best)
    top = float(np.quantile(best, 0.999)) + 0.05
    axes.hist2d(
        best, np.log10(np.maximum(width, 1e-4)), bins=BINS, range=((0, top), (-3, 0)), cmin=1, cmap="Blues"
    )
    edges = np.quantile(best, np.linspace(0, 1, DECILES + 1))
    tenths = parts(best, edges)
    there = [part.any() for part in tenths]  # of less than ten objects some are empty
    middle = [np.median(np.log10(np.maximum(width[part], 1e-4))) for part in tenths if part.any()]
    axes.plot((edges[1:] + edges[:-1])[there] / 2, middle, "o-", color=WARM, label="median of a tenth")
    ticks = (0.003, 0.01, 0.03, 0.1, 0.3)
    axes.set_yticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="PHOTOZ_BEST", ylabel="half of the 68 % interval, over 1 + z")
    axes.legend(frameon=False, loc="lower right")
    return plot


def parts(values: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """Masks of values between edges; the last edge belongs to the last."""
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return [place == k for k in range(len(edges) - 1)]


def scores(counts: np.ndarray) -> Figure:
    """Distribution of OOD_SCORE, by its counts in equal bins: of objects like the training set it is flat."""
    plot, axes = axes_of(WIDE)
    shown = counts.reshape(50, -1).sum(1) / max(1, counts.sum()) * 50
    axes.stairs(shown, np.linspace(0, 1, 51), fill=True, color=DEEP, alpha=0.5)
    axes.axhline(1, color=WARM, lw=1.2, ls="--", label="objects like the training set's")
    axes.set(xlabel="OOD_SCORE", ylabel="density", xlim=(0, 1))
    axes.legend(frameon=False)
    return plot


def examples(rows: np.ndarray, composites: np.ndarray | None, titles: Sequence[str]) -> Figure:
    """p(z) of objects, each with its cutout where there are any (k, 64, 64, 3)."""
    columns = 3
    lines = -(-len(rows) // columns)
    plot = Figure(figsize=(9, 2.1 * lines), layout="constrained")
    for k, row in enumerate(rows):
        axes = plot.add_subplot(lines, columns, k + 1)
        line = polyline(row["PDF_QUANT"].astype(np.float64)[None])[:, 0]
        density = np.diff(LEVELS) / np.maximum(np.diff(line), 1e-4)
        axes.stairs(density, line, fill=True, color=DEEP, alpha=0.5)
        axes.axvline(row["PHOTOZ_BEST"], color=DEEP, lw=1)
        if np.isfinite(row["Z_SPEC"]):
            axes.axvline(row["Z_SPEC"], color=WARM, lw=1.2, ls="--")
        margin = PEAK_Z * (1 + line[-1])
        axes.set(xlim=(max(0, line[0] - margin), line[-1] + margin), yticks=[])
        axes.set_title(f"{titles[k]}\n{row['OBJECT_ID']}", fontsize=8)
        axes.tick_params(labelsize=7)
        if composites is not None:
            inset = axes.inset_axes((0.66, 0.42, 0.34, 0.58))
            inset.imshow(composites[k], origin="lower")
            inset.set_axis_off()
    return plot


def chosen(rows: np.ndarray, each: int = 3) -> tuple[np.ndarray, list[str]]:
    """Typical, two-peaked and atypical objects among rows with a p(z), and what each is."""
    width = rows["PHOTOZ_ERR68_MAX"] - rows["PHOTOZ_ERR68_MIN"]
    flags = rows["PHOTOZ_FLAGS"].astype(np.int64)
    usual = np.abs(np.argsort(np.argsort(width)) / max(1, len(width)) - 0.5)
    kinds = {
        "typical": np.argsort(usual, kind="stable")[:each],
        "two peaks": np.flatnonzero(flags & Flag.TWO_PEAKS.value)[:each],
        "least like the training set": np.argsort(rows["OOD_SCORE"], kind="stable")[:each],
    }
    places = np.concatenate(list(kinds.values()))
    return rows[places], [kind for kind, of_kind in kinds.items() for _ in of_kind]


def reliability(judged: Judged) -> Figure:
    """What RISK and CONF claim, and what is found, in tenths of the objects."""
    plot = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = plot.subplots(1, 2)
    near = np.abs(judged.z_phot - judged.z_spec) < 0.03 * (1 + judged.z_phot)
    for axes, claimed, found, name in (
        (left, judged.risk, losses(judged), "PHOTOZ_RISK_BEST"),
        (right, judged.confidence, near.astype(float), "PHOTOZ_CONF_BEST"),
    ):
        edges = np.quantile(claimed, np.linspace(0, 1, DECILES + 1))
        masks = [mask for mask in parts(claimed, edges) if mask.any()]
        x = [claimed[mask].mean() for mask in masks]
        y = [found[mask].mean() for mask in masks]
        error = [found[mask].std() / np.sqrt(mask.sum()) for mask in masks]
        axes.errorbar(x, y, error, fmt="o", color=DEEP)
        top = max(*x, *y) * 1.1
        axes.plot((0, top), (0, top), color=GREY, lw=1)
        axes.set(xlabel=f"{name}, claimed", xlim=(0, top), ylim=(0, top))
    left.set_ylabel("mean loss found")
    right.set_ylabel("share within 0.03 (1 + z)")
    return plot


def calibration(quantiles: np.ndarray, z_spec: np.ndarray) -> Figure:
    """Share of true redshifts below each stored quantile (N, 20) of p(z), less its level."""
    plot, axes = axes_of(WIDE)
    levels = np.array(QUANTILE_LEVELS)
    found = (z_spec[:, None] <= quantiles).mean(0)
    error = np.sqrt(levels * (1 - levels) / len(z_spec))
    axes.fill_between(levels, -2 * error, 2 * error, color=GREY, alpha=0.3, label="chance, 95 %")
    axes.plot(levels, found - levels, "o-", color=DEEP, ms=4)
    axes.axhline(0, color=GREY, lw=1)
    axes.set(xlabel="level of the quantile of p(z)", ylabel="share of redshifts below, less the level")
    axes.legend(frameon=False)
    return plot
