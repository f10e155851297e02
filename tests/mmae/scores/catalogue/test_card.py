"""The report card on a terminal: nothing is folded, and no number cut."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from mmae.scores import metrics
from mmae.scores.catalogue import card, requirements, tomography
from mmae.scores.catalogue.card import Card
from mmae.scores.catalogue.requirements import PRESETS


def printed(parts):
    text = io.StringIO()
    console = Console(file=text, width=card.WIDTH)
    for part in parts:
        console.print(part, markup=False, highlight=False)
    return text.getvalue()


@pytest.mark.parametrize("survey", PRESETS)
def test_numbers_as_large_as_they_get(survey):
    """Ten million objects, most of them outliers; a column with a long name."""
    preset, rng = PRESETS[survey], np.random.default_rng(0)
    z_phot, z_spec = rng.uniform(0.1, 3, 400), rng.uniform(0.1, 3, 400)
    column = 1e5 * rng.random(400)
    rows = metrics.table(
        z_phot, z_spec, metrics.EDGES, 5, rng, {"A_NAME_OF_MORE_THAN_THIRTY_LETTERS": column}
    )
    outcomes = requirements.measure(preset, z_phot, z_spec, ("MAG_LSST_I", np.full(400, 20.0)), 5, rng)
    quantiles = np.sort(rng.uniform(0, 6, (400, 20)), 1)
    edges = requirements.edges(preset.bins, z_phot)
    bins = tomography.measure(z_phot, z_spec, quantiles, edges, preset.mean, 5, rng)
    many = Card(
        [row._replace(n=10**7) for row in rows],
        None,
        [outcome._replace(n=10**7, verdict="fail") for outcome in outcomes],
        [row._replace(n=10**7, by_pdf=-0.12345, by_pdf_error=0.12345) for row in bins],
    )
    lines = printed(card.parts(many, preset)).splitlines()
    assert max(map(len, lines)) <= card.WIDTH
    assert not any("…" in line for line in lines if "A_NAME" not in line)
    quarters = [line for line in lines if "A_NAME" in line]
    labels = [line[:32].strip() for line in quarters]
    assert [bool(re.match(r"\d+ <= A_NAME", label)) for label in labels] == [False, True, True, False]
    assert all(re.search(r"…? [<>]=? \d+$", label) for label in labels)
    assert all(line.rstrip().endswith("%") and "10000000" in line for line in quarters)
    tested = [line.split()[-len(preset.mean) :] for line in lines if "± 0.1235" in line]
    assert len(tested) == len(bins)
    assert all(set(verdicts) <= {"pass", "fail", "open"} for verdicts in tested if preset.mean)
