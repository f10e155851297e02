"""Figures of photo-z and their p(z) against spectroscopic redshifts."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from catalogs.products.schema import QUANTILE_LEVELS
from mmae.scores import metrics


def figure(z_phot: np.ndarray, z_spec: np.ndarray) -> Figure:
    """Photo-z against spectroscopic redshift (paper, figure 3): z_spec below 0.4 left, the whole range right.

    Parameters
    ----------
    z_phot, z_spec : (N,)
        Finite redshifts, N >= 1.

    Returns
    -------
    matplotlib.figure.Figure
        Two square panels: objects per bin in colour, z_phot = z_spec solid, |dz| = 0.15 dashed. The metrics
        above a panel include objects beyond the axes, whose number is printed in the panel.
    """
    plot = Figure(figsize=(11, 5), layout="constrained")
    left, right = plot.subplots(1, 2)
    limit = metrics.EDGES[0]
    near = z_spec < limit
    panel(left, z_phot[near], z_spec[near], limit, rf"$z_\mathrm{{spec}} < {limit:g}$")
    # a single catastrophic outlier must not set the scale
    top = 1.03 * max(limit, np.clip(z_phot.max(), z_spec.max(), 2 * z_spec.max()))
    panel(right, z_phot, z_spec, top, "all redshifts")
    return plot


def panel(axes: Axes, z_phot: np.ndarray, z_spec: np.ndarray, top: float, title: str) -> None:
    """Draw objects per bin in colour, from the lowest z_spec up to `top`, with their metrics above."""
    bottom = z_spec.min(initial=0)
    bins = int(np.clip(2 * math.sqrt(len(z_spec)), 40, 120))  # a single object stays visible
    edges = np.linspace(bottom, top, bins + 1)
    count, _, _ = np.histogram2d(z_spec, z_phot, bins=(edges, edges))
    filled = np.ma.masked_equal(count.T, 0)  # (z_phot, z_spec): rows run along the vertical axis
    mesh = axes.pcolormesh(edges, edges, filled, norm=LogNorm(1, max(10, count.max())))
    bar = axes.inset_axes((1.03, 0, 0.04, 1))
    ticks = LogLocator(subs=(1, 2, 5))
    axes.figure.colorbar(mesh, bar, label="objects per bin", ticks=ticks, format="%d").minorticks_off()

    line = np.array([bottom, top])
    axes.plot(line, line, color="black", lw=0.8)
    for sign in (-1, 1):
        axes.plot(line, line + sign * metrics.OUTLIER * (1 + line), color="black", lw=0.8, ls="--")
    axes.set(xlim=(bottom, top), ylim=(bottom, top), aspect="equal")
    axes.set_xlabel(r"$z_\mathrm{spec}$", fontsize="large")
    axes.set_ylabel(r"$z_\mathrm{phot}$", fontsize="large")

    value = metrics.point_metrics(z_phot, z_spec)
    numbers = (
        rf"$\sigma_\mathrm{{NMAD}} = {value['sigma_NMAD']:.4f}$,  $\mathrm{{bias}} = {value['bias']:.4f}$,  "
        rf"$|dz| > {metrics.OUTLIER}$: {100 * value['|dz|>0.15']:.2f} %"
    )
    heading = f"{title},  $n = {len(z_spec)}$\n{numbers if len(z_spec) else ''}"
    axes.set_title(heading, fontsize="medium", loc="left")
    if beyond := len(z_spec) - int(count.sum()):
        note = f"{beyond} beyond the axes"
        background = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(0.97, 0.03, note, transform=axes.transAxes, ha="right", fontsize="small", bbox=background)


def calibration_figure(pit: np.ndarray, ks: float) -> Figure:
    """Histogram of the PIT, left; its cumulative distribution, right.

    Parameters
    ----------
    pit : (N,)
        From 0 to 1, N >= 1.
    ks : float
        Kolmogorov-Smirnov statistic of the PITs.

    Returns
    -------
    matplotlib.figure.Figure
        Two square panels. If every p(z) is right, both follow the line, and 95 % of the bins (left) or of
        the levels (right) lie in the grey band: twice the binomial scatter of N objects.
    """
    plot = Figure(figsize=(10, 5), layout="constrained")
    left, right = plot.subplots(1, 2)
    n, bins = len(pit), len(QUANTILE_LEVELS)
    count, edges = np.histogram(pit, bins, (0, 1))
    left.stairs(count * bins / n, edges, color="tab:blue")
    scatter = 2 * math.sqrt((bins - 1) / n)
    left.fill_between([0, 1], max(0, 1 - scatter), 1 + scatter, color="black", alpha=0.15, lw=0)
    left.axhline(1, color="black", lw=0.8)
    left.set(xlim=(0, 1), ylim=(0, None), box_aspect=1)
    left.set_xlabel(r"PIT, $F(z_\mathrm{spec})$", fontsize="large")
    left.set_ylabel("objects, over those expected", fontsize="large")
    left.set_title(f"$n = {n}$,  KS = {ks:.4f}", fontsize="medium", loc="left")

    level = np.linspace(0, 1, 201)
    below = np.searchsorted(np.sort(pit), level, side="right") / n
    band = 2 * np.sqrt(level * (1 - level) / n)
    right.fill_between(level, level - band, level + band, color="black", alpha=0.15, lw=0)
    right.plot(level, level, color="black", lw=0.8)
    right.plot(level, below, color="tab:blue")
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    right.set_xlabel("level", fontsize="large")
    right.set_ylabel("fraction of objects with PIT below it", fontsize="large")
    return plot
