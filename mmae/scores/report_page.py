"""The report of `mmae reproduce`: a page with its tables and figures, and a file of all its numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from astropy.table import Table
from matplotlib.figure import Figure

from catalogs import atomic
from catalogs.products.screen import MAX_NO_DATA
from mmae.scores.line_scores import (
    ABSENT_SNR,
    CLEAR_SNR,
    MISSED_RATIO_ERROR,
    N_SIGMA,
    PRESENT_SNR,
)
from mmae.scores.photoz_scores import PAPER
from mmae.scores.physical_masks import BAD_PIXELS, RESIDUAL

PAGE, SCORES = "report.md", "scores.json"
DPI = 150
KEYS = {
    "reconstruction": ("hidden", "galaxies"),
    "lines": ("hidden", "line", "true S/N"),
    "ratios": ("hidden", "ratio"),
    "photoz": ("hidden", "range"),
    "masking": ("image hidden", "spectrum hidden"),
    "losses": ("loss", "part", "judged"),
}
"""Tables in the order of the page, and the key columns of each."""


class Section(NamedTuple):
    title: str
    text: str
    tables: tuple[str, ...]
    figures: tuple[str, ...]
    """Prefixes of the names of the figures."""


GALAXIES = f"""The first galaxies of the test split, in the order of the store, about the redshifts of the
paper's figures, whose line (Hα in figure 1, Lyα in figure 2) has S/N > {CLEAR_SNR:g} in the true spectrum and
was hidden. Figure 1 hides 75 % of image and spectrum, figure 2 the whole spectrum. True lines are fitted at
4.8 Å a pixel, rebuilt ones at the resolution of the model."""

RECONSTRUCTION = """Hidden: percent of the tokens of image and spectrum. Medians over galaxies.

- Hidden pixels of images: rms error, and median error (1.4826 median of absolute errors), in units of the
  sky noise; a model that knows all but the noise of the sky has 1 of either in faint galaxies. PSNR of the
  i band, dB.
- Images filled with what was rebuilt, beside the true ones, in an aperture of 12 pixels: relative error of
  the i flux and of its half-light radius, error of g - i in mag, length of the error of the ellipticity.
- Spectra: chi2 per hidden pixel of 24 Å. The noise is that of differences between neighbouring pixels of
  4.8 Å (pooled spectra have no ivar). Slope error: of a straight line through the pixels free of lines, rms
  per 1000 Å.
- flat: what a spectrum scores that is 0, the mean, everywhere."""

LINES = f"""A Gaussian on a straight continuum, fitted at the known redshift to the true and to the rebuilt
spectrum, where the whole window of the fit was hidden.

- detected: the rebuilt height is {N_SIGMA:g} times the scatter about the fit, its S/N in the noise of the
  true spectrum is as much, and the centre is off by no more than half the window; false lines: the first
  two, where the true S/N is below {ABSENT_SNR:g} (`n without` spectra)
- medians of errors: centre in Å, velocity in km/s; height, FWHM and flux relative to the true ones. Of a
  line that was not detected the centre is off by half the window, height and flux are 0 (error 1), the FWHM
  is the widest of a fit (error at least 1): no line at all is worse than a poor one
- height ratio and width ratio, rebuilt over true: of detected lines alone
- ratios of the fluxes of two lines of S/N > {CLEAR_SNR:g}: error and offset of log10(rebuilt / true);
  {MISSED_RATIO_ERROR:g} dex where one of them was not detected

There are no equivalent widths: a normalised spectrum has the mean 0, and no continuum to divide by. Grey
ticks in the figure are lines of S/N > {PRESENT_SNR:g} that were not detected."""

PHOTOZ = f"""The spectrum hidden; mean and standard deviation over masks. Of a p(z) the redshift of least
risk, before p(z) is calibrated. On 20,181 real galaxies the paper has sigma_NMAD {PAPER[0.25]} with 25 % of
the image hidden, {PAPER[0.0]} with none, at z < 0.4."""

MASKING = """Scatter of the redshift, and medians over all galaxies of the scores above."""

LOSSES = f"""Every loss is judged as it comes (NaN pixels and lost parts of a spectrum are 0), and with all
tokens it touches hidden, unless those are all. Of an image: the spectrum is hidden. Of a spectrum: the rest
of it is seen, beside the whole image. Refused: share of the images that `mmae infer` gives no redshift for
(over {100 * MAX_NO_DATA:g} % of a band has no data). Bleed trail: three columns through the galaxy in i. Bad
pixels: {100 * BAD_PIXELS:g} %. Sky lines: residuals of {RESIDUAL:g} times the noise. Errors and chi2 are
those of hidden tokens. The galaxy in the figure is brighter in i than nine of ten."""

SECTIONS = (
    Section("Galaxies rebuilt (figures 1 and 2)", GALAXIES, (), ("figure1_", "figure2_")),
    Section("Reconstruction (section 5.1)", RECONSTRUCTION, ("reconstruction",), ()),
    Section("Emission lines", LINES, ("lines", "ratios"), ("lines",)),
    Section("Redshifts (section 5.2, figure 3)", PHOTOZ, ("photoz",), ("figure3",)),
    Section("How much is hidden", MASKING, ("masking",), ("masking",)),
    Section("What instruments lose", LOSSES, ("losses",), ("losses",)),
)
"""The page, in the order of the paper."""


def write(out: Path, heading: str, tables: Mapping[str, Table], plots: Mapping[str, Figure]) -> None:
    """Write tables, figures, scores.json and last the page; delete figures of galaxies of an earlier page."""
    for name, table in tables.items():
        with atomic.replacing(out / f"{name}.ecsv") as temporary:
            table.write(temporary, format="ascii.ecsv")
    for name, plot in plots.items():
        with atomic.replacing(out / f"{name}.png") as temporary:
            plot.savefig(temporary, format="png", dpi=DPI, bbox_inches="tight")
    for old in (*out.glob("figure1_*.png"), *out.glob("figure2_*.png")):
        if old.stem not in plots:
            old.unlink()
    atomic.write_json(out / SCORES, numbers(tables))
    with atomic.replacing(out / PAGE) as temporary:
        temporary.write_text(page(heading, tables, plots))


def numbers(tables: Mapping[str, Table]) -> dict[str, float | None]:
    """All numbers by `table/key of the row/column`, None (null in JSON) where not finite."""
    values: dict[str, float | None] = {}
    for name, table in tables.items():
        for row in table:
            keys = [str(row[key]) for key in KEYS[name]]
            for column in table.colnames:
                if column not in KEYS[name]:
                    value = float(row[column])
                    values["/".join((name, *keys, column))] = value if math.isfinite(value) else None
    return values


def page(heading: str, tables: Mapping[str, Table], plots: Mapping[str, Figure]) -> str:
    parts = ["# What the model makes of hidden galaxies", heading]
    for section in SECTIONS:
        parts += [f"## {section.title}", section.text]
        parts += [markdown(tables[name]) for name in section.tables]
        parts += [f"![{name}]({name}.png)" for name in plots if name.startswith(section.figures)]
    return "\n\n".join(parts) + "\n"


def markdown(table: Table) -> str:
    lines = [table.colnames, ["---"] * len(table.colnames)]
    lines += [[cell(row[name]) for name in table.colnames] for row in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("|dz|", "abs(dz)")


def cell(value: object) -> str:
    """Format a cell: texts and counts unchanged, floats with four digits, `-` for NaN."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)
