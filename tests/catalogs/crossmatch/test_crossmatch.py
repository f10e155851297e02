"""A simulated survey: pairs are matched, cut and written as designed, in any order of its files."""

import dataclasses
import itertools
import json
import shlex
import shutil
import subprocess
import sys

import desi_release
import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, angular_separation
from astropy.io import fits
from desi_release import Target

from catalogs import atomic, ingest
from catalogs.crossmatch import command as crossmatch
from catalogs.crossmatch.pairs import match
from catalogs.crossmatch.sky import CELLS, Positions
from catalogs.errors import UsageError
from catalogs.store import cutouts
from catalogs.store.format import manifest_path
from catalogs.surveys import zcatalog
from catalogs.surveys.desi import read_coadd
from catalogs.surveys.galaxiesml import open_galaxiesml
from mmae import cli

ARCSEC = 1 / 3600
RAY = 1500
"""Pixel that a cosmic ray hits."""


class Survey:
    """Galaxies and targets, added position by position."""

    def __init__(self):
        self.galaxies, self.targets, self.positions = [], [], 0

    def position(self):
        """The next position, 36 arcsec from the last; the first ones are at poles, wraps and cell corners."""
        self.positions += 1
        corner = CELLS.healpix_to_lonlat([5_000_000], 0, 0)
        edges = [(0.0, 1.0), (120.0, 90.0), (45.0, -90.0), (corner[0].deg[0], corner[1].deg[0])]
        return (
            (*edges, (359.99999, -3.0))[self.positions - 1]
            if self.positions <= 5
            else (150 + self.positions / 100, 2.0)
        )

    def galaxy(self, position, specz=0.3):
        self.galaxies.append((36_000_000_000_000_001 + 7 * len(self.galaxies), *position, specz))

    def target(self, position, offset=0.3, **properties):
        """Add a target `offset` arcsec away."""
        angle = len(self.targets) * u.rad
        sky = SkyCoord(*position, unit="deg").directional_offset_by(angle, offset * u.arcsec)
        target_id = properties.pop("target_id", 39_627_000_000_000_001 + 3 * len(self.targets))
        self.targets.append(Target(target_id, float(sky.ra.deg), float(sky.dec.deg), **properties))
        return self.targets[-1]

    def pair(self, offset=0.3, specz=0.3, **properties):
        position = self.position()
        self.galaxy(position, specz)
        return self.target(position, offset, **properties)


def simulate():
    """The simulated survey, and the number of pairs each cut must remove."""
    survey = Survey()
    for k in range(20):
        survey.pair(offset=0.04 * k, cosmic_rays=(RAY,) if k < 4 else ())
    for unknown in (np.nan, -99.0, 0.0, 0.33):  # no redshift to compare with; 0.33 is within 0.05 * 1.3
        survey.pair(specz=unknown)
    survey.pair(missing=0.79, deltachi2=15.0)
    survey.pair(offset=1.01)  # beyond the radius
    survey.galaxy(survey.position())
    survey.target(survey.position())
    survey.pair(objtype="SKY")
    removed = {
        "repeated spectra": 4,
        "stars": 3,
        "duplicates": 6,
        "bad redshifts": 5,
        "inconsistent redshifts": 2,
        "missing pixels": 3,
    }
    for k in range(4):  # the same target in two surveys: the deeper with ZWARN 0 is the primary
        first = survey.pair(tsnr2=100, zwarn=0)
        survey.target(
            (first.ra, first.dec),
            0.0,
            target_id=first.target_id,
            survey="sv3",
            primary=False,
            tsnr2=(50, 900)[k % 2],
            zwarn=(0, 4)[k % 2],
            z=0.9,
        )
    for _ in range(3):
        survey.pair(spectype="STAR", z=-1e-4)
    for first, second in ((0.2, 0.6), (0.6, 0.2), (0.0, 0.0)):  # two targets near one galaxy
        position = survey.position()
        survey.galaxy(position)
        survey.target(position, first)
        survey.target(position, second)
    for shift in (0.5, -0.5, 0.2):  # two galaxies near one target
        position = survey.position()
        survey.galaxy(position)
        survey.galaxy((position[0], position[1] + shift * ARCSEC))
        survey.target(position, 0.0)
    for bad in ({"zwarn": 4}, {"zwarn": 4}, {"zwarn": 1 << 9}, {"z": np.nan}, {"z": -0.001}):
        survey.pair(**bad)
    for specz in (0.22, 2.0):
        survey.pair(specz=specz)
    for _ in range(3):
        survey.pair(missing=0.81)
    return survey, removed


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    survey, cuts = simulate()
    folder = tmp_path_factory.mktemp("simulated")
    desi_release.write_release(folder / "desi", survey.targets)
    desi_release.write_galaxies(folder / "galaxies.hdf5", *zip(*survey.galaxies, strict=True))
    return folder, survey, cuts


