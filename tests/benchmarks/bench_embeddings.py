"""Are galaxies with like embeddings alike, and how long does it take to find them?

    python tests/benchmarks/bench_embeddings.py TRUTH BUNDLE EMBEDDINGS...

For products of `mmae embed`, a table with OBJECT_ID and Z_SPEC, and the bundle that knows what the model was
trained on. Of galaxies that it was not: how near in redshift a galaxy's nearest neighbour is, against a
random other one; and the median redshift of its ten nearest as a photo-z. Then the search of `mmae
neighbours` over 10^5 and 10^6 random vectors. Prints the tables and writes results/embeddings.md.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
from astropy.table import Table

from catalogs.products import embeddings
from catalogs.products.embeddings import Origin, open_embeddings
from catalogs.similarity.exact import nearest
from catalogs.store.shard_writer import write_shards
from mmae.bundles.bundle import TRAINED_ON, open_bundle
from mmae.bundles.roles import Roles
from mmae.scores import metrics

NEIGHBOURS, DRAWS = 10, 200
WIDTH, SHARD_ROWS, QUERIES = 192, 4096, 8


def alike(path: Path, truth: Table, roles: np.ndarray) -> str:
    """A row of the table."""
    product = open_embeddings(path)
    object_id, vectors = product.column("object_id"), np.concatenate(list(product.blocks()))
    known = dict(zip(truth["OBJECT_ID"].tolist(), truth["Z_SPEC"].tolist(), strict=True))
    z = np.array([known.get(name, np.nan) for name in object_id.tolist()])
    role = Roles(roles).of(object_id, product.column("ra"), product.column("dec"))
    kept = (role != TRAINED_ON) & np.isfinite(vectors).all(1) & np.isfinite(z)
    vectors, z = vectors[kept], z[kept]
    rng = np.random.default_rng(0)
    found = nearest(vectors, np.arange(len(z)), [vectors], NEIGHBOURS)
    near = np.median(np.abs(metrics.dz(z[found.rows[:, 0]], z)))
    random = np.median(np.abs(metrics.dz(rng.permutation(z), z)))
    guess = np.median(z[found.rows], axis=1)
    error = metrics.bootstrap(guess, z, DRAWS, rng).error["sigma_NMAD"]
    photoz = f"{metrics.sigma_nmad(guess, z):.4f} ± {error:.4f} | {metrics.outliers(guess, z):.1%}"
    name = f"{path.name}, {product.attributes['made_of']}"
    return f"| {name} | {len(z)} | {near:.4f} | {random:.4f} | {photoz} |"


def write_random(path: Path, n: int) -> None:
    layout = embeddings.layout(n, WIDTH, SHARD_ROWS, Origin(*["random"] * 11))

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        vectors = np.random.default_rng(start).normal(size=(stop - start, WIDTH)).astype(np.float32)
        return {"embedding": vectors, "object_id": np.arange(start, stop)} | {
            name: np.zeros(stop - start) for name in ("ra", "dec")
        }

    write_shards(path, layout, lambda spans: (rows(*span) for span in spans), source=None)


def search(path: Path) -> None:
    """Of a process of its own: prints seconds to open and verify, seconds to search, peak memory in MB."""
    started = time.monotonic()
    product = open_embeddings(path)
    opened = time.monotonic()
    query = np.linspace(0, len(product) - 1, QUERIES).astype(int)
    nearest(product.rows(query), query, product.blocks(), NEIGHBOURS)
    seconds = time.monotonic() - opened
    peak = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]
    print(f"{opened - started:.1f} | {seconds:.1f} | {int(peak) / 1e3:.0f}")


def searches() -> Iterator[str]:
    for n in (10**5, 10**6):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "random.embeddings.zarr"
            write_random(path, n)
            command = [sys.executable, __file__, "--search", path]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        yield f"| {n} | {done.stdout.strip()} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--search", type=Path)
    config = parser.parse_args()
    if config.search:
        search(config.search)
        return
    truth, bundle, *products = config.paths
    card, roles = open_bundle(bundle).card, open_bundle(bundle).roles()
    assert roles is not None, f"{bundle} does not know what it was trained on"
    table = Table.read(truth)
    report.write(
        "embeddings",
        "What embeddings say is alike",
        "bench_embeddings.py TRUTH BUNDLE EMBEDDINGS...",
        [
            f"Galaxies that the model was not trained on, of the survey `{card['training_data']['survey']}`. "
            "Nearest: by cosine, among the others of the same product. dz is in units of 1 + z. The photo-z "
            f"is the median redshift of the {NEIGHBOURS} nearest.",
            "",
            "| product | galaxies | median abs(dz) to the nearest | to a random one | sigma_NMAD of the "
            "photo-z | abs(dz) > 0.15 |",
            "|---|---|---|---|---|---|",
            *(alike(path, table, roles) for path in products),
            "",
            f"The search of `mmae neighbours`, {QUERIES} queries among random vectors of {WIDTH} numbers:",
            "",
            "| vectors | s to verify the product | s to search it | peak memory, MB |",
            "|---|---|---|---|",
            *searches(),
        ],
    )


if __name__ == "__main__":
    main()
