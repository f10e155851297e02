"""Objects on S3 as they were listed, and pieces of them that were read."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

TAILS = 4096
"""Objects of a store whose ends are kept: 64 MB."""


class Status(NamedTuple):
    """What is known of an object without reading it; as of os.stat."""

    st_size: int
    st_mtime: float
    """When it was written, by the server's clock, to a second."""
    etag: str
    """Entity tag: another one is another content."""

    @classmethod
    def of(cls, meta: Any) -> "Status":
        return cls(meta["size"], meta["last_modified"].timestamp(), meta["e_tag"] or "")


Piece = tuple[str, int, bytes]
"""Key of an object, first byte, bytes."""


class Listing:
    """The objects below a path as they were listed, and pieces of them that were read.

    Reading an object that is another one by now fails.
    """

    def __init__(self, folder: str, objects: dict[str, Status]):
        self.folder, self.objects = folder, objects
        self.tails: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        """Ends of objects, by key: the first byte, and the bytes."""
        self.held: list[Piece] = []
        self.lock = threading.Lock()

    def piece(self, key: str, start: int, stop: int) -> bytes | None:
        """Bytes start:stop of an object, where they are here; of a whole shard, joined from its chunks."""
        with self.lock:
            here = [(first, content) for of, first, content in self.held if of == key]
            here += [self.tails[key]] if key in self.tails else []
        joined, at = [], start
        while at < stop:
            found = (piece for piece in here if piece[0] <= at < piece[0] + len(piece[1]))
            if (piece := next(found, None)) is None:
                return None
            first, content = piece
            joined.append(content[at - first : stop - first])  # the same bytes, where it is all of them
            at += len(joined[-1])
        return joined[0] if len(joined) == 1 else b"".join(joined)

    def keep(self, key: str, first: int, tail: bytes) -> None:
        """Keep the end of an object, from its byte `first`."""
        with self.lock:
            self.tails[key] = first, tail
            if len(self.tails) > TAILS:
                self.tails.popitem(last=False)

    def hold(self, pieces: Iterable[Piece]) -> None:
        with self.lock:
            self.held += pieces

    def drop(self, pieces: Iterable[Piece]) -> None:
        """Forget these pieces, and no equal ones that another thread holds."""
        mine = set(map(id, pieces))
        with self.lock:
            self.held = [piece for piece in self.held if id(piece) not in mine]
