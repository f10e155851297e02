"""`mmae compare`: objects gained and lost, redshifts that moved, and why."""

import numpy as np
import pytest
from astropy.table import Table

from catalogs.products.schema import Flag, Reject
from catalogs.products.screen import REASON_DTYPE
from mmae import cli
from mmae.compare import Compare, main
from tests.written import N, write


def compare(*argv):
    return cli.run(main, Compare, [str(arg) for arg in argv], "mmae compare")


@pytest.fixture
def pair(tmp_path):
    """B lacks the first ten objects of A; ten redshifts moved for each of five reasons."""
    a = write(tmp_path / "a")
    z = Table.read(a, hdu=1)["PHOTOZ_BEST"].astype(float)
    best, second, flags = z.copy(), np.full(N, np.nan), np.zeros(N, np.int64)
    groups = {name: slice(10 * k, 10 * k + 10) for k, name in enumerate(("lost", *WHY), 1)}
    for name in WHY:
        best[groups[name]] = z[groups[name]] + 0.5 * (1 + z[groups[name]])
    second[groups["peaks"]] = z[groups["peaks"]]
    flags[groups["flags"]] = Flag.BLEED_TRAIL.value
    observed = np.ones((N, 5), bool)
    observed[groups["bands"], 2] = False
    flags[groups["bands"]] = Flag.MISSING_BAND.value
    wide = np.zeros(N, np.int64)
    wide[groups["wide"]] = Flag.BROAD.value
    reason = np.full(N, "", REASON_DTYPE)
    reason[groups["lost"]] = Reject.NO_DATA.value
    a = write(tmp_path / "a", flags=wide)
    columns = {"PHOTOZ_BEST": best, "PHOTOZ_MODE2": second}
    b = write(tmp_path / "b", columns=columns, flags=flags, reason=reason, observed=observed)
    return a, b


WHY = {
    "bands": "other bands were used",
    "flags": "other flags of the image",
    "peaks": "the other of two peaks of p(z)",
    "wide": "p(z) was wide",
    "model": "model, calibration or pixels",
}


def test_every_mover_has_its_reason(pair, tmp_path, capsys):
    assert compare(*pair, "--out", tmp_path / "out") == cli.OK
    said = capsys.readouterr().out
    assert f"{N - 10:>8} objects in both" in said
    assert "10 in A alone (10 rejected for NO_DATA)" in said
    assert "0 in B alone\n" in said
    assert "50 redshifts moved by over 0.15 (1 + z)" in said
    moved = Table.read(tmp_path / "out/moved.ecsv")
    first = 2**60 + 20
    for k, why in enumerate(WHY.values()):
        assert f"{10:>8} {why}" in said
        of_it = np.sort(moved["OBJECT_ID"][moved["WHY"] == why])
        assert of_it.tolist() == list(range(first + 10 * k, first + 10 * k + 10))
    np.testing.assert_allclose(moved["DZ"], 0.5, rtol=1e-5)
    assert [line.split()[:3] for line in said.splitlines() if line.startswith("BLEED_TRAIL")] == [
        ["BLEED_TRAIL", "10", "0"]
    ]


def test_a_catalogue_has_not_changed_from_itself(pair, tmp_path, capsys):
    assert compare(pair[0], pair[0]) == cli.OK
    said = capsys.readouterr().out
    assert "0 redshifts moved" in said
    assert said.count(", the same") == 4
    differences = Table.read(pair[0].parent / "tile.photoz.comparison/differences.ecsv")
    assert differences["objects"][0] == N
    assert differences["objects"][1:].sum() == N
    assert not differences["|dz|, 95 %"].any()


def test_ranges_of_a_cluster_of_galaxies_are_told_apart(tmp_path):
    z = np.random.default_rng(1).normal(0.5, 0.001, N)
    a = write(tmp_path / "a", columns={"PHOTOZ_BEST": z})
    assert compare(a, a, "--out", tmp_path / "out") == cli.OK
    differences = Table.read(tmp_path / "out/differences.ecsv")
    assert differences["objects"].tolist() == [N] + [N // 5] * 5
    assert len(set(differences["range"])) == 6


def test_catalogues_of_other_objects_are_refused(pair, tmp_path, capsys):
    other = write(tmp_path / "c", first=2**61)
    assert compare(pair[0], other) == cli.REFUSED
    assert "no object in common" in capsys.readouterr().err
    Table({"a": [1.0]}).write(tmp_path / "a.fits")
    assert compare(pair[0], tmp_path / "a.fits") == cli.REFUSED
    assert not list(tmp_path.rglob("*.comparison"))


def test_a_catalogue_of_rejects_alone_has_no_object_in_common(pair, tmp_path, capsys):
    none = write(tmp_path / "c", reason=np.full(N, Reject.NO_DATA.value, REASON_DTYPE))
    assert compare(pair[0], none) == cli.REFUSED
    assert "no object in common" in capsys.readouterr().err
