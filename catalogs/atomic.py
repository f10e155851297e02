"""Atomic writing of files, and exclusive locks on directories; also of objects on S3."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogs import lease
from catalogs.errors import UsageError
from catalogs.object_path import ObjectPath
from catalogs.place import Place

TEMPORARY = ".partial"
"""Ending of the names of unfinished files, which may be deleted."""
UPLOAD = "mmae-upload-"
"""Beginning of the names of folders with what is to be uploaded."""
LOCKING_SECONDS = 60.0
"""Age at which a folder has its lock, if it ever will."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of flock on file systems that do not have it, as Lustre without that option."""
SEAL = "seal_sha256"
"""Entry of a sealed JSON file."""


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming(path: Place) -> Iterator[None]:
    """Name the file in errors of the disk: those of a read or write have no name of their own."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Place) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` on success.

    What becomes an object is uploaded from a temporary folder of this machine.
    """
    if isinstance(path, ObjectPath):
        _sweep_uploads()
        with tempfile.TemporaryDirectory(prefix=UPLOAD) as folder, owned(Path(folder)):
            temporary = Path(folder, path.name)
            yield temporary
            path.write_file(temporary)
        return
    # random, because a process number is unique on one node only
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with naming(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, where nothing is yet, and rename it to `path` on success."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    temporary.mkdir(parents=True)
    try:
        with naming(path):
            yield temporary
            for made in (*temporary.rglob("*"), temporary):
                sync(made)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(path.parent)


def _sweep_uploads() -> None:
    """Remove what killed processes were about to upload; one that lives has the lock of its folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{UPLOAD}*"):
        with contextlib.suppress(OSError):  # somebody else's, in use, or gone by now
            if time.time() - folder.stat().st_mtime > LOCKING_SECONDS:
                with owned(folder):
                    shutil.rmtree(folder)


def write_json(path: Place, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Place) -> Any:
    """Content of a JSON file. Raises ValueError where it is none, OSError for a failure of the disk."""
    try:
        with naming(path):
            return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with a sha256 over all of it but its seal, so that a change shows."""
    unsealed = {name: value for name, value in content.items() if name != SEAL}
    return unsealed | {SEAL: digest(unsealed)}


def read_sealed(path: Place) -> dict[str, Any] | None:
    """Content of a JSON file that was written `sealed`; None where it is missing, damaged or edited.

    Raises OSError for a failure of the disk.
    """
    try:
        content = read_json(path)
        return content if content[SEAL] == sealed(content)[SEAL] else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or no object with a seal
        return None


def sha256(path: Place) -> str:
    """Hex sha256 of a file's bytes."""
    with naming(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Hex sha256 of JSON content, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def entry(path: Place) -> dict[str, int | str]:
    """Size and sha256 of a file, as in manifests."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def matches(path: Place, expected: dict[str, int | str]) -> bool:
    """Whether the file exists with the size and sha256 of its manifest entry."""
    return path.is_file() and path.stat().st_size == expected["size"] and sha256(path) == expected["sha256"]


@contextlib.contextmanager
def owned(directory: Place, wait: bool = False) -> Iterator[None]:
    """Lock a directory as its only writer; the kernel releases the lock however the owner ends.

    Of a folder on S3, see lease.py.

    wait : wait for another owner to end.

    Raises
    ------
    BlockingIOError
        Another process holds it, and is not waited for.
    UsageError
        The file system keeps no locks.
    """
    if isinstance(directory, ObjectPath):
        with lease.held(directory, wait):
            yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        _lock(directory, handle, wait)
        yield
    finally:
        os.close(handle)


def check_owned(directory: Place) -> None:
    """Raise OSError where a folder that this process had locked is another's by now, as it can be on S3."""
    if isinstance(directory, ObjectPath):
        lease.check(directory)


def _lock(directory: Path, handle: int, wait: bool) -> None:
    try:
        with naming(directory):
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise UsageError(
                f"the file system of {directory} keeps no locks (flock: {error.strerror}), without which two "
                "processes could write there at once: write to another one, or have it mounted with flock"
            ) from error
        raise
