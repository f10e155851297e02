"""A lock on a folder of objects. S3 keeps no locks, but writes on a condition: the owner renews an object.

An owner that has not done so for a while is taken for dead, by the clock of the server. One that was only
asleep finds out when it asks `check`.
"""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from catalogs.errors import UsageError
from catalogs.object_path import ObjectPath

NAME = "owner.lock"
RENEW_SECONDS, DEAD_SECONDS = 10.0, 60.0
POLL_SECONDS = 2.0


@dataclass
class Lease:
    """The lock of a folder, while this process has it."""

    lock: ObjectPath
    token: str
    etag: str
    ended: threading.Event = field(default_factory=threading.Event)

    def renew(self) -> None:
        """Renew it until it ends, or is another's; runs on a thread of its own."""
        while not self.ended.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError, ValueError):  # the next time, or it is lost
                if etag := self.lock.create(_content(self.token), self.etag):
                    self.etag = etag
                elif _owner(self.lock) == self.token:  # renewed by a request whose answer was lost
                    self.etag = self.lock.stat().etag
                else:
                    return


_held: dict[ObjectPath, Lease] = {}


@contextlib.contextmanager
def held(folder: ObjectPath, wait: bool = False) -> Iterator[None]:
    """Lock a folder as its only writer; another takes the lock a minute after this process was killed.

    wait : wait for another owner to end.

    Raises
    ------
    BlockingIOError
        Another process holds it, and is not waited for.
    UsageError
        The server does not know writes on a condition.
    """
    lock, token = folder / NAME, secrets.token_hex(8)
    _check_conditions(folder, token)
    while (etag := lock.create(_content(token)) or _taken_over(lock, token, wait)) is None:
        pass
    lease = Lease(lock, token, etag)
    thread = threading.Thread(target=lease.renew, name="lease", daemon=True)
    thread.start()
    _held[folder] = lease
    try:
        yield
    finally:
        del _held[folder]
        lease.ended.set()
        thread.join()
        with contextlib.suppress(OSError):  # it is told dead in a minute
            if _owner(lock) == token:
                lock.unlink()


def check(folder: ObjectPath) -> None:
    """Raise OSError where a folder that this process had locked is another's by now."""
    if (lease := _held.get(folder)) and _owner(lease.lock) != lease.token:
        raise OSError(
            f"{folder} was taken over by another process, as this one had not been heard of for "
            f"{DEAD_SECONDS:.0f} s"
        )


def _content(token: str) -> bytes:
    """Never the same twice, so that a renewal changes the entity tag."""
    return json.dumps({"owner": token, "renewal": secrets.token_hex(8)}).encode()


def _owner(lock: ObjectPath) -> str | None:
    try:
        return str(json.loads(lock.read_bytes())["owner"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


_known_to_keep_conditions: set[str] = set()


def _check_conditions(folder: ObjectPath, token: str) -> None:
    """Raise UsageError where the server passes over conditions: two processes could hold a lock."""
    if folder.bucket in _known_to_keep_conditions:
        return
    with _probe(folder, token) as (probe, etag):
        if etag is None or probe.create(b"2") is not None or probe.create(b"3", f'"{token}"') is not None:
            raise UsageError(
                f"the S3 server of {folder} does not keep conditional writes (If-None-Match, If-Match), "
                "without which two processes could write there at once: write to a folder of this machine "
                "with --out, and upload what comes of it"
            )
    _known_to_keep_conditions.add(folder.bucket)


def _time_of_server(folder: ObjectPath, token: str) -> float:
    """What time it is by the server's clock, seconds."""
    with _probe(folder, token) as (probe, _):
        return probe.stat().st_mtime


@contextlib.contextmanager
def _probe(folder: ObjectPath, token: str) -> Iterator[tuple[ObjectPath, str | None]]:
    """An object that was just made, and its entity tag."""
    probe = folder / f".{token}.probe"
    try:
        yield probe, probe.create(b"1")
    finally:
        probe.unlink()


def _taken_over(lock: ObjectPath, token: str, wait: bool) -> str | None:
    """The entity tag of the lock, taken over from an owner that has died; None where that ended it.

    Raises BlockingIOError where the owner lives, and is not waited for.
    """
    folder, seen, said = lock.parent, lock.head(), False
    while seen and (age := _time_of_server(folder, token) - seen.st_mtime) < DEAD_SECONDS:
        if not said:
            said = True
            print(
                f"{folder} has a writer, which may have been killed: {DEAD_SECONDS - age:.0f} s to see",
                flush=True,
            )
        time.sleep(POLL_SECONDS)
        latest = lock.head()
        if latest and latest.etag != seen.etag and not wait:
            raise BlockingIOError(f"{folder} is being written by another process")
        seen = latest
    return lock.create(_content(token), seen.etag) if seen else None