def run(folder, out, *galaxies, **flags):
    files = galaxies or (folder / "galaxies.hdf5",)
    crossmatch.main(crossmatch.Crossmatch(files, **({"desi": folder / "desi", "out": out} | flags)))
    return out


@pytest.fixture(scope="module")
def matched(simulated):
    return run(simulated[0], simulated[0] / "spectra.hdf5")


def test_every_cut_removes_the_pairs_made_for_it(simulated, matched):
    report = json.loads((matched.parent / "spectra.hdf5.crossmatch.json").read_text())
    assert {line["name"]: line["removed"] for line in report["cuts"]} == simulated[2]
    assert [line["before"] for line in report["cuts"][1:]] == [line["after"] for line in report["cuts"][:-1]]
    kept = 20 + 4 + 1 + 4 + 3 + 3
    assert report["cuts"][-1]["after"] == kept
    assert report["cuts"][0]["before"] == kept + sum(simulated[2].values())
    assert report["artefact_pixels"] == 4
    with open_galaxiesml(matched) as source:
        assert source.n == kept


def nearest_galaxy(survey, target):
    _, ra, dec, _ = (np.radians(column) for column in np.array(survey.galaxies, float).T)
    separation = angular_separation(ra, dec, *np.radians([target.ra, target.dec]))
    return survey.galaxies[separation.argmin()]


def test_each_galaxy_is_written_with_its_own_spectrum(simulated, matched):
    folder, survey, _ = simulated
    targets = {(target.target_id, target.survey): target for target in survey.targets}
    with h5py.File(matched) as file:
        rows = {name: file[name][:] for name in ("object_id", "ra", "dec", "specz_redshift")}
        target_id = file["targetid"][:].astype(int)
        order = []
        for k, name in enumerate(target_id):
            target = targets[name, "main"]
            order.append((f"{target.folder}/coadd-{target.name}", name))
            np.testing.assert_equal([rows[column][k] for column in rows], nearest_galaxy(survey, target))
            image = desi_release.image_of(rows["object_id"][k], 64)
            np.testing.assert_array_equal(file["image"][k], image)
            assert file["DESI_fibermap/DESI_redshift"][k] == target.z
            spectrum = read_coadd(folder / "desi" / order[-1][0], np.array([name]))
            flux, ivar = spectrum.flux[0].copy(), spectrum.ivar[0].copy()
            for pixel in target.cosmic_rays:
                ivar[pixel] = 0
                flux[pixel] = np.median(flux[ivar > 0])
            np.testing.assert_array_equal(file["spectrum/flux"][k], flux)
            np.testing.assert_array_equal(file["spectrum/ivar"][k], ivar)
            np.testing.assert_array_equal(file["spectrum/wave"][k], spectrum.wave.astype(np.float32))
        assert order == sorted(order)
        assert file["spectrum/flux"].shape == (len(order), 7781)


def shuffled(rows, seed):
    return [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]


@pytest.mark.parametrize("rows_a_block", [8, 2**15])
def test_neither_the_order_of_rows_nor_blocks_change_a_byte(
    simulated, matched, tmp_path, monkeypatch, rows_a_block
):
    folder, survey, _ = simulated
    monkeypatch.setattr(zcatalog, "ROWS", rows_a_block)
    desi_release.write_zall(tmp_path / "zall.fits", shuffled(survey.targets, rows_a_block))
    columns = zip(*shuffled(survey.galaxies, rows_a_block), strict=True)
    desi_release.write_galaxies(tmp_path / "galaxies.hdf5", *columns)
    out = run(folder, tmp_path / "a.hdf5", tmp_path / "galaxies.hdf5", zall=tmp_path / "zall.fits")
    assert out.read_bytes() == matched.read_bytes()


def of_main_dark(survey):
    return [target for target in survey.targets if (target.survey, target.program) == ("main", "dark")]


