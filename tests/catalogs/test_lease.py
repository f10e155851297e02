"""The lock of a folder on S3: one writer at a time, whatever became of the one before."""

import threading
import time

import pytest

from catalogs import atomic, lease
from catalogs.errors import UsageError


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """The clock of S3 goes by seconds."""
    for name, seconds in {"RENEW_SECONDS": 0.3, "DEAD_SECONDS": 3.0, "POLL_SECONDS": 0.5}.items():
        monkeypatch.setattr(lease, name, seconds)
    lease._known_to_keep_conditions.clear()


def test_a_folder_has_one_writer(bucket, capsys):
    folder = bucket / "run"
    with atomic.owned(folder):
        with (
            pytest.raises(BlockingIOError, match="written by another process"),
            atomic.owned(folder),
        ):
            pass
        atomic.check_owned(folder)
        assert "may have been killed" in capsys.readouterr().out
    assert not folder.exists()
    with atomic.owned(folder):
        pass


def test_one_waits_for_another_if_asked_to(bucket):
    folder, order = bucket / "run", []

    def write():
        with atomic.owned(folder, wait=True):
            order.append("second")

    with atomic.owned(folder):
        other = threading.Thread(target=write)
        other.start()
        time.sleep(4)  # longer than a dead owner is waited for
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_of_several_one_takes_over_from_a_dead_owner(bucket):
    folder, winners, losers = bucket / "run", [], []
    (folder / lease.NAME).create(b'{"owner": "killed"}')

    def take():
        try:
            with atomic.owned(folder):
                winners.append(1)
                time.sleep(3)
        except BlockingIOError:
            losers.append(1)

    rivals = [threading.Thread(target=take) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert (len(winners), len(losers)) == (1, 3)


def test_an_owner_that_was_taken_for_dead_finds_out_and_leaves_the_lock_of_the_other(bucket):
    folder = bucket / "run"
    with atomic.owned(folder):
        (folder / lease.NAME).unlink()
        (folder / lease.NAME).create(b'{"owner": "another"}')
        with pytest.raises(OSError, match="was taken over by another process"):
            atomic.check_owned(folder)
    assert (folder / lease.NAME).read_bytes() == b'{"owner": "another"}'


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_server_that_passes_over_conditions_is_refused(proxy, bucket, ignored):
    def forget(method, path, headers):
        del headers[ignored]

    proxy.answer = forget
    with pytest.raises(UsageError, match="does not keep conditional writes"), atomic.owned(bucket / "run"):
        pass
    assert not (bucket / "run").exists()
