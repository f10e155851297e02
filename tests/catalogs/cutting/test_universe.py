"""Sets of the Multimodal Universe: the same objects in each of its layouts, and what these leave open."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from pyarrow import parquet
from survey_files import noise, same_bits

from catalogs.store.cutouts import open_store
from catalogs.store.manifest import altered_files
from mmae import cli

N, SIDE, SIZE, PIXELS = 7, 24, 16, 60
BANDS = ("des-g", "des-r", "des-z")
IDS = 2**53 + 1 + np.arange(N)
WAVE = np.linspace(3600, 9800, PIXELS)


def draw():
    """Arrays of N objects by the names of the HDF5 layout."""
    mask = np.ones((N, len(BANDS), SIDE, SIDE), bool)  # True: good
    mask[2, 1, 10, 11] = False
    ivar = np.full((N, len(BANDS), SIDE, SIDE), 25, np.float32)
    ivar[3, 0, 9, 9] = 0
    scale = np.full((N, len(BANDS)), 0.262, np.float32)
    scale[5, 1] = 0.3
    return {
        "image_band": np.array([BANDS] * N, "S5"),
        "image_array": noise((N, len(BANDS), SIDE, SIDE)),
        "image_ivar": ivar,
        "image_mask": mask,
        "image_psf_fwhm": np.linspace(1, 2, N * len(BANDS), dtype=np.float32).reshape(N, -1),
        "image_scale": scale,
        "object_id": IDS,
        "ra": np.linspace(10, 11, N),
        "dec": np.linspace(-5, -4, N),
        "EBV": np.full(N, 0.05, np.float32),
        "mag": np.arange(N, dtype=np.float32),
    }


def spectra():
    flux = noise((N, PIXELS), 7)
    return {
        "spectrum_flux": flux,
        "spectrum_ivar": np.ones_like(flux),
        "spectrum_lambda": np.tile(WAVE, (N, 1)).astype(np.float32),
        "Z": np.linspace(0.1, 0.7, N),
    }


def write_hdf5(folder, arrays):
    """Two files by HEALPix cell, as of version 1; ids are numbers."""
    for cell, rows in ((1106, slice(0, 4)), (1107, slice(4, N))):
        path = folder / "set" / f"healpix={cell}" / "001-of-001.hdf5"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values[rows]


def catalogue(arrays):
    columns = {
        name: values for name, values in arrays.items() if not name.startswith(("image_", "spectrum_"))
    }
    return columns | {"object_id": [str(k) for k in arrays["object_id"]]}


def items(arrays, row):
    names = ("band", "flux", "ivar", "mask", "psf_fwhm", "scale")
    of = {name: arrays["image_array" if name == "flux" else f"image_{name}"][row] for name in names}
    of["band"] = [band.decode() for band in of["band"]]
    return {name: [np.asarray(v).tolist() for v in values] for name, values in of.items()}


def write_hats(folder, arrays, rows=range(N)):
    """Partitions of HATS, images a struct of lists, as the sets on Hugging Face; other files beside them."""
    top = folder / "set"
    for number, part in enumerate((rows[:3], rows[3:])):
        image = pa.array([items(arrays, row) for row in part])
        columns = {"image": image}
        if "spectrum_flux" in arrays:
            names = ("flux", "ivar", "lambda")
            columns["spectrum"] = pa.array(
                [{name: arrays[f"spectrum_{name}"][row].tolist() for name in names} for row in part]
            )
        columns |= {
            name: pa.array([values[row] for row in part]) for name, values in catalogue(arrays).items()
        }
        path = top / "dataset" / "Norder=2" / "Dir=0" / f"Npix={number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns), path, row_group_size=2)
    parquet.write_metadata(pa.schema([("object_id", pa.string())]), top / "dataset" / "_metadata")
    (top / "hats.properties").write_text("obs_collection=set\n")


def write_lists(folder, arrays):
    """One Parquet file whose images are lists of structs."""
    lists = []
    for row in range(N):
        item = items(arrays, row)
        lists.append([{name: values[k] for name, values in item.items()} for k in range(len(BANDS))])
    (folder / "set").mkdir()
    table = pa.table({"image": pa.array(lists)} | catalogue(arrays))
    parquet.write_table(table, folder / "set" / "train-00000-of-00001.parquet", row_group_size=3)


def run(folder, *flags, size=SIZE):
    arguments = [
        folder / "set",
        folder / "a.zarr",
        f"--size={size}",
        "--zero-point=22.5",
        "--shard-rows=64",
        *flags,
    ]
    return cli.run_command("cutouts", [str(argument) for argument in arguments])


def check(folder, arrays):
    store = open_store(folder / "a.zarr")
    assert not altered_files(folder / "a.zarr")
    assert (store.bands, store.pixel_scale, store.zero_point) == (
        ("decam_g", "decam_r", "decam_z"),
        0.262,
        22.5,
    )
    kept = [0, 1, 2, 3, 4, 6]
    assert store.column("object_id").tolist() == IDS[kept].tolist()
    expected = arrays["image_array"][:, :, 4:20, 4:20].copy()
    expected[3, 0, 5, 5] = np.nan
    assert same_bits(np.asarray(store.array("image")[:]), expected[kept])
    assert np.argwhere(store.column("mask")).tolist() == [[2, 6, 7]]
    np.testing.assert_allclose(store.column("noise"), 0.2, rtol=1e-6)
    np.testing.assert_allclose(store.column("psf_fwhm"), arrays["image_psf_fwhm"][kept])
    np.testing.assert_allclose(store.column("ebv"), 0.05)
    np.testing.assert_allclose(store.column("ra"), arrays["ra"][kept])
    assert store.column("columns/mag").tolist() == kept
    rejects = Table.read(folder / "a.zarr.rejects.ecsv")
    assert rejects["object_id"].tolist() == [IDS[5]]
    assert rejects["reason"].tolist() == ["PIXEL_SCALE"]
    return store


@pytest.mark.parametrize("layout", [write_hdf5, write_hats, write_lists])
def test_every_layout_gives_the_same_store(tmp_path, layout):
    arrays = draw()
    layout(tmp_path, arrays)
    assert run(tmp_path, "--mask-true", "good", "--columns", "mag") == cli.OK
    assert not check(tmp_path, arrays).has_spectra


@pytest.mark.parametrize("layout", [write_hdf5, write_hats])
def test_spectra_and_redshifts_make_a_training_store(tmp_path, layout):
    arrays = draw() | spectra()
    layout(tmp_path, arrays)
    assert run(tmp_path, "--mask-true", "good", "--columns", "mag") == cli.OK
    store = check(tmp_path, arrays)
    kept = [0, 1, 2, 3, 4, 6]
    assert store.has_spectra
    np.testing.assert_allclose(store.wave, WAVE, rtol=1e-6)
    assert same_bits(store.column("flux"), arrays["spectrum_flux"][kept])
    np.testing.assert_allclose(store.column("redshift"), arrays["Z"][kept])


def test_an_object_without_a_spectrum_or_without_the_bands(tmp_path):
    arrays = draw() | spectra()
    write_hats(tmp_path, arrays)
    path = tmp_path / "set/dataset/Norder=2/Dir=0/Npix=0.parquet"
    table = parquet.read_table(path, partitioning=None).to_pylist()
    table[0]["spectrum"] = None
    table[1]["image"]["band"] = ["x", "y", "w"]
    parquet.write_table(pa.Table.from_pylist(table), path)
    assert run(tmp_path, "--mask-true", "good") == cli.OK
    store = open_store(tmp_path / "a.zarr")
    assert store.column("object_id").tolist() == IDS[[0, 2, 3, 4, 6]].tolist()
    assert not store.column("flux")[0].any()
    assert store.column("flux")[1].any()
    rejects = Table.read(tmp_path / "a.zarr.rejects.ecsv")
    assert rejects["reason"].tolist() == ["NO_IMAGE", "PIXEL_SCALE"]


def test_a_mask_of_all_bands_as_of_its_legacy_surveys(tmp_path):
    arrays = draw()
    arrays["image_mask"] = arrays["image_mask"].all(1)
    write_hdf5(tmp_path, arrays)
    assert run(tmp_path, "--mask-true", "good", "--columns", "mag", "--bands", *BANDS) == cli.OK
    check(tmp_path, arrays)


def test_some_bands_in_another_order(tmp_path):
    arrays = draw()
    write_hats(tmp_path, arrays)
    assert run(tmp_path, "--mask-true", "unused", "--bands", "decam_z", "decam_g") == cli.OK
    store = open_store(tmp_path / "a.zarr")
    assert store.bands == ("decam_z", "decam_g")
    assert not store.has("mask")
    assert store.column("object_id").tolist() == IDS.tolist()  # the odd scale is of r
    assert same_bits(np.asarray(store.array("image")[0]), arrays["image_array"][0, [2, 0], 4:20, 4:20])


@pytest.mark.parametrize("layout", [write_hdf5, write_hats])
def test_a_cut_leaves_each_object_its_image(tmp_path, layout):
    """Of rows of both files, and of the row that is rejected."""
    arrays = draw() | spectra()
    layout(tmp_path, arrays)
    assert run(tmp_path, "--mask-true=good", "--where", "mag >= 2 and mag != 4") == cli.OK
    store, kept = open_store(tmp_path / "a.zarr"), [2, 3, 6]
    assert store.column("object_id").tolist() == IDS[kept].tolist()
    assert same_bits(np.asarray(store.array("image")[:, 2]), arrays["image_array"][kept, 2, 4:20, 4:20])
    assert same_bits(store.column("flux"), arrays["spectrum_flux"][kept])
    assert Table.read(tmp_path / "a.zarr.rejects.ecsv")["object_id"].tolist() == [IDS[5]]


@pytest.mark.parametrize(
    ("change", "flags", "code", "sentence"),
    [
        (
            {},
            ["--mask-true=good", "--zero-point=-1"],
            cli.USAGE,
            "--zero-point must be a positive number",
        ),
        ({}, [], cli.REFUSED, "pass --mask-true good, bad or unused"),
        (
            {},
            ["--mask-true=good", "--pixel-scale=0.2"],
            cli.REFUSED,
            "has pixel scale 0.262, --pixel-scale says",
        ),
        (
            {"object_id": np.array(["0421p022-7410"] * N, "S16")},
            ["--mask-true=good"],
            cli.REFUSED,
            "--id row",
        ),
        ({}, ["--mask-true=good", "--bands", "des-g", "des-i"], cli.REFUSED, "no image is of the band des-i"),
        ({"image_array": None}, ["--mask-true=good"], cli.USAGE, "is no set with images"),
        ({"image_scale": np.ones(N)}, ["--mask-true=good"], cli.REFUSED, "image_scale is of shape (4,)"),
        (
            {"image_scale": np.full((N, 3), np.nan)},
            ["--mask-true=good"],
            cli.REFUSED,
            "does not say its pixel scale (arcsec): pass --pixel-scale",
        ),
        (
            {"image_psf_fwhm": np.ones(N)},
            ["--mask-true=good"],
            cli.REFUSED,
            "image_psf_fwhm is of shape (4,)",
        ),
    ],
)
def test_what_a_set_leaves_open_is_asked_for(tmp_path, capsys, change, flags, code, sentence):
    arrays = {name: values for name, values in (draw() | change).items() if values is not None}
    write_hdf5(tmp_path, arrays)
    assert run(tmp_path, *flags) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("layout", [write_hdf5, write_hats])
def test_a_truncated_file_is_refused(tmp_path, capsys, layout):
    layout(tmp_path, draw())
    path = sorted(path for path in (tmp_path / "set").rglob("*") if path.suffix in (".hdf5", ".parquet"))[-1]
    path.write_bytes(path.read_bytes()[:-100])
    assert run(tmp_path, "--mask-true=good") == cli.REFUSED
    error = capsys.readouterr().err
    assert f"{path} does not open" in error
    assert error.count("\n") == 1