def test_a_catalogue_of_one_survey_and_program_may_name_them_in_its_header(simulated, tmp_path):
    """As zpix-main-dark.fits; also with the names of table and columns that other catalogues have."""
    folder, survey, _ = simulated
    without = ("SURVEY", "PROGRAM", "TARGET_RA", "TARGET_DEC")
    other_names = {"without": without, "name": "REDSHIFTS", "SURVEY": "main", "PROGRAM": "dark"}
    for path, options in ((tmp_path / "zall.fits", {}), (tmp_path / "zpix.fits", other_names)):
        desi_release.write_zall(path, of_main_dark(survey), **options)
        run(folder, path.with_suffix(".hdf5"), zall=path)
    assert (tmp_path / "zall.hdf5").read_bytes() == (tmp_path / "zpix.hdf5").read_bytes()


def test_a_catalogue_by_tile_names_the_coadds_of_tiles(simulated, matched, tmp_path):
    """As ztile-main-dark-cumulative.fits; here all spectra are of one petal of one tile."""
    folder, survey, _ = simulated
    coadd = tmp_path / "desi/tiles/cumulative/1000/20210517/coadd-3-1000-thru20210517.fits"
    coadd.parent.mkdir(parents=True)
    desi_release.write_coadd(coadd, of_main_dark(survey))
    tile = {"TILEID": 1000, "LASTNIGHT": 20210517, "PETAL_LOC": 3}
    desi_release.write_zall(tmp_path / "ztile.fits", of_main_dark(survey), ("HEALPIX",), added=tile)
    out = run(folder, tmp_path / "a.hdf5", desi=tmp_path / "desi", zall=tmp_path / "ztile.fits")
    with h5py.File(out) as by_tile, h5py.File(matched) as by_cell:
        ids = by_cell["targetid"][:].tolist()
        rows = [ids.index(name) for name in by_tile["targetid"][:].tolist()]
        assert len(rows) > 20
        for name in ("image", "spectrum/flux", "DESI_fibermap/DESI_redshift"):
            np.testing.assert_array_equal(by_tile[name][:], by_cell[name][:][rows])


def test_redrock_files_give_the_same_as_the_summary_catalogue(simulated, matched, tmp_path):
    shutil.copytree(simulated[0] / "desi" / "healpix", tmp_path / "desi" / "healpix")
    out = run(simulated[0], tmp_path / "a.hdf5", desi=tmp_path / "desi")
    assert out.read_bytes() == matched.read_bytes()


def test_galaxies_split_over_files_give_the_same_as_one_file(simulated, matched, tmp_path):
    halves = []
    for part in (np.s_[:20], np.s_[20:]):
        halves.append(tmp_path / f"{part.start}.hdf5")
        desi_release.write_galaxies(halves[-1], *zip(*simulated[1].galaxies[part], strict=True))
    assert run(simulated[0], tmp_path / "a.hdf5", *halves).read_bytes() == matched.read_bytes()


def test_the_store_is_the_same_as_from_ingest(simulated, matched, tmp_path):
    direct = run(simulated[0], tmp_path / "direct.zarr")
    ingest.main(ingest.Ingest(matched, tmp_path / "ingested.zarr"))
    assert manifest_path(direct).read_text() == manifest_path(tmp_path / "ingested.zarr").read_text()
    store = cutouts.open_store(direct)
    assert store.has_spectra
    weight = store.column("redshift_weight")
    assert sorted(weight)[0] == pytest.approx(0.99, abs=1e-6)  # of the one with DELTACHI2 15, the rest 500
    assert (np.sort(weight)[1:] > 1 - 1e-6).all()
    files = {"direct.zarr", "ingested.zarr"}
    files |= {f"{name}.manifest.json" for name in files} | {"direct.zarr.crossmatch.json"}
    assert {path.name for path in tmp_path.iterdir()} == files


def test_images_keep_their_size(simulated, tmp_path):
    survey = simulated[1]
    desi_release.write_galaxies(tmp_path / "g.hdf5", *zip(*survey.galaxies[:2], strict=True), size=127)
    with h5py.File(run(simulated[0], tmp_path / "a.hdf5", tmp_path / "g.hdf5")) as file:
        assert file["image"].shape == (2, 5, 127, 127)


# ---------------------------------------------------------------- the sky


