"""The galaxies that a model was made with: trained on, or chosen and calibrated by."""

from pathlib import Path
from typing import Any

import numpy as np

from catalogs.store.cutouts import CutoutStore, open_store
from mmae.bundles.bundle import CHOSEN_BY, ROLES, TRAINED_ON
from mmae.bundles.roles import Roles
from mmae.training.data import TRAIN, VALIDATION, split


def training_store(state: dict[str, Any]) -> Path | None:
    """Path of the store that a checkpoint was trained on; None where it is not there, or another one is."""
    path = Path(state["config"]["data"])
    found = path.is_dir() and open_store(path).fingerprint == state["data"]["fingerprint"]
    return path if found else None


def roles(store: CutoutStore, usable: np.ndarray) -> np.ndarray:
    """(L,) of bundle.ROLES, by id: the galaxies of the training and of the validation split.

    usable : (N,) bool, rows of the store that the splits are of
    """
    columns = {name: store.column(name) for name in ("object_id", "ra", "dec")}
    splits = split(columns["object_id"])
    role = np.where(splits == TRAIN, TRAINED_ON, np.where(splits == VALIDATION, CHOSEN_BY, 0))
    rows = np.flatnonzero(usable & (role != 0))
    table = np.zeros(len(rows), ROLES)
    for name, values in {"role": role, **columns}.items():
        table[name] = values[rows]
    return np.sort(table, order="object_id")


def is_held_out(store: CutoutStore, state: dict[str, Any]) -> bool:
    """Whether a checkpoint was made with no object of a store, by position or else by id.

    False, too, where its training store is not there to compare with.
    """
    path = training_store(state)
    if path is None or store.fingerprint == state["data"]["fingerprint"]:
        return False
    trained_on = open_store(path)
    table = roles(trained_on, np.ones(trained_on.n, bool))
    object_id, ra, dec = (store.column(name) for name in ("object_id", "ra", "dec"))
    return not (Roles(table).of(object_id, ra, dec) > 0).any()
