"""Write an index of embeddings, or bring one up to date: part by part; those that are intact are kept."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np

from catalogs import atomic
from catalogs.cpus import cpus
from catalogs.errors import UsageError
from catalogs.products.embeddings import BLOCK_ROWS, Embeddings, open_embeddings
from catalogs.similarity.exact import nearest, unit
from catalogs.similarity.index import Progress, candidates, search
from catalogs.similarity.record import (
    VERSION,
    Indexed,
    Part,
    Record,
    absolute,
    ids_file,
    is_index,
    lists_file,
    read_record,
    relative,
    write_record,
)
from catalogs.similarity.tiles import MADE_BY, check_alike
from catalogs.store.format import beside, manifest_path, rows_per_file

PART_BYTES = 2**29
"""Of the vectors of a part at most, which are in memory while it is made: 700,000 of 192 numbers."""
LIST_ROWS, TRAINING_ROWS = 512, 64
"""Vectors of an inverted list on average, and of these for k-means."""
CODES = "SQ4"
"""Four bits a number: of those in results/similarity.md the smallest by which 20 candidates were enough."""
SEED, ITERATIONS = 1, 5
KEY_LENGTH = 16
OURS = re.compile(rf"([0-9a-f]{{{KEY_LENGTH}}})\.(faiss|ids\.npy|json)")
QUERIES, NEIGHBOURS, RECALL = 64, 10, 0.99
"""Of as many galaxies of a part neighbours are searched exactly; lists are added until a search finds
this share of them."""


def build(index: Path, named: Sequence[Path], progress: Progress = iter) -> Record:
    """Make `index` one of the products `named` and of those that it has already, as they are now.

    A product that it has, and that is gone, is left out. Killed, the next call goes on.

    Raises
    ------
    UsageError : `index` is something else, has another builder, or no product is named.
    InputRefused : a product is damaged, or of another model than the others; what is there stays.
    """
    known = _known(index)
    kept = [path for path in known if path.is_dir()]
    paths = list({path.resolve(): path for path in (*kept, *named)}.values())
    if not paths:
        raise UsageError("no embeddings are named: name what `mmae embed` has written, TILE.embeddings.zarr")
    products = [open_embeddings(path, whole=False) for path in paths]
    check_alike([product.attributes for product in products], paths)
    folder = index if index.exists() else beside(index, atomic.TEMPORARY)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with atomic.owned(folder):
            if _known(index) != known:  # another process has ended just now
                raise BlockingIOError
            for path in known:
                if path not in kept:
                    print(f"{path} is gone: left out now", flush=True)
            record = _build(folder, paths, products, progress)
            if folder != index:
                folder.rename(index)
                atomic.sync(index.parent)
            return record
    except BlockingIOError:
        raise UsageError(f"{folder} is being written by another process") from None


def _known(index: Path) -> list[Path]:
    """Products that are in an index already; none where its record is damaged, or of another version.

    Raises UsageError where something else is in its place.
    """
    if not index.exists():
        return []
    if not is_index(index):
        raise UsageError(f"{index} is there, and no index of embeddings: choose another --out")
    record = read_record(index)
    return [absolute(index, product) for product in record.products] if record else []


def _build(index: Path, paths: Sequence[Path], products: Sequence[Embeddings], progress: Progress) -> Record:
    faiss.omp_set_num_threads(cpus())
    attributes = {name: products[0].attributes[name] for name in MADE_BY}
    manifests = [atomic.sha256(manifest_path(product.path)) for product in products]
    wanted = [
        (product, _key(manifest, span), span)
        for product, manifest in zip(products, manifests, strict=True)
        for span in _spans(product)
    ]
    intact = {key: part for _, key, _ in wanted if (part := _intact_part(index, key))}
    if intact:
        print(f"{len(intact)} of {len(wanted)} parts are there already", flush=True)
    missing = [item for item in wanted if item[1] not in intact]
    for product, key, span in progress(missing):
        intact[key] = _write_part(index, product, key, span)
    parts_of = {path: [intact[key] for product, key, _ in wanted if product.path is path] for path in paths}
    record = Record(
        attributes,
        [
            Indexed(relative(index, path), manifest, len(product), parts_of[path])
            for path, product, manifest in zip(paths, products, manifests, strict=True)
        ],
    )
    write_record(index, record)
    _sweep(index, set(intact))
    return record


def _spans(product: Embeddings) -> Iterator[tuple[int, int]]:
    """Row ranges of the parts of a product, of whole shards."""
    n, width = product.shape
    shard = rows_per_file(product.array("embedding"))
    rows = max(1, PART_BYTES // (4 * width) // shard) * shard
    return ((start, min(start + rows, n)) for start in range(0, n, rows))


def _key(manifest: str, span: tuple[int, int]) -> str:
    """digest of all that decides the bytes of a part but faiss and the CPU."""
    method = [VERSION, CODES, LIST_ROWS, TRAINING_ROWS, SEED, ITERATIONS, QUERIES, NEIGHBOURS, RECALL]
    return atomic.digest([manifest, *span, *method])[:KEY_LENGTH]


def _record_file(index: Path, key: str) -> Path:
    return index / f"{key}.json"


def _intact_part(index: Path, key: str) -> Part | None:
    """A part that an earlier run has written; None where it is not there whole."""
    record = atomic.read_sealed(_record_file(index, key))
    if record is None:
        return None
    part = Part(**record["part"])
    return part if all(atomic.matches(index / name, entry) for name, entry in part.files.items()) else None


def _sweep(index: Path, keys: set[str]) -> None:
    """Remove what no product has any more, and what killed runs left."""
    for file in index.iterdir():
        key = OURS.fullmatch(file.name)
        if file.name.endswith(atomic.TEMPORARY) or (key and key[1] not in keys):
            file.unlink()


# ---------------------------------------------------------------- a part


def _write_part(index: Path, product: Embeddings, key: str, span: tuple[int, int]) -> Part:
    """Write the files of a part, then the record that makes them count."""
    rows, vectors = _vectors(product, *span)
    lists = _inverted_lists(rows, vectors)
    probes, recall = _probes(lists, rows, vectors)
    with atomic.replacing(lists_file(index, key)) as temporary:
        faiss.write_index(lists, str(temporary))
    with atomic.replacing(ids_file(index, key)) as temporary:
        content = io.BytesIO()
        np.save(content, product.column("object_id", *span))
        temporary.write_bytes(content.getbuffer())
    files = {file.name: atomic.entry(file) for file in (lists_file(index, key), ids_file(index, key))}
    part = Part(key, *span, len(rows), probes, recall, files)
    atomic.write_json(_record_file(index, key), atomic.sealed({"part": asdict(part)}))
    return part


def _vectors(product: Embeddings, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that have a vector, counted from `start`, (m,) int64; and these at length 1, (m, J) float32."""
    directions, rows = np.empty((stop - start, product.shape[1]), np.float32), np.empty(stop - start, int)
    count = 0
    for a in range(start, stop, BLOCK_ROWS):
        block, known = unit(product.column("embedding", a, min(a + BLOCK_ROWS, stop)))
        here = slice(count, count + int(known.sum()))
        directions[here], rows[here] = block[known], a - start + np.flatnonzero(known)
        count = here.stop
    return rows[:count], directions[:count]


