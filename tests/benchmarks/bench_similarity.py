"""Similarity search among 10^7 galaxies: an index of their embeddings, against reading them all.

    python tests/benchmarks/bench_similarity.py EMBEDDINGS... [--vectors N] [--folder DIR]

EMBEDDINGS are products of `mmae embed`, from which it is seen how embeddings lie: how many directions the
neighbours of a galaxy spread in, and how near they are. Drawn vectors, which lie alike, are written as four
tiles, and indexed; a sample of queries is searched in either way. Then ways to code vectors, and libraries
(usearch, where it is installed). Prints the tables and writes results/similarity.md.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import report

from catalogs.products import embeddings
from catalogs.products.embeddings import Origin, open_embeddings
from catalogs.similarity import builder
from catalogs.similarity.exact import nearest, unit
from catalogs.similarity.index import open_index
from catalogs.similarity.tiles import Tiles, of_products
from catalogs.store.shard_writer import write_shards

WIDTH, TILES, SHARD_ROWS = 192, 4, 4096
NEIGHBOURS, QUERIES, TIMED = 10, 64, 8
CHOICE, CHOICE_QUERIES = 200_000, 200


class Surface:
    """Vectors about a curved surface of few dimensions, denser in some places, as embeddings lie."""

    def __init__(self, dimensions: int = 16, groups: int = 150):
        rng = np.random.default_rng(0)
        self.centres = rng.normal(size=(groups, dimensions)).astype(np.float32)
        self.inner = (dimensions**-0.5 * rng.normal(size=(dimensions, 64))).astype(np.float32)
        self.outer = (rng.normal(size=(64, WIDTH)) / 8).astype(np.float32)

    def draw(self, n: int, seed: Sequence[int]) -> np.ndarray:
        """(n, WIDTH) float32"""
        rng = np.random.default_rng(seed)
        place = self.centres[rng.integers(len(self.centres), size=n)]
        place = place + 0.3 * rng.standard_normal(place.shape, np.float32)
        vectors = np.tanh(place @ self.inner) @ self.outer + 1.1
        return vectors + 0.05 * rng.standard_normal(vectors.shape, np.float32)


def write_tile(path: Path, surface: Surface, tile: int, n: int) -> None:
    layout = embeddings.layout(n, WIDTH, SHARD_ROWS, Origin(*["drawn"] * 11))

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        vectors = surface.draw(stop - start, (tile, start))
        return {"embedding": vectors, "object_id": np.arange(start, stop) + tile * n} | {
            name: np.zeros(stop - start) for name in ("ra", "dec")
        }

    write_shards(path, layout, lambda spans: (rows(*span) for span in spans), source="drawn")


def lie(name: str, vectors: np.ndarray) -> str:
    """A row of the table: how vectors lie about each other."""
    directions, known = unit(vectors)
    directions = directions[known]
    query = np.linspace(0, len(directions) - 1, 500).astype(int)
    near = nearest(directions[query], query, [directions], NEIGHBOURS).similarity.astype(float)
    distance = np.sqrt(np.maximum(2 - 2 * near, 1e-12))
    spread = np.mean((NEIGHBOURS - 1) / np.log(distance[:, -1:] / distance[:, :-1]).sum(1))
    other = np.median(directions[query] @ directions[query].T)
    first, last = np.median(near[:, 0]), np.median(near[:, -1])
    return f"| {name} | {len(directions):,} | {spread:.1f} | {first:.3f} | {last:.3f} | {other:.3f} |"


# ---------------------------------------------------------------- steps, each a process of its own


def peak() -> float:
    """Peak memory of this process, MB, and the share of it that is no file in the page cache."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1e3


def step_build(index: Path, tiles: list[Path]) -> dict[str, Any]:
    started = time.monotonic()
    record = builder.build(index, tiles)
    parts = [part for product in record.products for part in product.parts]
    return {
        "wall": time.monotonic() - started,
        "cpu": time.process_time(),
        "parts": len(parts),
        "probes": " ".join(str(probes) for probes in sorted({part.probes for part in parts})),
        "recall": float(np.mean([part.recall for part in parts])),
        "bytes": sum(file.stat().st_size for file in index.iterdir()),
        "peak": peak(),
    }


