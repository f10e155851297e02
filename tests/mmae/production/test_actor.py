"""What several threads read into memory of their own is what one reads, rows that kill among it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from catalogs.bands import HSC
from catalogs.products.model_input import ModelInput
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from mmae.production.actor import read

N = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(N, 5, 64, 64)).astype(np.float32)
    image[70, 1], image[200] = np.nan, 0
    columns = {"image": image, "object_id": np.arange(N), "ra": np.zeros(N), "dec": np.zeros(N)}
    columns["ebv"] = rng.uniform(size=N).astype(np.float32)
    path = tmp_path_factory.mktemp("store") / "tile.zarr"
    rows = lambda start, stop: {name: column[start:stop] for name, column in columns.items()}  # noqa: E731
    cutouts.write(path, rows, n=N, survey="test", bands=HSC, known=["ebv"], shard_rows=128)
    return open_store(path)


@pytest.mark.parametrize("crashing", [(), (64, 130, 131)], ids=["all survive", "three do not"])
@pytest.mark.parametrize(("start", "stop"), [(0, N), (30, 290), (64, 128), (130, 132)])
def test_threads_read_what_one_reads_in_one_go(store, start, stop, crashing):
    wanted, taken = ModelInput(HSC, 27.0, 0.168, 2), []

    def empty(shape):
        taken.append(np.full(shape, 7, np.float32))
        return taken[-1]

    with ThreadPoolExecutor(3) as readers:
        found = read(store, start, stop, wanted, crashing, empty, readers)
    lost = np.isin(np.arange(start, stop), crashing)
    expected = wanted.read(store, start, stop)
    for name in ("image", "conditions", "reason", "flags", "observed"):
        rows, whole = getattr(found, name), getattr(expected, name)
        assert rows.dtype == whole.dtype
        np.testing.assert_array_equal(rows[~lost], whole[~lost])
    assert (found.reason[lost] == "CRASHES").all()
    assert not found.image[lost].any()
    if (start, stop) == (0, N):
        assert found.image is taken[0]
