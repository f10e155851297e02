"""Objects on a server that speaks S3, and what is said where it fails."""

import pickle
import time
import traceback

import pytest
from s3_server import KEY, SECRET, assert_silent, contents

from catalogs import atomic, s3
from catalogs.errors import InputRefused, UsageError
from catalogs.object_path import ObjectPath
from catalogs.place import Place, pieces, place

NAMES = ("plain", "a b", "100%", "%20", "ü/é", "a+b=c", "q?*[x]", "#x", "~", "x'\"&<")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/x", "gs://bucket/x is a URL that is not read here"),
        (
            "https://b.s3.amazonaws.com/x?X-Amz-Signature=secret",
            "https://b.s3.amazonaws.com/x is a URL",
        ),
        ("s3://me:secret@bucket/x", "s3://bucket/x came with a password or a query"),
        ("s3://bucket/x?X-Amz-Signature=secret", "s3://bucket/x came with a password or a query"),
        ("s3://bucket/a/../../x", "has . or .. in it"),
        ("s3:///x", "names no bucket"),
    ],
)
def test_what_is_no_place_is_refused_without_its_secrets(url, said):
    with pytest.raises(UsageError) as refused:
        place(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_place_is_known_by_its_name_alone():
    path = place("S3:/bucket//tiles/a b.zarr/")
    assert str(path) == "s3://bucket/tiles/a b.zarr"
    assert (path.name, path.stem, path.suffix, str(path.parent)) == (
        "a b.zarr",
        "a b",
        ".zarr",
        "s3://bucket/tiles",
    )
    assert pickle.loads(pickle.dumps(path)) == path
    assert str(place("s3://bucket")) == str(place("s3://bucket/")) == "s3://bucket"


def test_objects_of_any_name_are_written_listed_and_read(bucket):
    for name in NAMES:
        (bucket / "f" / name).create(name.encode())
    assert contents(bucket / "f") == {name: name.encode() for name in NAMES}
    assert (bucket / "f").is_dir()
    assert not (bucket / "f").is_file()
    assert not (bucket / "f/p").exists()  # the beginning of a name is no folder


def test_more_objects_than_fit_a_page_are_listed(bucket):
    """A page has a thousand."""
    for number in range(1003):
        (bucket / f"many/{number % 2}/{number:04}").create(b"x")
    assert len([*(bucket / "many").rglob("*")]) == 1003
    assert len([*bucket.glob("many/*/*")]) == 1003
    assert [path.name for path in sorted(bucket.glob("many/*"))] == ["0", "1"]


def test_pieces_are_those_of_the_object(bucket):
    content = bytes(range(256)) * 200  # beyond the end that a listing keeps
    (bucket / "f/x").create(content)
    ranges = [(0, 10), (50_000, 60_000), (51_199, 51_200), (7, 7), (51_200, 52_000), (20_000, 45_000)]
    for file in (bucket / "f/x", bucket.listed() / "f/x"):
        for _ in range(2):
            assert pieces(file, ranges) == [content[a:b] for a, b in ranges]
        with file.open() as stream:
            stream.seek(-5, 2)
            assert stream.read() == content[-5:]
    assert atomic.sha256(bucket / "f/x") == atomic.sha256((bucket / "f").listed() / "x")


def test_an_object_that_changes_after_it_was_listed_is_refused(bucket):
    file = bucket / "f/x"
    file.create(b"first")
    before = bucket.listed()
    file.unlink()
    file.create(b"other")
    now = bucket.listed()
    file.unlink()
    for listed in (before, now):
        with pytest.raises(InputRefused, match="was changed while it was being read"):
            (listed / "f/x").read_bytes()


def test_an_object_appears_whole_or_not_at_all(bucket):
    def fail():
        with atomic.replacing(bucket / "x") as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (bucket / "x").exists()
    large = bytes(12_000_000)  # in several parts
    with atomic.replacing(bucket / "x") as temporary:
        temporary.write_bytes(large)
    assert (bucket / "x").read_bytes() == large
    assert atomic.matches(bucket / "x", {"size": len(large), "sha256": atomic.sha256(bucket / "x")})


def test_one_of_two_writers_on_a_condition_wins(bucket):
    file = bucket / "x"
    etag = file.create(b"1")
    assert file.create(b"2") is None
    assert file.create(b"3", replacing=etag)
    assert file.create(b"4", replacing=etag) is None
    assert file.read_bytes() == b"3"


# ---------------------------------------------------------------- what fails


def failure(act):
    """What is raised, as a sentence; without credentials, in the traceback either."""
    with pytest.raises((OSError, ValueError)) as raised:
        act()
    assert_silent("".join(traceback.format_exception(raised.value)))
    return raised.value


def test_what_is_not_there_is_told(bucket):
    assert isinstance(failure((bucket / "none").read_bytes), FileNotFoundError)
    assert "there is no bucket nowhere at http://127.0.0.1" in str(failure(ObjectPath("nowhere", "x").is_dir))
    assert "there is no bucket nowhere" in str(failure(lambda: ObjectPath("nowhere", "x").create(b"")))


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "AccessDenied", "access was denied (403 AccessDenied): check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "access was denied (403 SignatureDoesNotMatch)"),
        (400, "ExpiredToken", "access was denied (400 ExpiredToken)"),
        (400, "AuthorizationHeaderMalformed", "in another region: set AWS_REGION"),
    ],
)
def test_access_that_is_denied_is_told_at_once(proxy, bucket, status, code, sentence):
    proxy.answer = lambda *request: (status, code)
    assert sentence in str(failure((bucket / "x").read_bytes))
    assert len(proxy.seen) == 1


