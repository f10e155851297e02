"""Paths of objects on S3, with those methods of pathlib's paths that stores and runs use.

An object appears whole or not at all, and there are no folders: one is there while an object lies below it.
"""

import contextlib
import errno
import fnmatch
import functools
import glob
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from catalogs import s3
from catalogs.errors import InputRefused, UsageError
from catalogs.listing import Listing, Status

T = TypeVar("T")
R = TypeVar("R")
SCHEME = "s3"
URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)
"""Beginning of a URL, of whose two slashes a Path keeps one."""
QUERY = re.compile(r"\?[^/]*=")
"""As in a signed URL; a question mark alone is a wildcard."""
BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}")
TAIL = 2**14
"""Bytes at the end of an object that are read together and kept: metadata, the index of a shard."""
REQUESTS = 16
"""Requests of a process that are under way at a time."""
READ = 2**23
"""Bytes of an object that are read at a time, to go through all of it."""


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS, "s3")


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What work makes of each item, in order; the requests of some are under way together.

    Work must not come back here: all threads might wait for one.
    """
    return _threads().map(work, items)


class ObjectPath:
    """s3://BUCKET/KEY, an object or a folder of objects; not to be changed.

    listing : what is below it, in place of what is there by now; see `listed`
    """

    def __init__(self, bucket: str, key: str = "", listing: Listing | None = None):
        self.bucket, self.key, self.listing = bucket, key, listing

    def __str__(self) -> str:
        return f"{SCHEME}://{self.bucket}/{self.key}".rstrip("/")

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and (self.bucket, self.key) == (other.bucket, other.key)

    def __hash__(self) -> int:
        return hash((self.bucket, self.key))

    def __lt__(self, other: "ObjectPath") -> bool:
        return (self.bucket, self.key) < (other.bucket, other.key)

    def __reduce__(self) -> Any:
        return ObjectPath, (self.bucket, self.key)  # a listing is of one process

    def _at(self, key: str) -> "ObjectPath":
        """Another path of the bucket; in the listing, if it is of what was listed."""
        listing = self.listing
        if listing is not None and listing.folder and not f"{key}/".startswith(f"{listing.folder}/"):
            listing = None
        return ObjectPath(self.bucket, key, listing)

    def __truediv__(self, name: object) -> "ObjectPath":
        return self._at(f"{self.key}/{name}".strip("/"))

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> "ObjectPath":
        return self._at(self.key.rpartition("/")[0])

    @property
    def parents(self) -> list["ObjectPath"]:
        return [self.parent, *self.parent.parents] if self.key else []

    def with_name(self, name: str) -> "ObjectPath":
        return self.parent / name

    def relative_to(self, folder: "ObjectPath") -> str:
        """Its name below a folder that it is in."""
        return self.key.removeprefix(folder.key).lstrip("/")

    def resolve(self) -> "ObjectPath":
        return ObjectPath(self.bucket, self.key)

    absolute = resolve

    # ------------------------------------------------------------ what is there

    def listed(self) -> "ObjectPath":
        """This folder with the objects that it holds now: what is below it is read as it is now, or not."""
        return ObjectPath(self.bucket, self.key, Listing(self.key, dict(self._objects())))

    def _objects(self) -> Iterator[tuple[str, Status]]:
        """All objects below it, by key."""
        with s3.telling(self, self.bucket):
            for batch in s3.obstore().list(s3.client(self.bucket), prefix=self.key or None):
                for one in batch:
                    if one["path"] != self.key:  # a mark of the folder itself
                        yield one["path"], Status.of(one)

    def head(self) -> Status | None:
        """What is known of the object; None where there is none."""
        if self.listing is not None:
            return self.listing.objects.get(self.key)
        try:
            with s3.telling(self, self.bucket):
                return Status.of(s3.obstore().head(s3.client(self.bucket), self.key))
        except FileNotFoundError:
            return None

    def stat(self) -> Status:
        """As `head`. Raises FileNotFoundError."""
        if (status := self.head()) is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return status

    def is_file(self) -> bool:
        return bool(self.key) and self.head() is not None

    def is_dir(self) -> bool:
        if self.listing is not None:
            return any(key.startswith(f"{self.key}/") for key in self.listing.objects)
        return next(self._objects(), None) is not None

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["ObjectPath"]:
        with s3.telling(self, self.bucket):
            found = s3.obstore().list_with_delimiter(s3.client(self.bucket), prefix=self.key or None)
        for key in (*found["common_prefixes"], *(one["path"] for one in found["objects"])):
            if key.rstrip("/") != self.key:
                yield self._at(key.rstrip("/"))

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """What is below it by a pattern: names with wildcards, between slashes."""
        first, _, rest = pattern.partition("/")
        if not glob.has_magic(first):
            found = iter([self / first])
        else:
            hidden = first.startswith(".")
            found = (
                path
                for path in self.iterdir()
                if fnmatch.fnmatchcase(path.name, first) and (hidden or not path.name.startswith("."))
            )
        for path in found:
            if rest:
                yield from path.glob(rest)
            elif glob.has_magic(first) or path.exists():
                yield path

    def rglob(self, pattern: str) -> Iterator["ObjectPath"]:
        """All objects below it of that name."""
        objects = self.listing.objects if self.listing is not None else dict(self._objects())
        for key in objects:
            path = self._at(key)
            if key.startswith(f"{self.key}/") and fnmatch.fnmatchcase(path.name, pattern):
                yield path

    # ------------------------------------------------------------ reading

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start:stop of the object; fewer where it ends before."""
        return self.read_ranges([(start, stop)])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges of bytes, which are fetched side by side.

        Raises FileNotFoundError where there is no such object, InputRefused where it is not the listed one.
        """
        size, pieces = self.stat().st_size, dict[tuple[int, int], bytes]()
        wanted = [(max(0, min(start, size)), max(0, min(stop, size))) for start, stop in ranges]
        for start, stop in wanted:
            piece = b"" if stop <= start else self._kept(start, stop)
            if piece is None and self.listing is not None and start >= size - TAIL:
                piece = self._tail(size)[start - size : stop - size or None]
            if piece is not None:
                pieces[start, stop] = piece
        left = [span for span in dict.fromkeys(wanted) if span not in pieces]
        pieces |= zip(left, self._fetch(left), strict=True)
        return [pieces[span] for span in wanted]

    def _kept(self, start: int, stop: int) -> bytes | None:
        """Bytes start:stop, where they were fetched before and are kept."""
        return None if self.listing is None else self.listing.piece(self.key, start, stop)

    def _tail(self, size: int) -> bytes:
        """The end of an object of the listing, which is kept from now on."""
        assert self.listing is not None
        first = max(0, size - TAIL)
        (tail,) = self._fetch([(first, size)])
        self.listing.keep(self.key, first, tail)
        return tail

    @contextlib.contextmanager
    def holding(self, spans: Iterable[tuple["ObjectPath", int, int]]) -> Iterator[None]:
        """Fetch pieces (object, start, stop) of this listed store side by side, and keep them meanwhile."""
        assert self.listing is not None
        wanted = [(file, start, stop) for file, start, stop in spans if file._kept(start, stop) is None]
        contents = side_by_side(lambda span: span[0]._fetch([span[1:]])[0], wanted)
        pieces = [
            (file.key, start, content) for (file, start, _), content in zip(wanted, contents, strict=True)
        ]
        self.listing.hold(pieces)
        try:
            yield
        finally:
            self.listing.drop(pieces)

    def _fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges of bytes from the server; of the listed object, if one was listed."""
        obstore, client, options = s3.obstore(), s3.client(self.bucket), {}
        if self.listing is not None and (etag := self.listing.objects[self.key].etag):
            options["if_match"] = etag

        def fetch(span: tuple[int, int]) -> bytes:
            try:
                with s3.telling(self, self.bucket):
                    answer = obstore.get(client, self.key, options={**options, "range": span})
                    piece = answer.bytes().to_bytes()
            except FileNotFoundError:
                piece = b""
            if len(piece) != span[1] - span[0]:
                raise InputRefused(f"{self} was changed while it was being read: start again")
            return piece

        return list(map(fetch, ranges) if len(ranges) == 1 else side_by_side(fetch, ranges))

    def read_bytes(self) -> bytes:
        if self.listing is not None:
            return self.read_range(0, self.stat().st_size)
        with s3.telling(self, self.bucket):
            return s3.obstore().get(s3.client(self.bucket), self.key).bytes().to_bytes()

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The object as a file of bytes to be read."""
        assert mode == "rb", mode
        return io.BufferedReader(_Reader(self), READ)

    # ------------------------------------------------------------ writing

    def create(self, content: bytes, replacing: str | None = None) -> str | None:
        """Make the object, if there is none, or in place of that of an entity tag; returns its own.

        None where there is another one.
        """
        mode: Any = "create" if replacing is None else {"e_tag": replacing}
        obstore = s3.obstore()
        with s3.telling(self, self.bucket):
            try:
                return str(obstore.put(s3.client(self.bucket), self.key, content, mode=mode)["e_tag"])
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return None

    def write_file(self, file: Path) -> None:
        """Make a local file the object, in place of one of that name; it appears once all of it is there."""
        with file.open("rb") as content, s3.telling(self, self.bucket):
            s3.obstore().put(s3.client(self.bucket), self.key, content)

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object, if it is there."""
        with s3.telling(self, self.bucket):
            s3.obstore().delete(s3.client(self.bucket), self.key)

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a folder is there with what is in it."""


class _Reader(io.RawIOBase):
    """The bytes of an object."""

    def __init__(self, path: ObjectPath):
        self.path, self.place, self.size = path, 0, path.stat().st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        piece = self.path.read_range(self.place, self.place + len(buffer))
        buffer[: len(piece)] = piece
        self.place += len(piece)
        return len(piece)


def parse(url: str) -> ObjectPath:
    """The path of a URL, of whose slashes some may be missing. Raises UsageError where it is none of S3.

    What may be secret in it, a password or a signature, is in no message.
    """
    found = URL.match(url)
    assert found, url
    scheme, rest = found[1].lower(), url[found.end() :]
    bucket, _, key = rest.partition("/")
    said = f"{scheme}://{bucket.rpartition('@')[2]}/{QUERY.split(key)[0]}"
    if scheme != SCHEME:
        raise UsageError(
            f"{said} is a URL that is not read here: copy it, or name one that begins with s3://"
        )
    if "@" in bucket or QUERY.search(rest):
        raise UsageError(
            f"{said} came with a password or a query: name s3://BUCKET/KEY alone, and set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    if not BUCKET.fullmatch(bucket):
        raise UsageError(f"{url} names no bucket: it must be s3://BUCKET/KEY")
    parts = [part for part in key.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise UsageError(f"{url} has . or .. in it, which no name of an object has")
    return ObjectPath(bucket, "/".join(parts))
