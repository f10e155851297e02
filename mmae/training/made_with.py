"""The galaxies that a model was made with: trained on, or chosen and calibrated by."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.store.cutouts import CutoutStore, open_store
from mmae.bundles.bundle import CHOSEN_BY, ROLES, TRAINED_ON
from mmae.bundles.roles import Roles
from mmae.training.data import TRAIN, VALIDATION, split


def training_store(state: dict[str, Any]) -> Path | None:
    """Path of the store that a checkpoint was trained on; None where it is not there, or another one is."""
    return _found(state["config"]["data"], state["data"])


def _found(place: str, trained_on: dict[str, Any]) -> Path | None:
    path = Path(place)
    return path if path.is_dir() and open_store(path).fingerprint == trained_on["fingerprint"] else None


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


def earlier_stores(state: dict[str, Any]) -> dict[str, Path | None]:
    """The stores of the runs that a checkpoint began with: where they are said to be -> where they are."""
    stores, trained_on = {}, state["data"]
    while trained_on := trained_on.get("start"):
        stores[trained_on["path"]] = _found(trained_on["path"], trained_on)
    return stores


def with_earlier(table: np.ndarray, stores: Iterable[Path]) -> np.ndarray:
    """Roles with those of the galaxies of other stores: what was trained on once, was."""
    for path in stores:
        store = open_store(path)
        earlier = roles(store, np.ones(store.n, bool))
        before = Roles(earlier).of(table["object_id"], table["ra"], table["dec"])
        role = np.where(before == TRAINED_ON, TRAINED_ON, table["role"])
        other = Roles(table).of(earlier["object_id"], earlier["ra"], earlier["dec"]) <= 0
        table = table.copy()
        table["role"] = role
        table = np.sort(np.concatenate([table, earlier[other]]), order="object_id")
    return table


def is_held_out(store: CutoutStore, state: dict[str, Any]) -> bool:
    """Whether a checkpoint was made with no object of a store, by position or else by id.

    False, too, where a store that it was made with is not there to compare with.
    """
    path, earlier = training_store(state), list(earlier_stores(state).values())
    known = [each for each in earlier if each is not None]
    if path is None or len(known) < len(earlier) or store.fingerprint == state["data"]["fingerprint"]:
        return False
    trained_on = open_store(path)
    table = with_earlier(roles(trained_on, np.ones(trained_on.n, bool)), known)
    object_id, ra, dec = (store.column(name) for name in ("object_id", "ra", "dec"))
    return not (Roles(table).of(object_id, ra, dec) > 0).any()
