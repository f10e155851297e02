"""What stored numbers mean: whole numbers stay whole, whatever is said of those that are missing."""

import numpy as np
import pytest
import zarr

from catalogs.errors import InputRefused
from catalogs.store.cutouts import open_store

IDS = 2**53 + 1 + np.arange(3)


def write(path, ids, zarr_format=3, fill_value=0, **attributes):
    """A store as another program writes it, whose ids have attributes."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.attrs.update(bands=["lsst_g", "lsst_r"], pixel_scale=0.2, zero_point=31.4)
    columns = {"image": np.ones((3, 2, 64, 64), np.float32), "ra": np.ones(3), "dec": np.ones(3)}
    for name, values in (columns | {"object_id": ids}).items():
        fill = fill_value if name == "object_id" else 0
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, fill_value=fill)
        array[:] = values
    group["object_id"].attrs.update(attributes)
    return open_store(path)


@pytest.mark.parametrize(
    "said",
    [
        {"_FillValue": -1},  # as xarray writes it
        {"missing_value": [-9, -99]},
        {"valid_min": 0},
        {"zarr_format": 2, "fill_value": -1},
    ],
    ids=str,
)
def test_ids_that_float64_does_not_have_survive_a_value_for_missing_ones(tmp_path, said):
    ids = write(tmp_path / "a.zarr", IDS, **said).column("object_id")
    assert ids.dtype == np.int64
    assert ids.tolist() == IDS.tolist()


def test_an_object_without_an_id_is_refused(tmp_path):
    store = write(tmp_path / "a.zarr", np.array([5, -1, 7]), _FillValue=-1)
    assert store.column("object_id", 0, 1).tolist() == [5]
    with pytest.raises(InputRefused, match="no id in row 1"):
        store.column("object_id")


@pytest.mark.parametrize(
    ("kind", "stored", "said"),
    [
        ("i8", 2**63 - 1, {"_FillValue": 2**63 - 1}),
        ("i8", 2 - 2**63, {"_FillValue": 2 - 2**63}),  # netCDF's own
        ("i8", 2**63 - 1, {"zarr_format": 2, "fill_value": 2**63 - 1}),
        ("u8", 2**64 - 1, {"missing_value": [2**64 - 1]}),
        ("i8", 2**53 + 2, {"valid_max": 2**53 + 1}),
    ],
)
def test_a_value_for_missing_ones_may_be_beyond_float64(tmp_path, kind, stored, said):
    """Also where it is the neighbour of an id that is there."""
    ids = np.array([2**53, stored, 2**53 + 1], kind)
    store = write(tmp_path / "a.zarr", ids, **said)
    with pytest.raises(InputRefused, match="no id in row 1"):
        store.column("object_id")
    assert store.column("object_id", 2, 3).tolist() == [2**53 + 1]


def test_a_value_beyond_the_type_is_of_no_object(tmp_path):
    ids = np.array([0, 1, 2], np.uint8)
    assert write(tmp_path / "a.zarr", ids, _FillValue=256).column("object_id").tolist() == [0, 1, 2]
