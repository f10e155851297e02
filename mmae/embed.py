"""`mmae embed`: the joint embedding of every galaxy of cutout stores, for similarity search and regression.

Ray actors compute; this process alone writes. It can: a galaxy's embedding has a hundredth of the bytes of
its pixels. So a product is written as a cutout store is, shard by shard (catalogs/shard_writer.py): whatever
is killed, the same command goes on from the shards that are there, and the bytes are the same.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.embed", "Embed")

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from tyro.conf import OmitArgPrefixes

from catalogs.errors import InputRefused, Interrupted, UsageError
from catalogs.products import embeddings
from catalogs.products.embeddings import Origin, open_embeddings
from catalogs.store.cutouts import CutoutStore, open_store
from catalogs.store.format import NO_METADATA, ImageMetadata
from catalogs.store.shard_writer import Blocks, write_shards
from mmae import __version__, cli
from mmae.hardware import Precision
from mmae.production import ray_session
from mmae.production.embedder import Embedder, ImageEncoder, PairEncoder, Setup, Task, open_encoder
from mmae.production.in_order import InOrder
from mmae.production.launch import check_flags, default_workers, find_bundle, session_of
from mmae.production.plan import batch_here, check_input, unit_rows
from mmae.production.production import LOG_SECONDS
from mmae.production.ray_session import IN_FLIGHT
from mmae.production.scheduler import Scheduler
from mmae.production.tiles import Tile, named_tiles
from mmae.progress import bar


@dataclass(frozen=True)
class Embed:
    """Write the joint embedding of every galaxy of cutout stores.

    Writes for each store TILE.embeddings.zarr: `embedding` (N, J), `object_id`, `ra`, `dec`, in the order of
    the store; NaN where a cutout cannot be used. With a bundle the embedding is made of the image alone, with
    a checkpoint of image and spectrum, or of the image where there is no spectrum. Run again, the same
    command does what is not done yet. `mmae neighbours` shows which galaxies are alike by it.
    """

    catalog: tuple[str, ...]
    """Cutout stores (Zarr; see README): paths, s3://BUCKET/KEY, globs of either in quotes, @FILE with one of
    these a line."""
    model: Path | None = None
    """A bundle, which embeds images; or a run directory or checkpoint, which embeds images together with
    spectra, of training stores. By default the bundle $MMAE_MODEL, else the newest under runs/."""
    precision: Precision | None = None
    """Of a bundle's arithmetic; by default bf16 where it offers it and the hardware has it, else fp32."""
    out: Path | None = None
    """Folder to write to; by default that of the stores."""

    # Where
    workers: int = 0
    """Ray actors at most; 0: one a GPU, or one a CPU core where there is none."""
    ray_address: str = ""
    """HOST:PORT of a Ray cluster that this machine is a node of; by default a Ray of our own."""

    described: OmitArgPrefixes[ImageMetadata] = NO_METADATA

    def __post_init__(self) -> None:
        check_flags(self.catalog, self.workers, self.ray_address)


@dataclass
class Product:
    """What is to be written of one store; implements units.Source."""

    path: Path
    store: CutoutStore
    origin: Origin
    task: Task
    error: Exception | None = None
    log: ClassVar[str] = "the output above"

    @property
    def name(self) -> str:
        return self.path.name

    def note(self, text: str) -> None:
        print(f"{self.name}: {text}", flush=True)

    @property
    def is_finished(self) -> bool:
        """Raises InputRefused where a product of another origin has the name."""
        if not self.path.exists():
            return False
        there, ours = open_embeddings(self.path).attributes, self.origin.attributes
        if changed := [name for name in ours if there.get(name) != ours[name]]:
            raise InputRefused(
                f"{self.path} was made with another {', '.join(changed)}: remove it, or write elsewhere with "
                "--out"
            )
        return True

    @property
    def unit_rows(self) -> int:
        return unit_rows(self.store.n, self.store.shard_rows, batch_here())