def queries(tiles: Tiles) -> np.ndarray:
    return np.random.default_rng(5).choice(len(tiles), QUERIES, replace=False)


def step_search(index: Path, tiles: list[Path]) -> dict[str, Any]:
    started = time.monotonic()
    opened = open_index(index)
    ready = time.monotonic()
    query = queries(opened.tiles)
    seconds, cpu, rows = [], [], []
    for one in query:
        begun, begun_cpu = time.monotonic(), time.process_time()
        rows.append(opened.nearest(np.array([one]), NEIGHBOURS).rows[0].tolist())
        seconds.append(time.monotonic() - begun)
        cpu.append(time.process_time() - begun_cpu)
    begun, begun_cpu = time.monotonic(), time.process_time()
    found = opened.nearest(query[:TIMED], NEIGHBOURS)
    assert found.rows.tolist() == rows[:TIMED]
    together, together_cpu = time.monotonic() - begun, time.process_time() - begun_cpu
    begun = time.monotonic()
    opened.find(int(query[0]))
    return {
        "open": ready - started,
        "first": 1e3 * seconds[0],
        "median": 1e3 * float(np.median(seconds)),
        "cpu": 1e3 * float(np.median(cpu)),
        "worst": 1e3 * max(seconds[1:]),
        "together": together,
        "together_cpu": together_cpu,
        "find": 1e3 * (time.monotonic() - begun),
        "rows": rows,
        "peak": peak(),
    }


def step_exact(index: Path, tiles: list[Path]) -> dict[str, Any]:
    del index
    products = of_products([open_embeddings(path, whole=False) for path in tiles])
    query = queries(products)
    started, begun = time.monotonic(), time.process_time()
    nearest(products.rows(query[:TIMED]), query[:TIMED], products.blocks(), NEIGHBOURS)
    seconds, cpu, memory = time.monotonic() - started, time.process_time() - begun, peak()
    true = nearest(products.rows(query), query, products.blocks(), NEIGHBOURS)
    return {"seconds": seconds, "cpu": cpu, "peak": memory, "rows": true.rows.tolist()}


STEPS = {"build": step_build, "search": step_search, "exact": step_exact}


def run_step(name: str, index: Path, tiles: Sequence[Path]) -> dict[str, Any]:
    """What a step has measured, now or, in a folder that was kept, before."""
    kept = index.with_name(f"{name}.json")
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_text())
        return done
    command = [sys.executable, __file__, "--step", name, index, *tiles]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    kept.write_text(json.dumps(result))
    print(name, {key: value for key, value in result.items() if key != "rows"}, flush=True)
    return result


def recall(found: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> float:
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(true, found, strict=True)]))


