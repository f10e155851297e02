"""`mmae store` as a user runs it: info, verify, preview."""

import os
import tracemalloc

import numpy as np
import pytest
import zarr
from matplotlib.image import imread

from catalogs.bands import HSC
from catalogs.store import cutouts
from catalogs.store import format as cutout_format
from catalogs.store.flux_statistics import FluxStatistics
from catalogs.store.preview import NO_VALUE, composite
from catalogs.store.sampling import spread
from mmae import cli

N, SHARD_ROWS = 300, 128
FOREIGN = {"bands": list(HSC), "pixel_scale": 0.168, "zero_point": 27.0}


def run(*argv):
    return cli.run_command("store", [str(argument) for argument in argv])


def rows_of(data):
    return lambda start, stop: {name: values[start:stop] for name, values in data.items()}


def columns(image):
    n = len(image)
    return {"image": image, "object_id": np.arange(n) + 10**17, "ra": np.ones(n), "dec": np.ones(n)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "tile.zarr"
    image = np.random.default_rng(0).normal(size=(N, 5, 8, 8)).astype(np.float32)
    cutouts.write(path, rows_of(columns(image)), n=N, survey="test", size=8, shard_rows=SHARD_ROWS)
    return path


@pytest.fixture
def foreign(tmp_path):
    """A store of another program, in 5 chunks of 4 rows an array."""
    path, rng = tmp_path / "foreign.zarr", np.random.default_rng(1)
    group = zarr.create_group(path, attributes=FOREIGN)
    for name, values in columns(rng.normal(size=(20, 5, 8, 8)).astype(np.float32)).items():
        group.create_array(name, data=values, chunks=(4, *values.shape[1:]))
    return path


# ---------------------------------------------------------------- verify


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def flip(file):
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size - 100)


def unlink(file):
    file.unlink()


DAMAGES = {
    truncate: "bytes long, was written with",
    flip: "has other content than was written",
    zero: "has other content than was written",
    unlink: "is missing",
}


def test_an_intact_store_verifies(store, capsys):
    assert run("verify", store) == cli.OK
    assert "every file is what its manifest says" in capsys.readouterr().out


def test_a_store_is_named_from_inside(store, monkeypatch, capsys):
    for folder, name in ((store, "."), (store / "image", "..")):
        monkeypatch.chdir(folder)
        assert run("verify", name) == cli.OK
        assert "every file is what its manifest says" in capsys.readouterr().out


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.items(), ids=lambda x: getattr(x, "__name__", "-"))
@pytest.mark.parametrize("file", ["image/c/1/0/0/0", "object_id/c/0"])
def test_verify_names_damaged_files(store, capsys, file, damage, sentence):
    damage(store / file)
    assert run("verify", store) == cli.REFUSED
    captured = capsys.readouterr()
    (line,) = [line for line in captured.out.splitlines() if line.startswith(file)]
    assert sentence in line
    assert "is damaged, in 1 files: write the store again, or copy it again" in captured.err


def test_verify_names_each_of_many(store, capsys):
    for name, damage in (
        ("image/c/0/0/0/0", flip),
        ("ra/c/1", unlink),
        ("zarr.json", lambda f: f.write_text("{}")),
    ):
        damage(store / name)
    (store / "image/c/7").mkdir()
    (store / "image/c/7/stray").touch()
    assert run("verify", store) == cli.REFUSED
    named = {line.split(":")[0] for line in capsys.readouterr().out.splitlines() if ": " in line}
    assert named == {"image/c/0/0/0/0", "ra/c/1", "zarr.json", "image/c/7/stray"}


def test_verify_needs_the_manifest_of_a_store_of_ours(store, capsys):
    cutout_format.manifest_path(store).unlink()
    assert run("verify", store) == cli.REFUSED
    assert "has no manifest (tile.zarr.manifest.json)" in capsys.readouterr().err


def test_a_store_of_another_program_is_decoded(foreign, capsys):
    assert run("verify", foreign) == cli.OK
    output = capsys.readouterr().out
    assert "every chunk that is there decodes" in output
    assert "image: without checksums (crc32c)" in output
    truncate(foreign / "image/c/3/0/0/0")
    (foreign / "ra/c/2").unlink()
    assert run("verify", foreign) == cli.REFUSED
    output = capsys.readouterr().out
    assert "image/c/3/0/0/0: does not decode" in output
    assert "ra/c/2: is missing: lost, or left out as it holds nothing but 0.0" in output


