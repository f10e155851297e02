"""The galaxies that a model was made with: trained on, or chosen and calibrated by."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from catalogs.place import Place, place
from catalogs.store.cutouts import CutoutStore, open_store
from mmae.bundles.bundle import CHOSEN_BY, ROLES, TRAINED_ON
from mmae.bundles.roles import Roles
from mmae.training.data import TRAIN, VALIDATION, splits
from mmae.training.state import paths_of


def training_stores(state: dict[str, Any]) -> list[Place | None]:
    """Paths of the stores that a checkpoint was trained on; None: it is not there, or another one is."""
    return _found(paths_of(state["config"]), state["data"])


def fingerprints(trained_on: dict[str, Any]) -> list[str]:
    """Those of the stores of a description of training data (state.py); an older one is of one store."""
    return [store["fingerprint"] for store in trained_on.get("stores", [trained_on])]


def _found(places: list[str], trained_on: dict[str, Any]) -> list[Place | None]:
    return [
        path if (path := place(name)).is_dir() and open_store(path).fingerprint == fingerprint else None
        for name, fingerprint in zip(places, fingerprints(trained_on), strict=True)
    ]


def roles(stores: Sequence[CutoutStore], usable: np.ndarray | None = None) -> np.ndarray:
    """(L,) of bundle.ROLES, by id: the galaxies of the training and of the validation split of stores.

    usable : (N,) bool, rows of all stores that the splits are of; by default all
    """
    names = ("object_id", "ra", "dec")
    columns = {name: np.concatenate([store.column(name) for store in stores]) for name in names}
    split = splits(stores)
    usable = np.ones(len(split), bool) if usable is None else usable
    role = np.where(split == TRAIN, TRAINED_ON, np.where(split == VALIDATION, CHOSEN_BY, 0))
    rows = np.flatnonzero(usable & (role != 0))
    table = np.zeros(len(rows), ROLES)
    for name, values in {"role": role, **columns}.items():
        table[name] = values[rows]
    return np.sort(table, order="object_id")


def earlier_stores(state: dict[str, Any]) -> dict[str, Place | None]:
    """The stores of the runs that a checkpoint began with: where they are said to be -> where they are."""
    stores: dict[str, Place | None] = {}
    trained_on = state["data"]
    while trained_on := trained_on.get("start"):
        stores |= dict(zip(trained_on["paths"], _found(trained_on["paths"], trained_on), strict=True))
    return stores


def with_earlier(table: np.ndarray, stores: Iterable[Place]) -> np.ndarray:
    """Roles with those of the galaxies of other stores: what was trained on once, was."""
    for path in stores:
        earlier = roles([open_store(path)])
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
    own, earlier = training_stores(state), list(earlier_stores(state).values())
    stores = [open_store(path) for path in own if path is not None]
    known = [path for path in earlier if path is not None]
    if len(stores) < len(own) or len(known) < len(earlier):
        return False
    if store.fingerprint in fingerprints(state["data"]):
        return False
    table = with_earlier(roles(stores), known)
    object_id, ra, dec = (store.column(name) for name in ("object_id", "ra", "dec"))
    return not (Roles(table).of(object_id, ra, dec) > 0).any()
