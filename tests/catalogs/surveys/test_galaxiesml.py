"""A GalaxiesML file becomes a store with the same content, or is refused entirely."""

import os
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from catalogs import ingest
from catalogs.bands import HSC
from catalogs.errors import InputRefused, UsageError
from catalogs.store import cutouts
from catalogs.surveys.galaxiesml import open_galaxiesml
from mmae import cli

N = 70


def draw(size=64, pixels=7783):
    """Datasets of a GalaxiesML-Spectra file, as it was released."""
    rng = np.random.default_rng(size)
    return {
        "image": rng.normal(size=(N, 5, size, size)).astype(np.float32),
        "spectrum/flux": rng.normal(size=(N, pixels)).astype(np.float32),
        "spectrum/ivar": rng.uniform(0, 2, (N, pixels)).astype(np.float32),
        "spectrum/wave": np.tile(3600 + 0.8 * np.arange(pixels, dtype=np.float32), (N, 1)),
        "DESI_fibermap/DESI_redshift": rng.uniform(0, 4, N),
        "targetid": np.array([str(39627600000000001 + k).encode() for k in rng.permutation(N)]),
    }


def without_spectra():
    """Datasets of a GalaxiesML file, with a catalogue column that is not read."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(N, 5, 64, 64)).astype(np.float32),
        "object_id": rng.permutation(N) + 36_000_000_000_000_001,
        "ra": rng.uniform(0, 360, N),
        "dec": rng.uniform(-90, 90, N),
        "g_cmodel_mag": rng.uniform(18, 25, N),
    }


def save(path, datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is not None:
                file[name] = values
    return path


def ingested(tmp_path, datasets):
    ingest.main(ingest.Ingest(save(tmp_path / "a.hdf5", datasets), tmp_path / "a.zarr", shard_rows=64))
    return cutouts.open_store(tmp_path / "a.zarr")


@pytest.fixture(scope="module")
def good():
    return draw()


# ---------------------------------------------------------------- content


@pytest.mark.parametrize("size", [64, 127])
@pytest.mark.parametrize("pixels", [7781, 7783])
def test_a_file_with_spectra_becomes_a_training_store(tmp_path, size, pixels):
    data = draw(size, pixels)
    store = ingested(tmp_path, data)
    low = {64: 0, 127: 31}[size]
    image, damaged = store.images(0, N)
    np.testing.assert_array_equal(image, data["image"][..., low : low + 64, low : low + 64])
    assert not damaged.any()
    assert store.has_spectra
    for column, name in (("flux", "spectrum/flux"), ("ivar", "spectrum/ivar")):
        np.testing.assert_array_equal(store.column(column), data[name])
    np.testing.assert_array_equal(store.column("redshift"), data["DESI_fibermap/DESI_redshift"])
    np.testing.assert_array_equal(store.wave, data["spectrum/wave"][0])
    assert store.column("object_id").tolist() == [int(name) for name in data["targetid"]]
    assert np.isnan(store.column("ra")).all()
    assert (store.bands, store.pixel_scale, store.zero_point) == (HSC, 0.168, 27.0)


def test_a_file_without_spectra_becomes_a_store_to_infer_on(tmp_path):
    data = without_spectra()
    store = ingested(tmp_path, data)
    assert not store.has_spectra
    np.testing.assert_array_equal(store.images(0, N)[0], data["image"])
    for name in ("object_id", "ra", "dec"):
        np.testing.assert_array_equal(store.column(name), data[name])


def test_a_file_of_no_galaxies_becomes_a_store_of_none(tmp_path, good):
    store = ingested(tmp_path, {name: values[:0] for name, values in good.items()})
    assert store.n == 0


@pytest.mark.parametrize("kind", [">f4", "<f8", ">f8"])
def test_the_way_numbers_are_stored_does_not_matter(tmp_path, good, kind):
    floats = {name: values.astype(kind) for name, values in good.items() if name != "targetid"}
    redshift = good["DESI_fibermap/DESI_redshift"]  # was float64: would lose digits
    store = ingested(tmp_path, good | floats | {"DESI_fibermap/DESI_redshift": redshift.astype(">f8")})
    np.testing.assert_array_equal(store.images(0, N)[0], good["image"])
    np.testing.assert_array_equal(store.column("flux"), good["spectrum/flux"])
    np.testing.assert_array_equal(store.column("redshift"), redshift)


@pytest.mark.parametrize("kind", ["S17", object, np.int64, ">i8", np.uint64])
def test_ids_may_be_text_or_numbers(tmp_path, good, kind):
    ids = [int(name) for name in good["targetid"]]
    values = np.array([str(i) for i in ids], kind) if kind in ("S17", object) else np.array(ids, kind)
    with open_galaxiesml(save(tmp_path / "a.hdf5", good | {"targetid": values})) as source:
        assert source.object_id.tolist() == ids


@pytest.mark.parametrize(
    ("attribute", "survey"), [(None, "HSC PDR2"), ("mock", "mock"), (np.bytes_(b"mock"), "mock")]
)
def test_a_file_may_name_its_survey(tmp_path, attribute, survey):
    path = save(tmp_path / "a.hdf5", without_spectra())
    if attribute is not None:
        with h5py.File(path, "a") as file:
            file.attrs["survey"] = attribute
    with open_galaxiesml(path) as source:
        assert source.survey == survey


# ---------------------------------------------------------------- what is refused


def change(**changes):
    """Replace datasets of a good file; `__` stands for the slash, None removes one."""

    def make(path, good):
        save(path, good | {name.replace("__", "/"): values for name, values in changes.items()})

    return make


def relink(make_link):
    """Move the spectra of a good file to another file."""

    def make(path, good):
        elsewhere = save(path.with_name("elsewhere.hdf5"), good)
        save(path, {name: values for name, values in good.items() if not name.startswith("spectrum/")})
        with h5py.File(path, "a") as file:
            make_link(file, elsewhere)

    return make


def external_link(file, elsewhere):
    file["spectrum"] = h5py.ExternalLink(elsewhere, "/spectrum")


def external_link_to_nothing(file, elsewhere):
    file["spectrum"] = h5py.ExternalLink("gone.hdf5", "/spectrum")


def external_link_behind_a_soft_one(file, elsewhere):
    file["aside"] = h5py.ExternalLink(elsewhere, "/spectrum")
    file["spectrum"] = h5py.SoftLink("/aside")


def link_to_itself(file, elsewhere):
    file["spectrum"] = h5py.SoftLink("/spectrum")


def external_storage(file, elsewhere):
    for name in ("flux", "ivar", "wave"):
        file.create_dataset(
            f"spectrum/{name}", (N, 7783), "f4", external=[(elsewhere, 0, h5py.h5f.UNLIMITED)]
        )


def virtual(file, elsewhere):
    layout = h5py.VirtualLayout((N, 7783), "f4")
    layout[:] = h5py.VirtualSource(elsewhere, "spectrum/flux", (N, 7783))
    for name in ("flux", "ivar", "wave"):
        file.create_virtual_dataset(f"spectrum/{name}", layout)


def shape_bomb(path, good):
    save(path, good | {"image": None})
    with h5py.File(path, "a") as file:
        file.create_dataset("image", (10**9, 5, 64, 64), "f4", chunks=(1, 5, 64, 64))


def cut(path, good):
    save(path, good)
    os.truncate(path, path.stat().st_size // 2)


def spoil_signature(path, good):
    content = bytearray(save(path, good).read_bytes())
    content[1] ^= 1  # the H of \x89HDF
    path.write_bytes(content)


LEFT_OPEN = """
import h5py, os, sys
file = h5py.File(sys.argv[1], "w", libver="latest")
file["image"] = [0.0]
file.swmr_mode = True
os._exit(0)
"""


def left_open(path, good):
    """The writer was killed, so that HDF5's flag of an open writer stays in the file."""
    subprocess.run([sys.executable, "-c", LEFT_OPEN, path], check=True)


