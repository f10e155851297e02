"""Where the real data and the real components are; what may be skipped, and what may not."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def _folder(variable, default):
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{variable}: no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def reference():
    """The paper's released model as figures, and its authors' predictions."""
    return _folder("MMAE_SHARED_REFERENCE", SHARED / "reference")


@pytest.fixture(scope="session")
def real_data():
    """Real HSC images and real DESI spectra."""
    return _folder("MMAE_SHARED_DATA", SHARED / "data")
