"""The page of `mmae report`, part by part."""

from collections.abc import Iterator

import numpy as np

from catalogs.products.schema import CATALOGUE, FLAG_MEANINGS, REJECT_MEANINGS, Flag, Reject, columns
from mmae.layers.photometry import CENTRAL, RADII
from mmae.scores import metrics
from mmae.scores.catalogue.brightness import SIGMA
from mmae.scores.page import figures, html, light, planes, sky
from mmae.scores.page.facts import Facts
from mmae.scores.page.light import Colour, Judged, Reason
from mmae.scores.page.planes import Planes
from mmae.scores.page.sky import Depths

SAID: dict[Colour, str] = {
    "green": "Nothing speaks against using this catalogue as it is.",
    "amber": "Usable with care: read why.",
    "red": "Do not use it before you know why.",
}
CARDS = {
    "PZMODEL": "model, sha256",
    "PZTRAIN": "trained on",
    "PZCODE": "version of the program",
    "PZSCHEMA": "version of the columns",
    "PZINPIX": "pixels of the input, arcsec",
    "PZINZERO": "zero point of the input, AB mag",
}
FILES_LISTED = 20


def parts(
    title: str,
    facts: Facts,
    judged: Judged | None,
    quantiles: np.ndarray | None,
    composites: np.ndarray | None,
    beside: Planes | None,
    depths: Depths | None,
    made: str,
) -> Iterator[str]:
    """All of the page, from its title on.

    quantiles (m, 20): of the judged; composites (k, 64, 64, 3): of the examples (`figures.chosen`);
    beside: magnitudes of objects and of the training set; depths: of images; made: by what, and when.
    """
    reasons = light.reasons(facts, judged)
    yield f"<h1>{html.escape(title)}</h1>"
    yield html.paragraph(made, soft=True)
    yield traffic_light(reasons)
    yield from counts(facts)
    rows = facts.with_pdf
    if len(rows):
        yield from redshifts(facts, rows, judged)
        yield from likeness(facts)
    if beside is not None:
        yield html.picture(
            planes.drawn(beside),
            "planes of magnitude and colour",
            "AB magnitudes within 8 pixels. Where there are objects and no contour, nothing stands behind "
            "p(z): NO_SPECTRA_LIKE_IT.",
        )
        if beside.standing:
            yield html.paragraph(beside.standing)
    if (maps := sky.maps(facts, depths)) is not None:
        yield html.heading("On the sky")
        text = "Cells of HEALPix; an isolated patch, a stripe or a gradient is of the data, not of the sky."
        if depths is not None:
            text += (
                f" Depth: of {len(depths.depth):,} images, {SIGMA} sigma within {RADII[CENTRAL]:g} pixels."
            )
        yield html.picture(
            maps,
            "maps of density, redshift, width, flags, typicality, rejects and depth",
            text,
            photographs=True,
        )
    if len(rows):
        yield from examples(rows, composites)
    yield from truth(judged, quantiles)
    yield from provenance(facts)


def traffic_light(reasons: list[Reason]) -> str:
    colour = light.colour(reasons)
    items = "".join(
        f'<li><span class="dot {reason.colour}"></span><b>{html.escape(reason.finding)}</b>: '
        f"{html.escape(reason.remedy)}.</li>"
        for reason in reasons
    )
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<section class="light {colour}"><h2>{colour.title()}</h2>{SAID[colour]}{listed}</section>'


def counts(facts: Facts) -> Iterator[str]:
    yield html.heading("What is in it")
    lost = sum(facts.rejects.values())
    yield html.paragraph(
        f"{facts.objects:,} objects in {len(facts.paths):,} catalogue{'s' * (len(facts.paths) != 1)}: "
        f"{facts.rows:,} with a redshift, {lost:,} rejected."
    )
    if facts.every > 1:
        yield html.paragraph(f"Counts are of all rows; figures of one row in {facts.every}.", soft=True)
    share = 100 / max(1, facts.rows)
    yield html.table(
        ["flag", "meaning", "objects", "%"],
        [
            (flag.name or "", FLAG_MEANINGS[flag], facts.flags[flag], facts.flags[flag] * share)
            for flag in Flag
            if facts.flags[flag]
        ],
    )
    if lost:
        of_all = 100 / facts.objects
        yield html.table(
            ["rejected for", "meaning", "objects", "%"],
            [
                (reason, REJECT_MEANINGS[Reject(reason)], number, number * of_all)
                for reason, number in facts.rejects.most_common()
            ],
        )