@pytest.mark.parametrize("shards", [None, (8,)])
def test_checksums_of_other_programs_are_checked(foreign, capsys, shards):
    group = zarr.open_group(foreign)
    del group["dec"]
    codec = zarr.codecs.Crc32cCodec()
    group.create_array("dec", data=np.ones(20) + np.arange(20), chunks=(4,), shards=shards, compressors=codec)
    file = foreign / "dec/c/1"
    content = bytearray(file.read_bytes())
    content[9] ^= 1
    file.write_bytes(content)
    assert run("verify", foreign) == cli.REFUSED
    output = capsys.readouterr().out
    assert "dec/c/1: does not decode (Stored and computed checksum do not match" in output
    assert "dec: without checksums" not in output


# ---------------------------------------------------------------- info


def parse_tables(output):
    """Rows of the printed tables, by their first column."""
    cells = ([cell for cell in line.strip().split("  ") if cell] for line in output.splitlines())
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells if row}


def test_the_numbers_of_info(tmp_path, capsys):
    """One object of 4 x 4 pixels; g: 0 to 15, r: 0.5 but for a NaN, an infinity and 70000, i: -16 to -1."""
    image = np.zeros((1, 5, 4, 4), np.float32)
    image[0, 0] = np.arange(16).reshape(4, 4)
    image[0, 1] = 0.5
    image[0, 1, 0, :3] = np.nan, np.inf, 70000
    image[0, 2] = -1 - image[0, 0]
    path, wave = tmp_path / "a.zarr", np.linspace(3600.0, 9824.0, 6)
    data = columns(image) | {"flux": np.ones((1, 6)), "ivar": np.ones((1, 6)), "redshift": np.array([0.25])}
    cutouts.write(path, rows_of(data), n=1, survey="tiny", size=4, shard_rows=64, wave=wave, zero_point=30.0)
    assert run("info", path) == cli.OK
    rows = parse_tables(capsys.readouterr().out)
    assert rows["objects"] == ["1"]
    assert rows["survey"] == ["tiny"]
    assert rows["bands"] == ["hsc_g hsc_r hsc_i hsc_z hsc_y"]
    assert rows["pixel scale"] == ["0.168 arcsec"]
    assert rows["zero point"] == ["30 AB mag"]
    assert rows["spectra"] == ["6 pixels, 3600 to 9824 angstrom"]
    assert rows["redshifts"] == ["0.2500 to 0.2500"]
    assert rows["image"][:4] == ["1x5x4x4", "float32", "64x5x4x4", "64x5x4x4"]
    assert rows["image"][5] == "crc32c"
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert rows["on disk"] == [f"{stored / 1e6:.1f} MB, {stored:,} bytes an object"]
    # the median is the 8th of 16 values: 7; the deviations from it 0 1 1 2 2 .. 7 7 8: the 8th is 4
    assert rows["median"] == ["7", "0.5", "-9", "0", "0"]
    assert rows["sigma (1.4826 MAD)"] == ["5.93", "0", "5.93", "0", "0"]
    assert rows["1 %"] == ["0", "0.5", "-16", "0", "0"]
    assert rows["99 %"] == ["15", "7.002e+04", "-1", "0", "0"]
    assert rows["least"] == ["0", "0.5", "-16", "0", "0"]
    assert rows["most"] == ["15", "7e+04", "-1", "0", "0"]
    assert rows["NaN"] == ["0", "1", "0", "0", "0"]
    assert rows["infinite"] == ["0", "1", "0", "0", "0"]
    assert rows["share beyond float16"] == ["0", "0.062", "0", "0", "0"]


def test_quantiles_agree_with_numpy():
    values = np.random.default_rng(0).normal(0.01, 0.05, 10**5).astype(np.float32)
    flux = FluxStatistics()
    for part in np.array_split(values, 7):
        flux.add(part)
    for share in (0.01, 0.3, 0.5, 0.99):
        assert flux.quantile(share) == pytest.approx(np.quantile(values, share), rel=1e-3)
    deviation = np.abs(values - np.median(values))
    assert flux.sigma == pytest.approx(1.4826 * np.median(deviation), rel=1e-3)
    assert (flux.minimum, flux.maximum) == (values.min(), values.max())