def _inverted_lists(rows: np.ndarray, vectors: np.ndarray) -> faiss.Index:
    """Lists of the rows about the centres that k-means finds, with a code of each vector."""
    count = max(1, len(rows) // LIST_ROWS)
    lists = faiss.index_factory(vectors.shape[1], f"IVF{count},{CODES}")
    clustering = faiss.extract_index_ivf(lists).cp
    clustering.seed, clustering.niter, clustering.min_points_per_centroid = SEED, ITERATIONS, 1
    sample = np.random.default_rng(SEED).permutation(len(rows))[: TRAINING_ROWS * count]
    if len(rows):
        lists.train(vectors[np.sort(sample)])
        lists.add_with_ids(vectors, rows)
    return lists


def _probes(lists: faiss.Index, rows: np.ndarray, vectors: np.ndarray) -> tuple[int, float]:
    """The least number of lists, of 1, 2, 4, ..., that finds RECALL of the neighbours; and what it finds."""
    count, neighbours = faiss.extract_index_ivf(lists).nlist, min(NEIGHBOURS, len(rows) - 1)
    if neighbours < 1:
        return count, 1.0
    query = np.unique(np.linspace(0, len(rows) - 1, QUERIES).astype(int))
    blocks = (vectors[a : a + BLOCK_ROWS] for a in range(0, len(rows), BLOCK_ROWS))
    true = rows[nearest(vectors[query], query, blocks, neighbours).rows]
    probes = 1
    while True:
        found = search(lists, vectors[query], probes, candidates(neighbours))[1]
        recall = float(np.mean([np.isin(t, f).mean() for t, f in zip(true, found, strict=True)]))
        if recall >= RECALL or probes >= count:
            return probes, recall
        probes = min(2 * probes, count)