def test_no_border_of_a_cell_or_of_a_coordinate_splits_a_pair():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    dec[:200] = np.copysign(90 - rng.uniform(0, 1, 200) ** 3, rng.normal(size=200))  # about the poles
    ra[200:400] = rng.choice([0.0, 360.0, 1e-5, 359.99999], 200)
    # corners of cells, those of the 12 base cells among them, where only 7 cells are neighbours
    cells = [*np.arange(12) * CELLS.nside**2, *rng.integers(0, CELLS.npix, 388)]
    lon, lat = CELLS.healpix_to_lonlat(cells, *rng.integers(0, 2, (2, 400)))
    ra[400:800], dec[400:800] = lon.deg, lat.deg
    centre = SkyCoord(ra, dec, unit="deg")
    moved = centre.directional_offset_by(rng.uniform(0, 360, 3000) * u.deg, 9.9 * u.arcsec)
    row, index, separation = Positions(ra, dec).within(moved.ra.deg, moved.dec.deg, 10.0)
    expected = moved[:, None].separation(centre[None]).arcsec  # all pairs
    pairs = np.argwhere(expected <= 10)
    order = np.lexsort((index, row))
    np.testing.assert_array_equal(np.stack([row, index], 1)[order], pairs)
    np.testing.assert_allclose(separation[order], expected[tuple(pairs.T)], atol=1e-6)
    across = CELLS.lonlat_to_healpix(moved.ra, moved.dec) != CELLS.lonlat_to_healpix(centre.ra, centre.dec)
    assert across.sum() > 500


def test_an_invalid_position_has_no_matches():
    positions = Positions(np.array([np.nan, 10.0, 10.0]), np.array([0.0, 91.0, 5.0]))
    assert positions.near(np.array([10.0, 200.0]), np.array([5.0, 5.0])).tolist() == [True, False]
    assert positions.within(np.array([10.0]), np.array([5.0]), 1.0)[1].tolist() == [2]


# ---------------------------------------------------------------- real files


def test_real_coadds_and_redrock_files(real_data, tmp_path):
    joined = np.load(real_data / "desi_spectra_7781px.npz")
    targets = {
        39633345008634465: (105.48977452, 56.66930006, 0.36874355),
        39089837499744649: (149.46540425, 1.79364675, 0.00726967),
    }
    ra, dec, z = zip(*targets.values(), strict=True)
    desi_release.write_galaxies(tmp_path / "g.hdf5", [11, 12], ra, np.array(dec) + 0.5 * ARCSEC, z)
    out = run(tmp_path, tmp_path / "a.hdf5", tmp_path / "g.hdf5", desi=real_data / "desi_coadds")
    with open_galaxiesml(out) as source:
        rows = source.rows(0, source.n)
    assert rows["object_id"].tolist() == list(targets)
    np.testing.assert_allclose(rows["redshift"], z, atol=1e-8)
    for k in range(2):
        (row,) = np.flatnonzero(np.char.startswith(joined["source"], ("fsf_coadd-4", "fsf_coadd-special")[k]))
        chi2_per_pixel = ((rows["flux"][k] - joined["flux"][row]) ** 2 * joined["ivar"][row]).mean()
        assert chi2_per_pixel < 1e-6


# ---------------------------------------------------------------- what is refused


def edit(path, change):
    """Rewrite a FITS file."""
    with fits.open(path, memmap=False) as hdus:
        change(hdus)
        hdus.writeto(path, overwrite=True, checksum=True)


def rename(old, new):
    def change(hdus):
        hdus[old].name = new

    return change


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-2880] ^= 1  # in the first byte of the last table
    path.write_bytes(content)


def forget_a_target(hdus):
    hdus["FIBERMAP"].data["TARGETID"] += 1


class Case:
    """Two matched galaxies and a release, to be damaged."""

    def __init__(self, folder):
        survey = Survey()
        for _ in range(6):
            survey.pair()
        self.survey, self.folder = survey, folder
        self.targets, self.galaxies = survey.targets[-1:], survey.galaxies[-1:]
        desi_release.write_release(folder / "desi", self.targets)
        self.release = folder / "desi"
        self.files = [self.write_galaxies()]
        self.options = {"--desi": self.release, "--out": folder / "out.hdf5"}
        self.zall = self.release / "zcatalog" / "v1" / "zall-pix-test.fits"
        (self.coadd,) = self.release.rglob("coadd-*.fits")
        (self.redrock,) = self.release.rglob("redrock-*.fits")

    def write_galaxies(self, name="galaxies.hdf5", **changes):
        columns = zip(*self.galaxies, strict=True)
        return desi_release.write_galaxies(self.folder / name, *columns, **changes)

    def write_zall(self, **changes):
        targets = [dataclasses.replace(target, **changes) for target in self.targets]
        desi_release.write_zall(self.zall, targets)


