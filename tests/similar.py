"""Tiles of galaxies with embeddings, as `mmae embed` writes them."""

from pathlib import Path

import numpy as np

from catalogs.products import embeddings
from catalogs.products.embeddings import Origin
from catalogs.store import cutouts
from catalogs.store.shard_writer import write_shards

ORIGIN = Origin("image", "model", "fp32", 64, "mock", "input", "store", 27.0, 0.168, "0", "0")


def on_a_surface(n, seed, width=24, dimensions=6):
    """Vectors (n, width) float32 about a curved surface of few dimensions, as embeddings lie."""
    surface = np.random.default_rng(0)
    inner = surface.normal(size=(dimensions, 2 * width))
    outer = surface.normal(size=(2 * width, width))
    rng = np.random.default_rng(seed)
    vectors = np.tanh(rng.normal(size=(n, dimensions)) @ inner / 3) @ outer
    return (vectors + 0.1 * rng.normal(size=(n, width))).astype(np.float32)


def write_product(path, vectors, first_id, origin=ORIGIN, shard_rows=64):
    """TILE.embeddings.zarr, with the ids first_id, first_id + 1, ..."""
    n = len(vectors)
    columns = {"embedding": vectors, **places(n, first_id)}
    layout = embeddings.layout(n, vectors.shape[1], shard_rows, origin)
    spans = lambda asked: ({k: v[a:b] for k, v in columns.items()} for a, b in asked)  # noqa: E731
    write_shards(path, layout, spans, source=None)
    return path


def write_tile(folder, name, vectors, first_id, size=8, shard_rows=64):
    """A product and the cutouts that it might be of; returns the product."""
    n = len(vectors)
    image = np.random.default_rng(first_id).normal(size=(n, 5, size, size)).astype(np.float32)
    columns = {"image": image, **places(n, first_id)}
    rows = lambda a, b: {k: v[a:b] for k, v in columns.items()}  # noqa: E731
    cutouts.write(Path(folder, f"{name}.zarr"), rows, n=n, survey="test", size=size)
    return write_product(Path(folder, f"{name}.embeddings.zarr"), vectors, first_id, shard_rows=shard_rows)


def places(n, first_id):
    rng = np.random.default_rng(first_id)
    return {
        "object_id": np.arange(n) + first_id,
        "ra": rng.uniform(0, 360, n),
        "dec": rng.uniform(-90, 90, n),
    }