@pytest.mark.parametrize(
    ("flags", "rows"), [([], "300 of 300"), (["--rows", "64"], "64 of 300"), (["--rows=0"], "300 of 300")]
)
def test_info_prints_how_many_rows_it_read(written, capsys, flags, rows):
    assert run("info", written, *flags) == cli.OK
    assert f"{rows} rows read" in capsys.readouterr().out


def test_info_leaves_out_what_is_damaged(store, capsys):
    flip(store / "image/c/2/0/0/0")
    assert run("info", store) == cli.OK
    assert "300 of 300 rows read, 44 of them damaged" in capsys.readouterr().out


def test_info_prints_names_as_they_are(tmp_path, capsys):
    """Brackets and colons mean styles and emoji to rich."""
    path = tmp_path / "a[b].zarr"
    cutouts.write(path, rows_of({}), n=0, survey="HSC [/wide] :star:")
    assert run("info", path) == cli.OK
    captured = capsys.readouterr().out
    assert "a[b].zarr" in captured.replace("\n", "")
    assert parse_tables(captured)["survey"] == ["HSC [/wide] :star:"]


def test_an_empty_store_has_no_statistics(tmp_path, capsys):
    cutouts.write(tmp_path / "a.zarr", rows_of({}), n=0, survey="test")
    assert run("info", tmp_path / "a.zarr") == cli.OK
    assert "median" not in capsys.readouterr().out


def test_info_leaves_out_numbers_that_stand_for_no_redshift(tmp_path, capsys):
    redshift = np.array([0.25, -99, 9.9999, np.nan, 0.5])
    data = columns(np.ones((5, 5, 4, 4), np.float32)) | {name: np.ones((5, 6)) for name in ("flux", "ivar")}
    data["redshift"], wave = redshift, np.linspace(3600.0, 9824.0, 6)
    cutouts.write(tmp_path / "a.zarr", rows_of(data), n=5, survey="nines", size=4, wave=wave)
    assert run("info", tmp_path / "a.zarr") == cli.OK
    assert parse_tables(capsys.readouterr().out)["redshifts"] == ["0.2500 to 0.5000"]


def test_an_empty_store_of_spectra_is_whole(tmp_path, capsys):
    """A file without rows has no wavelengths to keep: they are 0, which zarr would leave out as no chunk."""
    cutouts.write(tmp_path / "a.zarr", rows_of({}), n=0, survey="test", wave=np.zeros(12))
    assert run("info", tmp_path / "a.zarr") == cli.OK
    assert parse_tables(capsys.readouterr().out)["redshifts"] == ["none"]


@pytest.mark.parametrize(
    ("n", "blocks", "ranges"),
    [
        (0, 4, []),
        (1, 4, [(0, 1)]),
        (130, 9, [(0, 64), (64, 128), (128, 130)]),
        (640, 2, [(0, 64), (576, 640)]),
        (640, 4, [(0, 64), (192, 256), (384, 448), (576, 640)]),
    ],
)
def test_blocks_are_spread_evenly(n, blocks, ranges):
    assert spread(n, blocks) == ranges


def test_the_memory_of_statistics_does_not_depend_on_the_pixels():
    flux, values = FluxStatistics(), np.random.default_rng(0).normal(size=10**5).astype(np.float32)
    flux.add(values)
    tracemalloc.start()
    for _ in range(20):
        flux.add(values)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated < 10**4


def test_a_store_without_attributes_needs_flags(foreign, capsys):
    zarr.open_group(foreign).attrs.clear()
    for command in ("info", "preview"):
        assert run(command, foreign) == cli.REFUSED
        assert "pass --bands" in capsys.readouterr().err
        flags = ["--bands", *HSC, "--pixel-scale", "0.2", "--zero-point", "31.4"]
        assert run(command, foreign, *flags) == cli.OK


# ---------------------------------------------------------------- preview