def other_grid(path, good):
    wave = good["spectrum/wave"].copy()
    wave[66] += 1
    save(path, good | {"spectrum/wave": wave})


def with_duplicate(ids):
    ids = ids.copy()
    ids[66] = ids[3]
    return ids


def with_id(value):
    return lambda path, good: save(path, good | {"targetid": np.array([value, *good["targetid"][1:]])})


def lists_for_ids(path, good):
    save(path, good | {"targetid": None})
    with h5py.File(path, "a") as file:
        file.create_dataset("targetid", (N,), h5py.vlen_dtype(np.int64))


ONES = np.ones(N)
REFUSED = {
    "text": (lambda path, good: path.write_text("id,z\n1,0.3\n"), "does not open as HDF5"),
    "an empty file": (lambda path, good: path.touch(), "does not open as HDF5"),
    "a bad signature": (spoil_signature, "does not open as HDF5"),
    "left open for write": (left_open, "consistency flags"),
    "cut in half": (cut, "truncated file"),
    "an external link": (relink(external_link), "link to another file"),
    "an external link to nothing": (relink(external_link_to_nothing), "link to another file"),
    "an external link behind a soft one": (relink(external_link_behind_a_soft_one), "in other files"),
    "a link to itself": (relink(link_to_itself), "too many links"),
    "external storage": (relink(external_storage), "in other files"),
    "a virtual dataset": (relink(virtual), "in other files"),
    "a shape bomb": (shape_bomb, r"claims 8\.19e\+13 bytes"),
    "no images": (change(image=None), "no dataset image"),
    "no ids": (change(targetid=None), "no dataset object_id"),
    "no wavelengths": (change(spectrum__wave=None), "no dataset spectrum/wave"),
    "no redshifts": (change(DESI_fibermap__DESI_redshift=None), "no dataset DESI_fibermap/DESI_redshift"),
    "small images": (lambda path, good: save(path, draw(48)), "64, 64"),
    "six bands": (change(image=np.zeros((N, 6, 64, 64), "f4")), r"\(70, 6, 64, 64\)"),
    "complex images": (change(image=np.zeros((N, 5, 64, 64), "c8")), "complex64"),
    "images of text": (change(image=np.full((N, 5, 64, 64), b"x")), r"\|S1"),
    "one image": (change(image=np.zeros((5, 64, 64), "f4")), "not laid out"),
    "a scalar position": (change(ra=1.0), "not laid out"),
    "nothing for a position": (change(ra=h5py.Empty("f8")), "not laid out"),
    "fewer redshifts": (change(DESI_fibermap__DESI_redshift=ONES[:-1]), "differ in length"),
    "more positions": (change(ra=np.ones(N + 1)), "differ in length"),
    "fewer redshifts of HSC": (change(specz_redshift=ONES[:-1]), "differ in length"),
    "a redshift of HSC for each band": (change(specz_redshift=np.ones((N, 5))), "not laid out"),
    "redshifts of HSC in a group": (change(specz_redshift__value=ONES), "no dataset specz_redshift"),
    "redshifts of rank 2": (change(DESI_fibermap__DESI_redshift=np.ones((N, 1))), "not laid out"),
    "fluxes on fewer pixels": (change(spectrum__ivar=np.ones((N, 100))), "has shape"),
    "an id twice": (
        lambda path, good: save(path, good | {"targetid": with_duplicate(good["targetid"])}),
        "twice",
    ),
    "an id that is no number": (with_id(b"SDSS J1030"), "integers below"),
    "an id of no letters": (with_id(b""), "integers below"),
    "an id with an underscore": (with_id(b"1_000"), "there is b'1_000'"),
    "an id with a space": (with_id(b" 12"), "there is b' 12'"),
    "an id with a plus": (with_id(b"+12"), r"there is b'\+12'"),
    "an id in other digits": (with_id("１２".encode()), "integers below"),
    "an id of 2**64 - 1": (change(targetid=np.full(N, 2**64 - 1, np.uint64)), "integers below"),
    "lists for ids": (lists_for_ids, "integers below"),
    "an id of 2**63": (with_id(b"9223372036854775808"), "integers below"),
    "an id with a fraction": (change(targetid=np.arange(N) + 0.5), "not laid out"),
    "another wavelength grid in row 66": (other_grid, "spectrum 66 has another wavelength grid"),
}


