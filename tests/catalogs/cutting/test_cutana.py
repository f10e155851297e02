"""Batches of Cutana: images and metadata by their index, and what was not made to be measured."""

import numpy as np
import pyarrow as pa
import pytest
import zarr
from astropy.table import Table
from pyarrow import parquet
from survey_files import noise, same_bits

from catalogs.store.cutouts import open_store
from catalogs.store.manifest import altered_files
from mmae import cli

SIDE, SIZE = 20, 16
SOURCES = {"a": [5, 6, 7], "b": [-8, 9]}
"""Ids by batch; Euclid's are negative in the south."""


def write_batch(folder, name, ids, dtype="float32", level=0.0):
    """As images_to_zarr writes it; the rows of the metadata are in another order than the images."""
    batch = folder / "out" / f"batch_cutout_process_{name}"
    images = (noise((len(ids), SIDE, SIDE, 2), seed=len(ids)) + level).astype(dtype)
    group = zarr.open_group(batch / "images.zarr", mode="w")
    group.create_array("images", data=images, chunks=(2, SIDE, SIDE, 2))
    order = np.arange(len(ids))[::-1]
    columns = {
        "source_id": [str(ids[k]) for k in order],
        "idx_in_zarr": order,
        "ra": 10.0 + order,
        "dec": -5.0 - order,
        "diameter_arcsec": [4.0 if ids[k] == 7 else 2.0 for k in order],
    }
    parquet.write_table(pa.table(columns), batch / "images_metadata.parquet")
    return dict(zip(ids, images, strict=True))


def run(folder, *flags):
    arguments = [folder / "out", folder / "a.zarr", f"--size={SIZE}", *flags]
    return cli.run_command("cutouts", [str(argument) for argument in arguments])


FLAGS = ("--zero-point=8.9", "--bands", "euclid_vis", "euclid_h")


@pytest.mark.parametrize("flags", [(), ("--pixel-scale=0.2",)])
def test_batches_become_a_store(tmp_path, flags):
    """Of 2 arcsec on 20 pixels, but for one of 4 arcsec; it comes first in its batch."""
    images = write_batch(tmp_path, "b", SOURCES["b"]) | write_batch(tmp_path, "c", SOURCES["a"])
    assert run(tmp_path, *FLAGS, *flags) == cli.OK
    store = open_store(tmp_path / "a.zarr")
    assert not altered_files(tmp_path / "a.zarr")
    assert store.column("object_id").tolist() == [9, -8, 6, 5]
    assert store.column("ra").tolist() == [11, 10, 11, 10]
    assert (store.bands, store.zero_point) == (("euclid_vis", "euclid_h"), 8.9)
    assert store.pixel_scale == pytest.approx(0.2 if flags else 0.1)
    found = np.asarray(store.array("image")[:])
    expected = np.stack([np.moveaxis(images[k], -1, 0)[:, 2:18, 2:18] for k in (9, -8, 6, 5)])
    assert same_bits(found, expected)
    rejects = Table.read(tmp_path / "a.zarr.rejects.ecsv")
    assert dict(zip(rejects["object_id"], rejects["reason"], strict=True)) == {7: "PIXEL_SCALE"}


@pytest.mark.parametrize(
    ("dtype", "level", "flags", "code", "sentence"),
    [
        ("uint8", 100, FLAGS, cli.REFUSED, "stretched for the eye"),
        ("float32", 1.0, FLAGS, cli.REFUSED, "stretched for the eye"),
        ("float32", 0.0, FLAGS[:1], cli.REFUSED, "does not name its bands: pass --bands"),
        ("float32", 0.0, FLAGS[:3], cli.REFUSED, "pass --bands, one for each of the last axis"),
        ("float32", 0.0, FLAGS[1:], cli.REFUSED, "does not say its zero point (AB mag of flux 1)"),
    ],
)
def test_what_is_no_flux_or_is_not_said_is_refused(tmp_path, capsys, dtype, level, flags, code, sentence):
    write_batch(tmp_path, "a", SOURCES["a"], dtype, level)
    assert run(tmp_path, *flags) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_lost_chunk_is_damage(tmp_path, capsys):
    write_batch(tmp_path, "a", SOURCES["a"])
    (tmp_path / "out/batch_cutout_process_a/images.zarr/images/c/1/0/0/0").unlink()
    assert run(tmp_path, *FLAGS, "--pixel-scale=0.1") == cli.REFUSED
    assert "is missing" in capsys.readouterr().err
