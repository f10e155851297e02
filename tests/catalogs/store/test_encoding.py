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