def main(config: Embed) -> None:
    """All stores are checked before anything is computed."""
    encoder = open_encoder(find_bundle(config.model), config.precision, batch_here())
    made_of, survey = encoder.made_of, encoder.trained_on["survey"]
    print(f"model: {encoder.path} ({made_of}, {encoder.precision}, trained on {survey})", flush=True)
    products = [
        product_of(tile, config.described, encoder) for tile in named_tiles(config.catalog, config.out)
    ]
    left = [product for product in products if not product.is_finished]
    for product in products:
        if product not in left:
            print(f"{product.path} is finished already; nothing to do")
    try:
        work(left, encoder, config)
    except KeyboardInterrupt:
        raise Interrupted("stopped; what is done is kept, the same command goes on from there") from None


def product_of(tile: Tile, described: ImageMetadata, encoder: ImageEncoder | PairEncoder) -> Product:
    """Check a store and say what will come of it; raises UsageError or InputRefused, and creates nothing."""
    product = tile.files.folder / f"{tile.name}{embeddings.ENDING}"
    if not isinstance(product, Path):
        raise UsageError(
            f"{product} is on S3, and embeddings are written to a file system: name a folder with --out"
        )
    store = open_store(tile.path, described)
    encoder.input.check(store)
    encoder.check(store)
    if differences := encoder.input.differences(store):
        print(f"{store.path}: {differences}", flush=True)
    origin = Origin(
        made_of=encoder.made_of,
        model_sha256=encoder.sha256,
        precision=encoder.precision,
        batch=encoder.batch,
        training_set=encoder.trained_on["survey"],
        input_sha256=check_input(store),
        store_fingerprint=store.fingerprint,
        input_zero_point=store.zero_point,
        input_pixel_scale=store.pixel_scale,
        code_version=__version__,
        torch_version=version("torch"),
    )
    return Product(product, store, origin, Task(tile.path.resolve(), described, store.stamp))


def work(products: Sequence[Product], encoder: ImageEncoder | PairEncoder, config: Embed) -> None:
    """Have the actors embed product after product, and write."""
    if not products:
        return
    units = max(1, sum(-(-product.store.n // product.unit_rows) for product in products))
    with session_of(config.ray_address)(min(config.workers or default_workers(), units)):
        kind = ray_session.actor_type(Embedder)
        capacity = ray_session.Capacity(config.workers, alone=not config.ray_address)
        scheduler = Scheduler(partial(kind.remote, Setup.of(encoder)), capacity)
        for product in products:
            write(product, encoder.width, partial(embedded, scheduler, product, IN_FLIGHT * capacity()))


def write(product: Product, width: int, blocks: Blocks) -> None:
    """Write one product, or what is left of it."""

    def progress(shards: Sequence[int], what: str) -> Iterable[int]:
        return watched(shards, f"{product.name}: {what}")

    layout = embeddings.layout(product.store.n, width, product.unit_rows, product.origin)
    write_shards(product.path, layout, blocks, source=product.store.fingerprint, progress=progress)
    lost = sum(int(np.isnan(block[:, 0]).sum()) for block in open_embeddings(product.path).blocks())
    print(f"wrote {product.path}: {product.store.n} objects, {width} numbers each; {lost} are NaN")


def watched(shards: Sequence[int], what: str) -> Iterator[int]:
    """The shards, with a bar; in a log, with a line a minute."""
    logged = time.monotonic()
    with bar(what, disable=not shards) as shown:
        for done, shard in enumerate(shown.track(shards)):
            if not shown.console.is_terminal and time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                print(f"{what}: {done} of {len(shards)}", flush=True)
            yield shard


def embedded(
    scheduler: Scheduler, product: Product, ahead: int, spans: Sequence[tuple[int, int]]
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of each span, in turn; at most `ahead` spans are done or begun before they are taken.

    Raises why a span cannot be done.
    """
    queue = InOrder(product, spans, product.unit_rows, ahead)
    for _ in scheduler.steps(queue):
        yield from queue.results()
    yield from queue.results()