def redshifts(facts: Facts, rows: np.ndarray, judged: Judged | None) -> Iterator[str]:
    yield html.heading("Redshifts")
    best = rows["PHOTOZ_BEST"].astype(np.float64)
    low, high = (rows[f"PHOTOZ_ERR68_{end}"].astype(np.float64) for end in ("MIN", "MAX"))
    yield html.beside(
        (
            html.picture(
                figures.redshifts(rows["PDF_QUANT"], best, judged and judged.z_spec),
                "distribution of redshifts",
                "n(z) as the mean of all p(z), and of their point estimates.",
            ),
            html.picture(
                figures.widths(best, low, high),
                "width of p(z) by redshift",
                "How sure p(z) is, by redshift; a jump is where a spectral break falls between two bands.",
            ),
        )
    )


def likeness(facts: Facts) -> Iterator[str]:
    distance, chance = facts.drift.distance, facts.drift.chance
    if np.isnan(distance):
        return
    yield html.heading("Is it like the training set?")
    yield html.picture(
        figures.scores(facts.drift.counts),
        "distribution of OOD_SCORE",
        f"OOD_SCORE is the share of galaxies less like the training set than this one. Its distribution is "
        f"{distance:.3f} from a flat one at most; above {chance:.3f} is beyond chance (1 %).",
    )


def examples(rows: np.ndarray, composites: np.ndarray | None) -> Iterator[str]:
    few, titles = figures.chosen(rows)
    yield html.heading("Examples of p(z)")
    yield html.picture(
        figures.examples(few, composites, titles),
        "p(z) of single objects",
        "Line: PHOTOZ_BEST; dashed: a spectroscopic redshift in the catalogue.",
        photographs=composites is not None,
    )


def truth(judged: Judged | None, quantiles: np.ndarray | None) -> Iterator[str]:
    yield html.heading("Against spectra")
    if judged is None or quantiles is None:
        yield html.paragraph(
            "No spectroscopic redshifts were given (--truth TABLE): nothing here is judged by them."
        )
        return
    number = len(judged.z_spec)
    yield html.paragraph(f"{number:,} objects that the model was not made with; {judged.source}.")
    found = metrics.point_metrics(judged.z_phot, judged.z_spec)
    yield html.table(
        ["figure", "value"],
        [
            *((name, float(value)) for name, value in found.items()),
            ("68 % intervals hold, %", 100 * judged.held),
        ],
    )
    yield html.beside(
        (
            html.picture(
                figures.calibration(quantiles, judged.z_spec),
                "calibration of p(z)",
                "Zero everywhere: p(z) are right. A bow: redshifts are off; an S: too narrow or too wide.",
            ),
        )
    )
    yield html.picture(
        figures.reliability(judged),
        "claimed and found risk and confidence",
        "In tenths of the objects; on the line, a cut on the column does what it says.",
    )


def provenance(facts: Facts) -> Iterator[str]:
    yield html.heading("Where it comes from")
    rows = [(text, str(facts.header[card])) for card, text in CARDS.items() if card in facts.header]
    yield html.table(["what", "value"], rows)
    listed = facts.paths[:FILES_LISTED]
    inputs = [
        (path.name, str(header.get("PZINPUT", "")))
        for path, header in zip(listed, facts.headers, strict=False)
    ]
    yield html.table(["catalogue", "input, sha256 of ids and positions"], inputs)
    if len(facts.paths) > FILES_LISTED:
        yield html.paragraph(f"and {len(facts.paths) - FILES_LISTED} more", soft=True)
    yield html.table(["column", "meaning"], [(c.name, c.comment) for c in columns(CATALOGUE)])
