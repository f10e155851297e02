"""`mmae index`: an index of embeddings, by which `mmae neighbours` searches those of a survey."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track
from tyro.conf import Positional

from catalogs.errors import Interrupted, UsageError
from catalogs.output import check_output
from catalogs.similarity.builder import QUERIES, build
from catalogs.similarity.record import ENDING


@dataclass(frozen=True)
class Index:
    """Index the embeddings of many tiles, for `mmae neighbours` to search in milliseconds a query.

    Reads each vector once. Takes 1.1 GB of memory for vectors of 192 numbers, however many, and 115 bytes
    a galaxy on disk; vectors stay where they are, and decide. Says which share of the 10 nearest is found.

    Run again, the same command does what is not done yet. It adds the tiles that are named to those that the
    index has, makes anew what is damaged or whose embeddings have changed, and leaves out what is gone.

    As `mmae index tiles/*.embeddings.zarr --out survey.index`; then `mmae neighbours survey.index --like 42`.
    """

    embeddings: Positional[tuple[Path, ...]] = ()
    """Outputs of `mmae embed`, of one model: TILE.embeddings.zarr."""
    out: Path = Path("survey.index")
    """The index, a folder: NAME.index. It names the embeddings by their paths from there."""

    def __post_init__(self) -> None:
        if not self.out.name.endswith(ENDING):
            raise UsageError(f"--out must end in {ENDING}, got {self.out}")


def main(config: Index) -> None:
    check_output(config.out)
    try:
        record = build(config.out, config.embeddings, lambda parts: track(parts, "indexing parts"))
    except KeyboardInterrupt:
        raise Interrupted("stopped; what is done is kept, the same command goes on from there") from None
    parts = [part for product in record.products for part in product.parts]
    vectors = [part.vectors for part in parts]
    recall = np.average([part.recall for part in parts], weights=vectors) if sum(vectors) else 1.0
    size = sum(int(entry["size"]) for part in parts for entry in part.files.values())
    what = f"{sum(vectors):,} galaxies of {len(record.products)} tiles, {len(parts)} parts"
    print(f"wrote {config.out}: {what}, {size / 1e6:,.1f} MB")
    print(f"a search in a part finds {recall:.1%} of its 10 nearest (of {QUERIES} galaxies of each part)")