REFUSED = {
    "no ra": (lambda c: c.write_galaxies(ra=None), 3, "galaxies.hdf5 has no ra and dec"),
    "a redshift of text": (
        lambda c: c.write_galaxies(specz_redshift=[b"x"]),
        3,
        "specz_redshift is of shape (1,) and type object",
    ),
    "a galaxy twice": (lambda c: c.files.append(c.write_galaxies("b.hdf5")), 3, "is in two of the files"),
    "images of two sizes": (
        lambda c: c.files.append(c.write_galaxies("b.hdf5", image=np.zeros((1, 5, 65, 65)))),
        3,
        "images of different sizes",
    ),
    "no match": (lambda c: c.write_galaxies(dec=[50.0]), 3, "no galaxy is within 1 arcsec"),
    "only stars": (lambda c: c.write_zall(spectype="STAR"), 3, "no pair is left of 1"),
    "only empty spectra": (
        lambda c: (
            c.coadd.unlink(),
            desi_release.write_coadd(c.coadd, [dataclasses.replace(c.targets[0], missing=0.9)]),
        ),
        3,
        "no pair is left of 1",
    ),
    "no column SURVEY, Z": (
        lambda c: desi_release.write_zall(c.zall, c.targets, without=("SURVEY", "Z")),
        3,
        "zall-pix-test.fits has no column Z, SURVEY",
    ),
    "no table ZCATALOG": (lambda c: edit(c.zall, rename(1, "ZTILE")), 3, "has no table ZCATALOG"),
    "no rows": (lambda c: desi_release.write_zall(c.zall, []), 3, "zall-pix-test.fits has no rows"),
    "a summary catalogue cut in half": (lambda c: cut_in_half(c.zall), 3, "zall-pix-test.fits is damaged"),
    "a summary catalogue of text": (
        lambda c: c.zall.write_text("TARGETID,Z"),
        3,
        "zall-pix-test.fits is damaged",
    ),
    "a bit of the summary catalogue": (lambda c: flip_a_bit(c.zall), 3, "DATASUM verification failed"),
    "a coadd cut in half": (lambda c: cut_in_half(c.coadd), 3, "coadd-main-dark-27256.fits is damaged"),
    "another target in the coadd": (lambda c: edit(c.coadd, forget_a_target), 3, "has no spectrum of target"),
    "a coadd of unknown targets": (lambda c: edit(c.coadd, rename("FIBERMAP", "X")), 3, "has no FIBERMAP"),
    "redrock without redshifts": (
        lambda c: (c.zall.unlink(), edit(c.redrock, rename("REDSHIFTS", "X"))),
        3,
        "has no table REDSHIFTS",
    ),
    "redrock without positions": (
        lambda c: (c.zall.unlink(), edit(c.redrock, rename("FIBERMAP", "X"))),
        3,
        "has no column TARGET_RA, TARGET_DEC",
    ),
    "redrock of other targets": (
        lambda c: (c.zall.unlink(), edit(c.redrock, forget_a_target)),
        3,
        "FIBERMAP lacks target",
    ),
    "no redshifts": (lambda c: (c.zall.unlink(), c.redrock.unlink()), 3, "has no redshifts"),
    "two summary catalogues": (
        lambda c: shutil.copy(c.zall, c.release / "zall-pix-other.fits"),
        2,
        "has 2 summary catalogues",
    ),
    "no such summary catalogue": (
        lambda c: c.options.update({"--zall": "absent.fits"}),
        2,
        "there is no file absent",
    ),
    "no such folder": (lambda c: shutil.rmtree(c.release), 2, "is not a folder"),
    "a taken name": (lambda c: (c.folder / "out.hdf5").touch(), 2, "out.hdf5 exists already"),
    "a folder that cannot be made": (
        lambda c: c.options.update({"--out": c.files[0] / "a.hdf5"}),
        2,
        "a.hdf5 cannot be written",
    ),
    "another kind of output": (lambda c: c.options.update({"--out": "out.fits"}), 2, "must end in"),
    "no radius": (lambda c: c.options.update({"--radius": "0"}), 2, "--radius must be above 0"),
    "a huge radius": (lambda c: c.options.update({"--radius": "60"}), 2, "at most 10 arcsec"),
    "redshifts that never agree": (lambda c: c.options.update({"--max-dz": "nan"}), 2, "--max-dz must be"),
}