def refuse(capfd, folder, path, code):
    """Run the command, check that it left nothing, and return its error message of one line."""
    before = sorted(entry.name for entry in folder.iterdir())
    assert cli.run_command("ingest", [str(path), str(folder / "a.zarr"), "--shard-rows", "64"]) == code
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert sorted(entry.name for entry in folder.iterdir()) == before
    return error


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_doubtful_file_is_refused_and_nothing_is_written(tmp_path, capfd, good, make, sentence):
    path = tmp_path / "a.hdf5"
    make(path, good)

    def read_all():
        with open_galaxiesml(path) as source:
            source.rows(0, source.n)

    with pytest.raises(InputRefused, match=sentence) as refusal:
        read_all()
    assert str(path) in str(refusal.value)
    assert str(refusal.value) in refuse(capfd, tmp_path, path, cli.REFUSED) or "spectrum 66" in sentence


def test_a_fifo_is_refused_and_not_waited_for(tmp_path, capfd):
    os.mkfifo(tmp_path / "a.hdf5")
    refuse(capfd, tmp_path, tmp_path / "a.hdf5", cli.REFUSED)


@pytest.mark.parametrize("kind", ["nothing", "a directory", "a link to itself"])
def test_a_path_to_no_file_is_a_usage_error(tmp_path, capfd, kind):
    path = tmp_path / "a.hdf5"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path)
    with pytest.raises(UsageError):
        open_galaxiesml(path)
    refuse(capfd, tmp_path, path, cli.USAGE)