def test_a_composite_is_bright_where_the_galaxy_is_and_magenta_where_nothing_is_known():
    image = np.zeros((2, 5, 6, 6), np.float32)
    image[0, :, 3, 3] = 5
    image[1, 4, 0, 0] = np.nan  # in y, which is not shown
    image[1, 1, 1, 1] = np.inf
    image[1, 2, 2, 2] = 3e38
    rgb = composite(image)
    assert rgb.shape == (2, 6, 6, 3)
    assert rgb.dtype == np.uint8
    assert rgb[0, 3, 3].min() > 2 * rgb[0, 0, 0].max()
    magenta = (rgb == NO_VALUE).all(-1)
    assert np.argwhere(magenta).tolist() == [[1, 1, 1]]
    np.testing.assert_array_equal(composite(image[:1]), rgb[:1])


def test_real_galaxies_have_colours(real_data, tmp_path, capsys):
    stamps = np.load(real_data / "hsc_stamps64_grizy.npz")["images"]
    stamps[10, :, 10:20] = np.nan
    path = tmp_path / "hsc.zarr"
    cutouts.write(path, rows_of(columns(stamps)), n=len(stamps), survey="HSC")
    assert run("preview", path, "--count", 20) == cli.OK
    assert "wrote " in capsys.readouterr().out
    sheet = imread(tmp_path / "hsc.zarr.preview.png")
    assert sheet.shape[:2] == (3 * (128 + 6 + 30) + 6, 8 * (128 + 6) + 6)
    assert sheet[..., :3].std() > 0.1


def test_the_bands_that_are_drawn_are_named(tmp_path, capsys):
    bands = ["decam_g", "decam_r", "decam_z"]
    data = columns(np.zeros((1, 3, 8, 8), np.float32))
    cutouts.write(tmp_path / "a.zarr", rows_of(data), n=1, survey="test", size=8, bands=bands)
    assert run("preview", tmp_path / "a.zarr") == cli.OK
    assert "decam_z decam_r decam_g as red green blue" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_sheet_has_a_cell_per_object_and_shows_lost_rows_in_magenta(store, tmp_path, count):
    (store / "image/c/1/0/0/0").unlink()  # rows 128 to 255
    out = tmp_path / "sheet.png"
    assert run("preview", store, "--out", out, "--count", count) == cli.OK
    sheet = imread(out)
    rows, across = -(-count // 8), min(count, 8)
    assert sheet.shape[:2] == (rows * (128 + 6 + 30) + 6, across * (128 + 6) + 6)
    magenta = (sheet[..., :3] == (1, 0, 1)).all(-1).sum()
    lost = [row for row in np.linspace(0, N - 1, count).astype(int) if 128 <= row < 256]
    assert magenta == len(lost) * 128**2
    again = tmp_path / "again.png"
    assert run("preview", store, "--out", again, "--count", count) == cli.OK
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["info", "nowhere.zarr"], cli.USAGE, "does not exist"),
        (["verify", "nowhere.zarr"], cli.USAGE, "does not exist"),
        (["info", "gs://bucket/tile.zarr"], cli.USAGE, "gs://bucket/tile.zarr is a URL"),
        (["preview", "nowhere.zarr"], cli.USAGE, "does not exist"),
        (["preview", "tile.zarr", "--out", "nowhere/a.png"], cli.USAGE, "cannot be written"),
        (["preview", "tile.zarr", "--count", "0"], cli.USAGE, "--count"),
        (["info", "tile.zarr", "--rows", "-1"], cli.USAGE, "--rows"),
        (["preview", "empty.zarr"], cli.REFUSED, "no objects to draw"),
        (["verify", "."], cli.REFUSED, "is not a Zarr group"),
        ([], cli.USAGE, "info, verify, preview"),
        (["dance"], cli.USAGE, "dance"),
    ],
)
def test_an_error_is_one_sentence_and_writes_nothing(store, capsys, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(store.parent)
    cutouts.write(store.with_name("empty.zarr"), rows_of({}), n=0, survey="test")
    before = sorted(store.parent.iterdir())
    assert run(*arguments) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert sorted(store.parent.iterdir()) == before


def test_a_composite_looks_the_same_in_every_flux_unit():
    image = np.random.default_rng(0).uniform(0, 0.3, (2, 5, 8, 8)).astype(np.float32)
    njy = image * np.float32(10 ** (0.4 * (31.4 - 27)))
    assert np.abs(composite(njy, zero_point=31.4).astype(int) - composite(image)).max() <= 1
    assert (composite(njy) != composite(image)).mean() > 0.5