@pytest.mark.parametrize(("spoil", "code", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_refused_input_writes_nothing(tmp_path, capfd, spoil, code, sentence):
    case = Case(tmp_path)
    spoil(case)
    before = sorted(tmp_path.iterdir())
    arguments = [*case.files, *itertools.chain(*case.options.items())]
    assert cli.run_command("crossmatch", [str(argument) for argument in arguments]) == code
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error
    assert sorted(tmp_path.iterdir()) == before


def test_missing_coadds_are_listed_to_be_fetched(tmp_path, capfd):
    case = Case(tmp_path)
    case.coadd.unlink()
    arguments = [*case.files, *itertools.chain(*case.options.items())]
    assert cli.run_command("crossmatch", [str(argument) for argument in arguments]) == cli.REFUSED
    assert "lacks 1 of 1 coadds" in capfd.readouterr().err
    (missing,) = (tmp_path / "out.hdf5.missing.txt").read_text().split()
    assert case.release / missing == case.coadd
    assert not (tmp_path / "out.hdf5").exists()


def test_the_command_that_fetches_coadds_keeps_names_with_spaces_whole(tmp_path, capfd):
    case = Case(tmp_path)
    case.coadd.unlink()
    release = case.release.rename(tmp_path / "DESI release")
    arguments = [*case.files, "--desi", release, "--out", tmp_path / "my out.hdf5"]
    assert cli.run_command("crossmatch", [str(argument) for argument in arguments]) == cli.REFUSED
    words = shlex.split(capfd.readouterr().err.split("DR1: ")[1])
    assert words[words.index("-a") + 1] == f"{tmp_path}/my out.hdf5.missing.txt"
    assert words[words.index("-o") + 1] == f"{release}/%"


def test_one_process_writes_and_removes_leftovers_of_a_killed_one(tmp_path):
    case = Case(tmp_path)
    leftover = tmp_path / ".a.hdf5.partial"
    leftover.mkdir()
    (leftover / "spectra.hdf5").write_text("half")
    with atomic.owned(leftover), pytest.raises(UsageError, match="is being written by another process"):
        run(tmp_path, tmp_path / "a.hdf5", *case.files)
    assert run(tmp_path, tmp_path / "a.hdf5", *case.files).exists()
    assert not leftover.exists()


def test_an_output_of_another_process_is_not_replaced(tmp_path, monkeypatch):
    """It was finished while this process was still matching."""
    case, out = Case(tmp_path), tmp_path / "a.hdf5"

    def match_meanwhile(*arguments):
        out.write_text("another's")
        return match(*arguments)

    monkeypatch.setattr(crossmatch, "match", match_meanwhile)
    with pytest.raises(UsageError, match="exists already"):
        run(tmp_path, out, *case.files)
    assert out.read_text() == "another's"
    assert not list(tmp_path.glob("*a.hdf5?*"))


FULL = """
import resource, sys
from mmae import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
sys.exit(cli.run_command("crossmatch", sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["a.hdf5", "a.zarr"])
def test_a_full_disk_ends_in_a_sentence_and_leaves_no_files(simulated, tmp_path, name):
    arguments = [simulated[0] / "galaxies.hdf5", "--desi", simulated[0] / "desi", "--out", tmp_path / name]
    done = subprocess.run([sys.executable, "-c", FULL, *arguments], capture_output=True, text=True)
    assert done.returncode == cli.IO_FAILED
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_redrock_files_from_before_2021_and_prefixes_are_read(tmp_path):
    case = Case(tmp_path)
    case.zall.unlink()
    edit(case.redrock, rename("REDSHIFTS", "ZBEST"))
    case.redrock.rename(case.redrock.with_name("my_zbest-1.fits"))
    case.coadd.rename(case.coadd.with_name("my_coadd-1.fits"))
    with open_galaxiesml(run(tmp_path, tmp_path / "a.hdf5", *case.files)) as source:
        assert source.object_id.tolist() == [target.target_id for target in case.targets]
