"""The figures of `mmae reproduce`: the paper's three, and those of the studies beyond it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from catalogs.store.preview import composite
from mmae.models.batch import Batch
from mmae.scores import reconstruction_figure, redshift_figures
from mmae.scores.line_scores import ALL, PRESENT_SNR, LineFits, detected
from mmae.scores.lines import LINES
from mmae.scores.masking_study import IMAGE_SHARES, SPECTRUM_SHARES
from mmae.scores.metrics import EDGES
from mmae.scores.photoz_scores import EVERYWHERE, NEAR, PAPER, PUBLISHED
from mmae.scores.physical_masks import IMAGE, NOTHING, PIXELS, TOKENS, DataLoss
from mmae.scores.reconstruction import Reconstruction
from mmae.scores.reconstruction_figure import GREY

HIDDEN = "0.85"
"""Grey level of hidden spans of a spectrum."""


class Example(NamedTuple):
    """One galaxy with a loss."""

    loss: DataLoss
    image: np.ndarray
    """(5, 64, 64), with the loss"""
    spectrum: np.ndarray
    """(1296,), with the loss"""
    truth: tuple[np.ndarray, np.ndarray]
    """Image and spectrum without the loss."""
    rebuilt: Reconstruction | None
    """With all affected tokens hidden, without the batch dimension; None where those are all tokens."""
    zero_point: float
    """AB magnitude of flux 1 of the images."""


def redshifts(z_phot: np.ndarray, z_spec: np.ndarray, scatter: Table, data: str) -> Figure:
    """Figure 3: z_spec below 0.4 and bars of its scatter, left; all redshifts, right.

    scatter : photoz_scores.table; data : name of the data, such as `mock data`.
    """
    plot = Figure(figsize=(12, 7), layout="constrained")
    axes = plot.subplot_mosaic(
        [["bars", "all"], ["near", "all"]], width_ratios=[1, 1.35], height_ratios=[1, 1.9]
    )
    limit, near = EDGES[0], z_spec < EDGES[0]
    redshift_figures.panel(
        axes["near"], z_phot[near], z_spec[near], limit, rf"$z_\mathrm{{spec}} < {limit:g}$"
    )
    top = 1.03 * max(limit, np.clip(z_phot.max(), z_spec.max(), 2 * z_spec.max()))
    redshift_figures.panel(axes["all"], z_phot, z_spec, top, "all redshifts")
    bars(axes["bars"], scatter, data)
    return plot


def bars(axes: Axes, scatter: Table, data: str) -> None:
    """Draw sigma_NMAD at z < 0.4: this model with its scatter over masks, and published values, hatched."""
    near = scatter[scatter["range"] == NEAR]
    measured = {f"this model, {100 * row['hidden']:g} % hidden": row for row in near}
    paper = {f"Himes et al., {100 * share:g} % hidden": sigma for share, sigma in PAPER.items()}
    published = paper | PUBLISHED
    heights = [row["sigma_NMAD"] for row in measured.values()]
    errors = [0 if math.isnan(row["sigma_NMAD std"]) else row["sigma_NMAD std"] for row in measured.values()]
    axes.barh(list(measured), heights, xerr=errors, color="C0", label=data)
    axes.barh(
        list(published),
        list(published.values()),
        color="0.9",
        edgecolor="0.4",
        hatch="//",
        label="real data, published",
    )
    ends = [height + error for height, error in zip(heights, errors, strict=True)] + list(published.values())
    for place, (end, value) in enumerate(zip(ends, (*heights, *published.values()), strict=True)):
        axes.text(end, place, f" {value:.4f}", va="center", fontsize="small")
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 1.3 * np.nanmax([*ends, *published.values()])), xlabel=rf"$\sigma_\mathrm{{NMAD}}$, ${NEAR}$"
    )
    axes.tick_params(axis="y", labelsize="small")
    axes.legend(fontsize="small", frameon=False)


def masking(table: Table) -> Figure:
    """Scores against the fraction hidden: above, of the image, without a spectrum; below, of the spectrum."""
    plot = Figure(figsize=(12, 6.5), layout="constrained")
    names = (
        (f"sigma_NMAD, {NEAR}", r"$\sigma_\mathrm{NMAD}$"),
        (f"sigma_NMAD, {EVERYWHERE}", r"$\sigma_\mathrm{NMAD}$"),
        ("rms error", "rms error of hidden pixels / sky noise"),
        ("chi2", r"$\chi^2$ per hidden spectrum pixel"),
    )
    sweeps = (
        ("image hidden", IMAGE_SHARES, "no spectrum is seen"),
        ("spectrum hidden", SPECTRUM_SHARES, "a quarter of the image is seen"),
    )
    for axes, (along, ratios, title) in zip(plot.subplots(2, 3), sweeps, strict=True):
        hidden = zip(table["image hidden"], table["spectrum hidden"], strict=True)
        rows = table[[ratio in ratios for ratio in hidden]]
        rows.sort(along)
        for number, (score, text) in enumerate(names):
            panel = axes[max(0, number - 1)]
            panel.plot(rows[along], rows[score], "o-", ms=4, color=f"C{number}", label=score)
            panel.set(xlabel=f"share of {along}", ylabel=text)
        for panel in axes:
            panel.set_ylim(0, 1.1 * panel.dataLim.y1)
        axes[1].set_title(title, fontsize="medium")
        axes[0].legend(fontsize="small", frameon=False)
    return plot


def lines(fits: LineFits, cards: Mapping[str, Table]) -> Figure:
    """Height and width of detected lines against the true ones; fraction of detected lines.

    fits : those of the first scorecard; cards : scorecards by what is hidden.
    """
    plot = Figure(figsize=(13, 4), layout="constrained")
    height, width, share = plot.subplots(1, 3)
    present, is_detected = fits.signal_to_noise > PRESENT_SNR, detected(fits)
    for number, name in enumerate(LINES):
        shown = present[:, number] & is_detected[:, number]
        missed = present[:, number] & ~is_detected[:, number]
        for axes, column in ((height, "height"), (width, "fwhm")):
            true, rebuilt = fits.true[column][:, number], fits.rebuilt[column][:, number]
            axes.plot(true[shown], rebuilt[shown], ".", ms=4, alpha=0.6, color=f"C{number}", label=name)
            bottom = axes.get_xaxis_transform()
            axes.plot(true[missed], np.zeros(missed.sum()), "|", color="0.6", ms=12, transform=bottom)
    for axes, text in ((height, "height [rms of the spectrum]"), (width, "FWHM [Å]")):
        axes.set(xscale="log", yscale="log", xlabel=f"true {text}", ylabel=f"rebuilt {text}")
        ends = axes.get_xlim()
        axes.plot(ends, ends, color="black", lw=0.8)
    height.legend(fontsize="small", frameon=False, markerscale=2, ncols=2)
    for offset, (hidden, card) in zip((-0.2, 0.2), cards.items(), strict=True):
        rows = card[(card["true S/N"] == ">10") & (card["n"] > 0)]
        place = np.array([[ALL, *LINES].index(name) for name in rows["line"]])
        drawn = share.barh(place + offset, 100 * rows["detected"], 0.38, label=f"hidden {hidden} %")
        share.bar_label(drawn, [f"{n}" for n in rows["n"]], fontsize="x-small", padding=2)
    share.set_yticks(range(len(LINES) + 1), [ALL, *LINES])
    share.invert_yaxis()
    share.set(xlim=(0, 112), xlabel="rebuilt of lines with S/N > 10 [%]")
    share.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)
    return plot


def losses(examples: Sequence[Example], table: Table, waves: tuple[np.ndarray, np.ndarray]) -> Figure:
    """A row for each loss: a galaxy with the loss, rebuilt, and true; right, the scatter of the redshift.

    table : physical_masks.table; waves : wavelengths of the store and of the model.
    """
    plot = Figure(figsize=(12, 1.45 * len(examples)), layout="constrained")
    grid = GridSpec(len(examples), 4, plot, width_ratios=[1, 1, 1, 2.2])
    first: Axes | None = None
    for row, example in enumerate(examples):
        draw = draw_image_loss if example.loss.part == IMAGE else draw_spectrum_loss
        draw(plot, grid, row, example, waves)
        axes = plot.add_subplot(grid[row, 3], sharex=first)
        first = first or axes
        loss_bars(axes, table, example.loss, last=row == len(examples) - 1)
    return plot


def draw_image_loss(
    plot: Figure, grid: GridSpec, row: int, example: Example, waves: tuple[np.ndarray, np.ndarray]
) -> None:
    zero_point = example.zero_point
    seen = composite(example.image[None], zero_point=zero_point)[0]
    if example.rebuilt is None:
        rebuilt = np.full_like(seen, 255)
    else:
        hidden = example.rebuilt.image_hidden.numpy()
        filled = np.where(hidden, example.rebuilt.image.numpy(), example.image)
        rebuilt = composite(filled[None], zero_point=zero_point)[0]
        lost = example.loss.lost.min(0)  # in every band
        seen = np.where(lost[..., None], GREY, seen)
    true = composite(example.truth[0][None], zero_point=zero_point)[0]
    panels = {"as it comes": seen, "rebuilt": rebuilt, "true": true}
    for column, (title, pixels) in enumerate(panels.items()):
        axes = plot.add_subplot(grid[row, column])
        axes.imshow(pixels, origin="lower", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        if title == "rebuilt" and example.rebuilt is None:
            axes.text(
                0.5,
                0.5,
                "touches\nall tokens",
                transform=axes.transAxes,
                ha="center",
                va="center",
                fontsize=8,
            )
        if row == 0:
            axes.set_title(title, fontsize="medium")
        if column == 0:
            axes.set_ylabel(example.loss.name)


def draw_spectrum_loss(
    plot: Figure, grid: GridSpec, row: int, example: Example, waves: tuple[np.ndarray, np.ndarray]
) -> None:
    axes = plot.add_subplot(grid[row, :3])
    fine, coarse = waves
    assert example.rebuilt is not None, "the tokens of no loss are the whole spectrum"
    hidden = example.rebuilt.spectrum_hidden.numpy()
    full_height = axes.get_xaxis_transform()
    axes.fill_between(coarse, 0, 1, where=hidden, step="mid", color=HIDDEN, lw=0, transform=full_height)
    axes.plot(fine, example.spectrum, color="C1", lw=0.5, label="as it comes")
    axes.plot(fine, example.truth[1], color="0.3", lw=0.5, label="true")
    rebuilt = np.where(hidden, example.rebuilt.spectrum.numpy(), np.nan)
    axes.plot(coarse, rebuilt, color="C3", lw=1.3, label="rebuilt")
    low, high = np.percentile(example.truth[1], (0.1, 99.9))
    axes.set(xlim=(fine[0], fine[-1]), ylim=(low - 1, high + 1), ylabel=example.loss.name)
    axes.tick_params(labelsize="small")
    axes.legend(fontsize="x-small", ncols=3, frameon=False, loc="upper right")


def loss_bars(axes: Axes, table: Table, loss: DataLoss, last: bool) -> None:
    """Draw sigma_NMAD of all galaxies without the loss, with it, and with the affected tokens hidden."""
    rows = table[(table["part"] == loss.part) & ((table["loss"] == loss.name) | (table["judged"] == NOTHING))]
    colours = {NOTHING: "0.6", PIXELS: "C1", TOKENS: "C3"}
    scatter = rows[f"sigma_NMAD, {EVERYWHERE}"]
    axes.barh(list(rows["judged"]), scatter, color=[colours[method] for method in rows["judged"]])
    for place, value in enumerate(scatter):
        axes.text(value, place, f" {value:.4f}", va="center", fontsize="small")
    axes.invert_yaxis()
    axes.set_ylim(2.6, -0.6)
    axes.set_xlim(0, 1.2 * float(np.max(table[f"sigma_NMAD, {EVERYWHERE}"])))
    axes.tick_params(labelsize="small", labelbottom=last)
    if last:
        axes.set_xlabel(r"$\sigma_\mathrm{NMAD}$, all $z$")


def galaxy(
    name: str,
    wave: np.ndarray,
    truth: Batch,
    reconstruction: Reconstruction,
    fits: Mapping[str, tuple[np.void, np.void | None]],
    zero_point: float,
) -> Figure:
    """The paper's figures 1 and 2, with the fits of lines below.

    zero_point : AB magnitude of flux 1 of the images.
    fits : by name, the fit (lines.FIT) in the true and in the rebuilt spectrum, None if it was not detected.
    """
    plot = reconstruction_figure.figure(name, wave, truth, reconstruction, zero_point=zero_point)
    captions = []
    for line, (true, rebuilt) in fits.items():
        result = "not rebuilt" if rebuilt is None else f"rebuilt {caption(rebuilt)}"
        captions.append(f"{line}: true {caption(true)};  {result}")
    plot.supxlabel("\n".join(captions), fontsize="small")
    return plot


def caption(line: np.void) -> str:
    return f"{line['centre']:.1f} Å, height {line['height']:.2f}, FWHM {line['fwhm']:.1f} Å"
