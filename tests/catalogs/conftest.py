"""Fixtures shared by the tests of stores."""

import shutil

import pytest

from catalogs.store.format import manifest_path


@pytest.fixture
def store(written, tmp_path):
    """A copy of the module's store `written`, to be damaged."""
    path = tmp_path / "tile.zarr"
    shutil.copytree(written, path)
    shutil.copy(manifest_path(written), manifest_path(path))
    return path