def test_a_server_that_fails_for_a_moment_is_asked_again(proxy, bucket):
    errors = [(503, "SlowDown"), (500, "InternalError")] * 2
    proxy.answer = lambda *request: errors.pop() if errors else None
    assert (bucket / "x").create(b"1")
    errors += [(503, "SlowDown")] * 2
    assert (bucket / "x").read_bytes() == b"1"
    assert not errors


def test_a_server_that_goes_on_failing_is_told(proxy, bucket, monkeypatch):
    monkeypatch.setattr(s3, "RETRIES", 2)
    proxy.answer = lambda *request: (503, "SlowDown")
    assert "failed (503 SlowDown)" in str(failure((bucket / "x").read_bytes))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    started = time.monotonic()
    assert "http://127.0.0.1:1 gives no answer; the same command" in str(failure((bucket / "x").read_bytes))
    assert time.monotonic() - started < s3.RETRY_SECONDS + s3.CONNECT_SECONDS


def test_settings_that_cannot_be_are_refused(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{KEY}:{SECRET}@127.0.0.1:1")
    assert "AWS_ENDPOINT_URL must be the address of a server alone" in str(failure((bucket / "x").read_bytes))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio:9000")
    assert "must be http:// or https://" in str(failure((bucket / "x").read_bytes))


def test_credentials_are_those_of_a_profile_where_no_variable_has_them(bucket, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id=WRONG\n[lab]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"
    )
    (tmp_path / "config").write_text("[profile lab]\nregion=eu-north-1\nendpoint_url=http://elsewhere\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert "access_key_id" not in s3.settings()  # the variables say who asks
    assert s3.settings()["region"] == "us-east-1"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    keys = {"access_key_id": KEY, "secret_access_key": SECRET}
    assert s3.settings() == keys | {"region": "eu-north-1", "endpoint": "http://elsewhere"}


def test_the_environment_of_a_worker_does_not_print(bucket):
    environment = s3.Environment.here()
    assert environment["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert_silent(repr(environment), str(environment), f"{[environment]}")
    assert_silent(pickle.loads(pickle.dumps(environment)))


def test_a_place_of_a_file_system_stays_one(tmp_path):
    here: Place = place(str(tmp_path))
    assert here == tmp_path