def at_size(folder: Path, n: int) -> list[str]:
    surface = Surface()
    tiles = [folder / f"drawn{k}.embeddings.zarr" for k in range(TILES)]
    for k, tile in enumerate(tiles):
        if not tile.exists():
            write_tile(tile, surface, k, n // TILES)
    index = folder / "drawn.index"
    built, exact = run_step("build", index, tiles), run_step("exact", index, tiles)
    searched = run_step("search", index, tiles)
    vectors = 4 * WIDTH * n
    return [
        f"{n:,} vectors of {WIDTH} numbers, {TILES} tiles, {vectors / 1e9:.2f} GB, {NEIGHBOURS} neighbours; "
        f"recall is of {QUERIES} queries. In memory are, of what is mapped, files of the index, too.",
        "",
        "| | index | exact search |",
        "|---|---|---|",
        f"| s to build it, wall / CPU | {built['wall']:.0f} / {built['cpu']:.0f} | |",
        f"| peak memory of that, MB | {built['peak']:.0f} | |",
        f"| on disk, MB | {built['bytes'] / 1e6:.0f}, {built['bytes'] / n:.0f} bytes a vector | |",
        f"| parts; lists read of each | {built['parts']}; {built['probes']} | |",
        f"| recall that the build told, of each part alone | {built['recall']:.3f} | |",
        f"| **recall** | **{recall(searched['rows'], exact['rows']):.3f}** | 1 |",
        f"| s to open and verify it | {searched['open']:.1f} | |",
        f"| **ms a query**, median, one at a time | **{searched['median']:.0f}** | |",
        f"| ms of CPU time of that | {searched['cpu']:.0f} | |",
        f"| the first, the worst of the others | {searched['first']:.0f}, {searched['worst']:.0f} | |",
        f"| s for {TIMED} queries together | {searched['together']:.2f} | {exact['seconds']:.1f} |",
        f"| s of CPU time of that | {searched['together_cpu']:.2f} | {exact['cpu']:.1f} |",
        f"| ms to find an object by its id | {searched['find']:.0f} | |",
        f"| peak memory of searching, MB | {searched['peak']:.0f} | {exact['peak']:.0f} |",
    ]


# ---------------------------------------------------------------- codes and libraries


def choices(vectors: np.ndarray) -> Iterator[str]:
    """Rows of the table, one a way to code vectors."""
    directions, _ = unit(vectors)
    query = np.linspace(0, len(directions) - 1, CHOICE_QUERIES).astype(int)
    true = nearest(directions[query], query, [directions], NEIGHBOURS).rows

    def row(name: str, build: float, size: int, search: Any) -> str:
        found = []
        for count in (20, 50):
            begun = time.process_time()
            near = search(directions[query], count)
            seconds = time.process_time() - begun
            found.append(f"{recall(near, true):.3f}")
        cost = [f"{build:.1f}", f"{size / len(vectors):.0f}"]
        return f"| {' | '.join([name, *cost, *found, f'{1e3 * seconds / len(query):.2f}'])} |"

    for codes in ("RaBitQ", "RaBitQ2", "RaBitQ4", "PQ96x4fs", "SQ4", "SQ6", "SQ8"):
        builder.CODES = codes
        begun = time.process_time()
        lists = builder._inverted_lists(np.arange(len(directions)), directions)
        build = time.process_time() - begun
        faiss.extract_index_ivf(lists).nprobe = 16
        size = faiss.serialize_index(lists).nbytes
        yield row(f"faiss, IVF, {codes}", build, size, lambda q, k, lists=lists: lists.search(q, k)[1])
    try:
        from usearch.index import Index as Graph
    except ImportError:
        return
    for kind in ("i8", "f16"):
        graph = Graph(ndim=WIDTH, metric="cos", dtype=kind)
        begun = time.process_time()
        graph.add(np.arange(len(directions)), directions)
        build = time.process_time() - begun
        size = len(graph.save())
        yield row(f"usearch, HNSW, {kind}", build, size, lambda q, k, graph=graph: graph.search(q, k).keys)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--vectors", type=int, default=10**7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=STEPS)
    config = parser.parse_args()
    if config.step:
        print(json.dumps(STEPS[config.step](config.paths[0], config.paths[1:])))
        return
    real = np.concatenate([block for path in config.paths for block in open_embeddings(path).blocks()])
    drawn = Surface().draw(CHOICE, (9, 9))
    with tempfile.TemporaryDirectory() as temporary:
        report.write(
            "similarity",
            "Similarity search among 10^7 galaxies",
            "bench_similarity.py EMBEDDINGS...",
            [
                "How vectors lie: dimensions that ten neighbours spread in (Levina & Bickel 2004), cosine of "
                "the nearest, of the tenth, of a random pair; medians.",
                "",
                "| | vectors | dimensions | nearest | tenth | random |",
                "|---|---|---|---|---|---|",
                lie("embeddings of a mock tile", real),
                lie("drawn, as many", drawn[: len(real)]),
                lie("drawn", drawn),
                "",
                *at_size(config.folder or Path(temporary), config.vectors),
                "",
                f"Codes and libraries, {CHOICE:,} drawn vectors, 16 of {CHOICE // builder.LIST_ROWS} lists "
                "read, recall with 20 and 50 candidates, among which the vectors decide; CPU time.",
                "",
                "| | s to build | bytes a vector | recall, 20 | 50 | ms a query |",
                "|---|---|---|---|---|---|",
                *choices(drawn),
                "",
                "The same of the embeddings of the mock tile:",
                "",
                "| | s to build | bytes a vector | recall, 20 | 50 | ms a query |",
                "|---|---|---|---|---|---|",
                *choices(real[np.isfinite(real).all(1)]),
            ],
        )


if __name__ == "__main__":
    main()
