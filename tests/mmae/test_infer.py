"""Inference as a user runs it: one command, a catalogue, exit codes."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from astropy.io import fits
from astropy.table import Table

from catalogs.bands import HSC
from catalogs.products import schema
from catalogs.store import cutouts
from catalogs.store import format as cutout_format
from catalogs.store.cutouts import open_store
from catalogs.store.resampling import resample
from mmae import cli
from mmae.bundles import columns
from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import engine_of_this_process
from mmae.bundles.image_mask import Masking
from mmae.production.plan import BATCH


def infer(folder, *flags, **environment):
    """Run the command in `folder`."""
    command = [sys.executable, "-m", "mmae.infer", *map(str, flags)]
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(folder)} | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.fixture
def refused_again(monkeypatch, capsys):
    """`refused_again(folder, *flags)`: what the command says that is refused there, in this process."""

    def infer(folder, *flags):
        monkeypatch.chdir(folder)
        assert cli.run_command("infer", list(map(str, flags))) == cli.REFUSED
        return capsys.readouterr().err

    return infer


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def undisturbed(catalogue):
    """Folder with the catalogue of the tile, made in one go by one worker."""
    return catalogue


def test_a_catalogue_can_be_evaluated_and_a_changed_bit_in_it_is_seen(undisturbed, tmp_path, capsys):
    catalogue = shutil.copy(undisturbed / "rubin_tile.photoz.fits", tmp_path)
    table = Table.read(catalogue, hdu=1)
    truth = Table({"OBJECT_ID": table["OBJECT_ID"], "Z_SPEC": table["PHOTOZ_POINT"]})
    truth.write(tmp_path / "truth.fits")
    argv = [str(catalogue), "--truth", str(tmp_path / "truth.fits"), "--out", str(tmp_path / "evaluation")]
    assert cli.run_command("evaluate", argv) == cli.OK
    content = bytearray(Path(catalogue).read_bytes())
    content[content.index(b"PZTRAIN = 'mock") + 12] ^= 1
    Path(catalogue).write_bytes(content)
    assert cli.run_command("evaluate", [*argv[:-1], str(tmp_path / "again")]) == cli.REFUSED
    assert "checksum of PRIMARY" in capsys.readouterr().err


def test_every_row_is_what_the_model_says(survey, bundle, undisturbed):
    store = open_store(survey / "rubin_tile.zarr")
    engine = engine_of_this_process(open_bundle(bundle), BATCH)
    predicted = columns.named(engine.table(store.images(0, 2048)[0], store.column("object_id")))
    with fits.open(undisturbed / "rubin_tile.photoz.fits", checksum=True) as hdus:
        table, header = hdus[schema.CATALOGUE].data, hdus[0].header
        assert (table["OBJECT_ID"] == store.column("object_id")).all()
        assert (table["RA"] == store.column("ra")).all()
        unlike = (
            table["PHOTOZ_FLAGS"] & schema.Flag.UNLIKE_TRAINING_PIXELS
        ) != 0  # a few with bright neighbours
        assert unlike.mean() < 0.05
        predicted["PHOTOZ_RISK_BEST"][unlike], predicted["PHOTOZ_CONF_BEST"][unlike] = 1, 0
        for name, expected in predicted.items():
            assert np.array_equal(table[name], expected, equal_nan=True), name
        assert np.isnan(table["Z_SPEC"]).all()
        assert (table["IN_TRAINING"] == -1).all()  # mock galaxies have no positions
        assert (hdus[schema.LEVELS].data["LEVEL"] == schema.QUANTILE_LEVELS).all()
        assert (table["NBANDS_USED"] == 5).all()
        assert (table["BANDMASK"] == 31).all()
        assert header["PZMODEL"] == open_bundle(bundle).sha256
        assert header["PZTRAIN"] == "mock"
        assert header["PZTAIL"] is False  # calibrated on some 40 galaxies


def test_the_whole_p_of_z_is_kept_where_it_is_asked_for(
    draw_tile, bundle, undisturbed, refused_again, tmp_path
):
    tile = draw_tile(tmp_path / "tile.zarr", 0, 128)
    flags = ("--catalog", tile, "--model", bundle, "--workers", 1)
    done = infer(tmp_path, *flags, "--pdf")
    assert done.returncode == 0, done.stderr
    with fits.open(tmp_path / "tile.photoz.fits", checksum=True) as hdus:
        assert [hdu.name for hdu in hdus[3:]] == [schema.PDF, schema.PDF_BINS]
        table, pdf, bins = (np.array(hdus[k].data) for k in (1, 3, 4))
    with fits.open(undisturbed / "rubin_tile.photoz.fits") as hdus:
        assert table.tobytes() == hdus[1].data[:128].tobytes()
    assert len(pdf) == len(table)
    assert np.allclose(pdf["PDF"].sum(1), 1, atol=1e-5)
    edges = np.append(bins["Z_MIN"], bins["Z_MAX"][-1])
    assert (bins["Z_MIN"][1:] == bins["Z_MAX"][:-1]).all()
    for row in (0, 77):
        reached = np.interp(
            np.log1p(table["PDF_QUANT"][row]), np.log1p(edges), [0, *pdf["PDF"][row].cumsum()]
        )
        assert np.allclose(reached, schema.QUANTILE_LEVELS, atol=1e-4)
    assert "was begun with another pdf" in refused_again(tmp_path, *flags)


def test_a_part_of_every_image_may_be_hidden_and_the_catalogue_says_so(
    draw_tile, bundle, refused_again, tmp_path
):
    tile = draw_tile(tmp_path / "tile.zarr", 0, 640)  # three units
    flags = ("--catalog", tile, "--model", bundle, "--precision", "fp32")
    flags += ("--image-mask", 0.25, "--draws", 2)
    done = infer(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    store = open_store(tile)
    engine = engine_of_this_process(open_bundle(bundle, "fp32", Masking(0.25, 2)), BATCH)
    with fits.open(tmp_path / "tile.photoz.fits") as hdus:
        assert (hdus[0].header["PZMASK"], hdus[0].header["PZDRAWS"]) == (0.25, 2)
        redshift = hdus[schema.CATALOGUE].data["PHOTOZ_POINT"]
    said = columns.named(engine.table(store.images(0, 640)[0], store.column("object_id")))
    assert (redshift == said["PHOTOZ_POINT"]).all()
    assert "was begun with another draws" in refused_again(tmp_path, *flags[:-2], "--draws", 3)


def test_workers_make_no_difference(survey, bundle, undisturbed, tmp_path):
    done = infer(
        tmp_path,
        "--catalog",
        survey / "rubin_tile.zarr",
        "--model",
        bundle,
        "--out",
        tmp_path,
        "--workers",
        2,
    )
    assert done.returncode == 0, done.stderr
    for name in ("rubin_tile.photoz.fits", "rubin_tile.rejects.fits"):
        assert sha256(tmp_path / name) == sha256(undisturbed / name)
    again = infer(tmp_path, "--catalog", survey / "rubin_tile.zarr", "--model", bundle, "--out", tmp_path)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_other_chunking_makes_no_difference(survey, bundle, undisturbed, tmp_path):
    """A store made by another hand: no manifest, chunks of 100, float64 holding float32 values."""
    source = open_store(survey / "rubin_tile.zarr")
    attributes = {"bands": list("grizy"), "pixel_scale": 0.168, "zero_point": 27.0}
    group = zarr.create_group(tmp_path / "rubin_tile.zarr", attributes=attributes)
    for name in cutout_format.REQUIRED:
        values = source.array(name)[:]
        dtype = "float64" if name == "image" else values.dtype
        group.create_array(name, data=values.astype(dtype), chunks=(100, *values.shape[1:]))
    done = infer(tmp_path, "--catalog", "rubin_tile.zarr", "--model", bundle)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "rubin_tile.photoz.fits") == sha256(undisturbed / "rubin_tile.photoz.fits")
    shutil.copytree(tmp_path / "rubin_tile.zarr", tmp_path / "staged", copy_function=shutil.copy)  # new times
    shutil.rmtree(tmp_path / "rubin_tile.zarr")
    (tmp_path / "staged").rename(tmp_path / "rubin_tile.zarr")
    again = infer(tmp_path, "--catalog", "rubin_tile.zarr", "--model", bundle)
    assert "is finished already; nothing to do" in again.stdout, again.stderr


def test_fluxes_of_another_unit_are_brought_to_that_of_the_model(survey, bundle, refused_again, tmp_path):
    """nJy have the zero point 31.4; sentinels are numbers of the file, whatever its unit."""
    source = cutouts.open_store(survey / "rubin_tile.zarr")
    rows = {name: source.column(name, 0, 256) for name in ("object_id", "ra", "dec")}
    image = source.images(0, 256)[0]
    for name, zero_point in (("own", 27.0), ("njy", 31.4)):
        pixels = image * np.float32(10 ** (0.4 * (zero_point - 27.0)))
        pixels[3, :, 30:34, 30:34] = -999.0
        block = rows | {"image": pixels}
        path = tmp_path / f"{name}.zarr"
        cutouts.write(path, lambda a, b: block, n=256, survey="mock", shard_rows=256, zero_point=zero_point)  # noqa: B023
    done = infer(tmp_path, "--catalog", "*.zarr", "--model", bundle, "--precision", "fp32")
    assert done.returncode == cli.OK, done.stderr
    assert "warning" not in done.stdout
    own, njy = (Table.read(tmp_path / f"{name}.photoz.fits", hdu=1) for name in ("own", "njy"))
    moved = np.abs(njy["PHOTOZ_POINT"] - own["PHOTOZ_POINT"]) / (1 + own["PHOTOZ_POINT"])
    assert np.median(moved) < 1e-6
    assert moved.max() < 1e-4
    assert (njy["PHOTOZ_FLAGS"] == own["PHOTOZ_FLAGS"]).all()
    assert own["PHOTOZ_FLAGS"][3] & 1
    header = fits.getheader(tmp_path / "njy.photoz.fits")
    assert (header["PZZEROPT"], header["PZINZERO"]) == (27.0, 31.4)
    changed = refused_again(tmp_path, "--catalog", path, "--model", bundle, "--zero-point", 30)
    assert "has zero_point 31.4, --zero-point says 30" in changed


def test_pixels_of_another_scale_are_brought_to_that_of_the_model(survey, bundle, refused_again, tmp_path):
    """The same objects at 0.2 arcsec, in a store of ours, and in another whose scale the user states."""
    source = cutouts.open_store(survey / "rubin_tile.zarr")
    rows = {name: source.column(name, 0, 256) for name in ("object_id", "ra", "dec")}
    image = source.images(0, 256)[0]
    coarse = resample(image, 0.2 / 0.168)[..., 6:59, 6:59]  # 53 pixels: those that 64 of 0.168 arcsec fill
    for name, pixels, scale in (("own", image, 0.168), ("coarse", coarse, 0.2)):
        block = rows | {"image": pixels}
        cutouts.write(
            tmp_path / f"{name}.zarr",
            lambda a, b: {key: values[a:b] for key, values in block.items()},  # noqa: B023
            n=256,
            survey="mock",
            size=len(pixels[0, 0]),
            shard_rows=64,
            pixel_scale=scale,
        )
    done = infer(tmp_path, "--catalog", "*.zarr", "--model", bundle, "--workers", 2)
    assert done.returncode == cli.OK, done.stderr
    assert "warning" not in done.stdout
    own, moved = (Table.read(tmp_path / f"{name}.photoz.fits", hdu=1) for name in ("own", "coarse"))
    difference = np.abs(moved["PHOTOZ_POINT"] - own["PHOTOZ_POINT"]) / (1 + own["PHOTOZ_POINT"])
    assert np.median(difference) < 5e-3
    assert (own["PHOTOZ_FLAGS"] & schema.Flag.RESAMPLED == 0).all()
    assert (moved["PHOTOZ_FLAGS"] & schema.Flag.RESAMPLED != 0).all()
    for name, scale in (("own", 0.168), ("coarse", 0.2)):
        header = fits.getheader(tmp_path / f"{name}.photoz.fits")
        assert (header["PZPIXEL"], header["PZINPIX"]) == (0.168, scale)
        assert "quintic" in str(header["COMMENT"])
        assert json.loads((tmp_path / f"{name}.photoz" / "plan.json").read_text())["pixel_scale"] == scale

    group = zarr.create_group(tmp_path / "other" / "coarse.zarr", attributes={"bands": list("grizy")})
    for name, values in (rows | {"image": coarse}).items():
        group.create_array(name, data=values, chunks=(100, *values.shape[1:]))
    flags = ("--catalog", "other/coarse.zarr", "--model", bundle, "--workers", 1, "--zero-point", 27)
    done = infer(tmp_path, *flags, "--pixel-scale", 0.2)
    assert done.returncode == cli.OK, done.stderr
    assert sha256(tmp_path / "other/coarse.photoz.fits") == sha256(tmp_path / "coarse.photoz.fits")
    again = refused_again(tmp_path, *flags, "--pixel-scale", 0.21)
    assert "was begun with another pixel_scale" in again


def test_bad_rows_are_rejected_with_their_reason_and_disturb_no_other(survey, bundle, undisturbed, tmp_path):
    source = open_store(survey / "rubin_tile.zarr")
    spoiled = {3: np.nan, 700: np.inf, 2047: 5.0}

    def rows(start, stop):
        content = {name: source.column(name, start, stop) for name in ("object_id", "ra", "dec")}
        content["image"], _ = source.images(start, stop)
        for row, value in spoiled.items():
            if start <= row < stop:
                content["image"][row - start, 2] = value
        if start <= 10 < stop:
            content["image"][10 - start, 0, 0, 0] = np.nan
        if start <= 701 < stop:
            content["image"][701 - start, :4] = 0
        return content

    cutouts.write(tmp_path / "rubin_tile.zarr", rows, n=2048, survey="mock", shard_rows=128)
    shard = tmp_path / "rubin_tile.zarr/image/c/5/0/0/0"  # rows 640 to 767: a bit flips in the chunk of 704
    content = bytearray(shard.read_bytes())
    content[len(content) * 3 // 4] ^= 4
    shard.write_bytes(content)

    done = infer(tmp_path, "--catalog", "rubin_tile.zarr", "--model", bundle)
    assert done.returncode == 0, done.stderr
    expected = {700: "INFINITE", 701: "FEW_BANDS", 2047: "CONSTANT_BAND"}
    expected |= dict.fromkeys(range(704, 768), "DAMAGED")
    ids = source.column("object_id")
    with fits.open(tmp_path / "rubin_tile.rejects.fits") as hdus:
        rejects = hdus[schema.REJECTS].data
        assert dict(zip(rejects["OBJECT_ID"], rejects["REASON"], strict=True)) == {
            ids[row]: reason for row, reason in expected.items()
        }
        assert np.isnan(rejects["PHOTOZ_POINT"]).all()
    with (
        fits.open(tmp_path / "rubin_tile.photoz.fits") as hdus,
        fits.open(undisturbed / "rubin_tile.photoz.fits") as others,
    ):
        kept = np.setdiff1d(np.arange(2048), [3, 10, *expected])
        here, there = hdus[1].data, others[1].data
        touched = np.isin(here["OBJECT_ID"], ids[[3, 10]])
        missing, masked = here[touched]
        assert missing["PHOTOZ_FLAGS"] & schema.Flag.MISSING_BAND
        assert (missing["NBANDS_USED"], missing["BANDMASK"]) == (4, 0b11011)
        assert masked["PHOTOZ_FLAGS"] & schema.Flag.MASKED_PIXELS
        assert (masked["NBANDS_USED"], masked["BANDMASK"]) == (5, 0b11111)
        assert [hdus[0].header[f"PZBAND{bit}"] for bit in range(5)] == list(HSC)
        assert here[~touched].tobytes() == there[kept].tobytes()


def test_an_empty_tile_gives_an_empty_catalogue(bundle, tmp_path):
    cutouts.write(tmp_path / "empty.zarr", lambda a, b: {}, n=0, survey="mock")
    done = infer(tmp_path, "--catalog", "empty.zarr", "--model", bundle, "--out", "a/new/folder")
    assert done.returncode == 0, done.stderr
    with fits.open(tmp_path / "a/new/folder/empty.photoz.fits", checksum=True) as hdus:
        assert len(hdus[schema.CATALOGUE].data) == 0


def test_the_model_is_the_flag_else_the_variable_else_the_newest_run(survey, bundle, tmp_path):
    missing = str(tmp_path / "missing.zarr")
    for run in ("old", "new"):
        shutil.copytree(bundle, tmp_path / "runs" / run / "bundle")
    (tmp_path / "runs" / "new" / "bundle" / "card.json").touch()
    variable = shutil.copytree(bundle, tmp_path / "variable")
    newest = infer(tmp_path, "--catalog", missing)
    assert newest.stdout.startswith("model: runs/new/bundle ")
    by_variable = infer(tmp_path, "--catalog", missing, MMAE_MODEL=str(variable))
    assert by_variable.stdout.startswith(f"model: {variable} ")
    by_flag = infer(tmp_path, "--catalog", missing, "--model", bundle, MMAE_MODEL=str(variable))
    assert by_flag.stdout.startswith(f"model: {bundle} ")


def test_two_runs_never_mix(survey, bundle, trained, undisturbed, refused_again, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "there")
    other = shutil.copytree(survey / "rubin_tile.zarr", tmp_path / "rubin_tile.zarr")
    group = zarr.open_group(other)
    group.attrs["format"] = "someone else's"
    flags = ("--model", bundle, "--out", folder, "--catalog")
    assert "was begun with another store_fingerprint" in refused_again(tmp_path, *flags, other)
    shutil.rmtree(folder / "rubin_tile.photoz")
    assert "is of another run" in refused_again(tmp_path, *flags, survey / "rubin_tile.zarr")


def test_a_failure_to_write_in_an_actor_is_one_sentence_and_resumable(survey, bundle, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "there")
    run = folder / "rubin_tile.photoz"
    for product in (
        folder / "rubin_tile.photoz.fits",
        folder / "rubin_tile.rejects.fits",
        run / "finished.json",
    ):
        product.unlink()
    (run / "parts").rename(tmp_path / "parts")
    (run / "parts").touch()  # a file: nothing can be written under it
    flags = ["--catalog", survey / "rubin_tile.zarr", "--model", bundle, "--out", folder]
    done = infer(tmp_path, *flags)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "Not a directory" in done.stderr
    (run / "parts").unlink()
    (tmp_path / "parts").rename(run / "parts")
    assert infer(tmp_path, *flags).returncode == 0
    for name in ("rubin_tile.photoz.fits", "rubin_tile.rejects.fits"):
        assert sha256(folder / name) == sha256(undisturbed / name)


REFUSALS = {
    "missing path": (["--catalog", "nowhere.zarr"], 2, "does not exist"),
    "a file": (["--catalog", "file.zarr"], 2, "is a file"),
    "an empty directory": (["--catalog", "empty.zarr"], 3, "not a Zarr group"),
    "no image": (["--catalog", "imageless.zarr"], 3, "has no array `image`"),
    "output inside input": (["--catalog", "tile.zarr", "--out", "tile.zarr"], 2, "inside the store"),
    "output below a file": (["--catalog", "tile.zarr", "--out", "file.zarr/out"], 2, "is not a directory"),
    "no workers": (["--catalog", "tile.zarr", "--workers", "-1"], 2, "must not be negative"),
    "unknown option": (["--catalog", "tile.zarr", "--bogus"], 2, "--bogus"),
    "newline in the name": (["--catalog", "two\nlines.zarr"], 2, "rename the store"),
    "pixels over twice as large": (["--catalog", "coarse.zarr"], 3, "pixel_scale 0.4"),
    "pixels under half as large": (["--catalog", "fine.zarr"], 3, "pixel_scale 0.08"),
    "a zero point of no survey": (["--catalog", "bright.zarr"], 3, "zero_point 60.0"),
    "an id twice": (["--catalog", "twice.zarr"], 3, "object_id 7 stands there twice"),
    "velocities": (["--catalog", "velocities.zarr"], 3, "a redshift is 21000, as no galaxy has"),
    "an id of 2**63": (["--catalog", "overflow.zarr"], 3, "object_id 9223372036854775808 does not fit"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """A folder full of things that are no tile."""
    folder = tmp_path_factory.mktemp("refused")
    n = 10
    rows = {
        "image": np.random.default_rng(0).normal(size=(n, 5, 64, 64)).astype(np.float32),
        "object_id": np.arange(n),
        "ra": np.zeros(n),
        "dec": np.zeros(n),
    }
    for name, scale in {
        "tile": {},
        "two\nlines": {},
        "coarse": {"pixel_scale": 0.4},
        "fine": {"pixel_scale": 0.08},
        "bright": {"zero_point": 60.0},
    }.items():
        cutouts.write(folder / f"{name}.zarr", lambda a, b: rows, n=n, survey="test", **scale)
    ids = rows["object_id"].copy()
    ids[3] = 7
    cutouts.write(folder / "twice.zarr", lambda a, b: rows | {"object_id": ids}, n=n, survey="test")
    redshift = np.full(n, 21_000.0)
    cutouts.write(
        folder / "velocities.zarr",
        lambda a, b: rows | {"redshift": redshift},
        n=n,
        survey="test",
        known=["redshift"],
    )
    attributes = {"bands": list("grizy"), "pixel_scale": 0.168, "zero_point": 27.0}
    group = zarr.create_group(folder / "overflow.zarr", attributes=attributes)
    for name, values in (rows | {"object_id": np.arange(n, dtype=np.uint64) + 2**63 - n + 1}).items():
        group.create_array(name, data=values)
    (folder / "file.zarr").touch()
    (folder / "empty.zarr").mkdir()
    zarr.create_group(folder / "imageless.zarr").create_array("object_id", shape=(n,), dtype="int64")
    return folder


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_sentence_and_leaves_nothing(case, refused, bundle, monkeypatch, capsys):
    flags, code, sentence = REFUSALS[case]
    before = sorted(refused.iterdir())
    monkeypatch.chdir(refused)
    found = cli.run_command("infer", [*flags, "--model", str(bundle)])
    error = capsys.readouterr().err
    assert found == code, error
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(refused.iterdir()) == before


def test_without_a_model_it_says_how_to_get_one(refused):
    done = infer(refused, "--catalog", "tile.zarr")
    assert done.returncode == 2
    assert "mmae train" in done.stderr
    assert done.stderr.count("\n") == 1