def deflated(path, good, name, rows, content=None):
    """The file with a dataset in deflated chunks of so many rows, the first of which has other content."""
    save(path, good | {name: None})
    values = good[name]
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset(
            name, data=values, chunks=(rows, *values.shape[1:]), compression="gzip", shuffle=True
        )
        if content is not None:
            dataset.id.write_direct_chunk((0,) * values.ndim, content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image", "spectrum/flux", "spectrum/wave", "targetid"])
def test_a_chunk_that_decodes_to_gigabytes_is_refused_in_little_memory(tmp_path, good, name):
    compress = zlib.compressobj(1)
    bomb = b"".join(compress.compress(bytes(2**26)) for _ in range(16)) + compress.flush()
    assert len(bomb) < 5e6
    path = deflated(tmp_path / "a.hdf5", good, name, 7, bomb)
    command = [sys.executable, "-c", INGEST, path, tmp_path / "a.zarr"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert "decodes to more than its" in done.stderr
    assert int(done.stdout.splitlines()[-1]) < 100e6
    assert not (tmp_path / "a.zarr").exists()


INGEST = """
import sys
from pathlib import Path
from mmae import cli
import catalogs.ingest

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak()
code = cli.run_command("ingest", [*sys.argv[1:], "--shard-rows", "64"])
print(peak() - before)
assert code == cli.REFUSED
"""


@pytest.mark.parametrize("name", ["image", "spectrum/flux", "targetid"])
def test_deflated_chunks_are_read(tmp_path, good, name):
    with open_galaxiesml(save(tmp_path / "a.hdf5", good)) as plain:
        expected = plain.rows(0, N)
    with open_galaxiesml(deflated(tmp_path / "b.hdf5", good, name, 7)) as packed:
        for column, values in packed.rows(0, N).items():
            np.testing.assert_array_equal(values, expected[column])


def test_text_of_any_length_in_deflated_chunks_is_read(tmp_path, good):
    with h5py.File(save(tmp_path / "a.hdf5", good | {"targetid": None}), "a") as file:
        kind = h5py.string_dtype()
        file.create_dataset("targetid", data=good["targetid"].astype(object), dtype=kind, compression="gzip")
    with open_galaxiesml(tmp_path / "a.hdf5") as source:
        assert source.object_id.tolist() == good["targetid"].astype(int).tolist()


def test_chunks_of_over_a_gigabyte_are_refused(tmp_path, good):
    with h5py.File(save(tmp_path / "a.hdf5", good | {"image": None}), "a") as file:
        chunks = (2**14, 5, 64, 64)
        image = file.create_dataset(
            "image", good["image"].shape, "f4", chunks=chunks, maxshape=(None, 5, 64, 64), compression="gzip"
        )
        image.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(2**26), 1) + os.urandom(2**16))
    with open_galaxiesml(tmp_path / "a.hdf5") as source, pytest.raises(InputRefused, match="over 1; see h5r"):
        source.rows(0, 5)


@pytest.mark.parametrize("flags", [["--shard-rows", "100"], ["--shard-rows", "many"], ["--wrong"]])
def test_a_wrong_flag_creates_nothing(tmp_path, capfd, good, flags):
    path = save(tmp_path / "a.hdf5", good)
    assert cli.run_command("ingest", [str(path), str(tmp_path / "a.zarr"), *flags]) == cli.USAGE
    assert capfd.readouterr().err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.hdf5"]


HOLD_OPEN = (
    "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
)


def test_a_file_that_is_still_being_written_is_refused(tmp_path, capfd, good):
    path = save(tmp_path / "a.hdf5", good)
    command = [sys.executable, "-c", HOLD_OPEN, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        assert "still being written" in refuse(capfd, tmp_path, path, cli.REFUSED)
        writer.stdin.close()
    with open_galaxiesml(path) as source:
        assert source.n == N


def test_damage_to_the_head_of_a_file_never_ends_in_a_traceback(tmp_path, good):
    """Damage to unused bytes may go undetected; detected damage is refused with a sentence."""
    content = save(tmp_path / "good.hdf5", good).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        for offset in rng.integers(0, 4096, 3):
            damaged[offset] = rng.integers(256)
        (tmp_path / "a.hdf5").write_bytes(damaged)
        try:
            with open_galaxiesml(tmp_path / "a.hdf5") as source:
                source.rows(0, 1)
        except InputRefused:
            refused += 1
    assert refused > 10
