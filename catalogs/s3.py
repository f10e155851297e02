"""S3, and servers that speak its protocol (Ceph, MinIO): how they are reached, and what failed in a sentence.

Credentials come from the environment, and stay there: no sentence of ours has them, nor what a library says,
which may quote a request. Their library is in the extra `s3`.
"""

import configparser
import contextlib
import errno
import functools
import importlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from catalogs.errors import InputRefused, UsageError

VARIABLES = {
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
}
"""Settings that several variables may tell; the first that is set is taken."""
FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
"""Variables with the names of files of settings, and where these are without."""
IN_FILES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
"""Settings of those files, and what obstore calls them."""
CREDENTIALS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
"""Variables that tell who asks: with one of them, the files' credentials are not taken."""
CONNECT_SECONDS, ANSWER_SECONDS = 5, 60
RETRIES, RETRY_SECONDS = 10, 30
"""Requests are repeated where the connection fails or the server does (5xx, too many requests)."""
RENEW = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
PUBLIC = "for a public bucket AWS_SKIP_SIGNATURE=true"
OTHER_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
"""What S3 says of credentials."""


class Environment(dict[str, str]):
    """The variables that tell how S3 is reached, for a worker on another node; never printed."""

    def __repr__(self) -> str:
        return "Environment(...)"

    __str__ = __repr__

    @classmethod
    def here(cls) -> "Environment":
        return cls({name: value for name, value in os.environ.items() if name.startswith("AWS_")})


def obstore() -> Any:
    """The library. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module("obstore")
    except ImportError as error:
        raise UsageError(f"s3:// needs obstore ({error}): pip install 'mmae-survey[s3]'") from None


def client(bucket: str) -> Any:
    """The store of a bucket, by the settings of now."""
    return _client(bucket, tuple(sorted(Environment.here().items())))


@functools.lru_cache(maxsize=64)
def _client(bucket: str, environment: tuple[tuple[str, str], ...]) -> Any:
    """A client lives as long as the variables that it was made by."""
    obstore()
    from obstore.store import S3Store

    config: Any = settings()
    options: Any = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=ANSWER_SECONDS),
        "allow_http": config.get("endpoint", "").startswith("http://"),
    }
    backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    seconds = timedelta(seconds=RETRY_SECONDS)
    retries: Any = {"max_retries": RETRIES, "retry_timeout": seconds, "backoff": backoff}
    try:
        return S3Store(bucket, config=config, client_options=options, retry_config=retries)
    except Exception as error:  # noqa: BLE001 - of any class; it may quote a setting
        raise UsageError(
            f"the AWS_* variables do not say how to reach s3://{bucket} ({type(error).__name__}): see README"
        ) from None


def settings() -> dict[str, str]:
    """Settings beside those of the variables AWS_*, which obstore reads itself."""
    found = {"region": "us-east-1"} | _of_files()
    if any(os.environ.get(name) for name in CREDENTIALS):
        found = {name: found[name] for name in ("region", "endpoint") if name in found}
    for setting, names in VARIABLES.items():
        if value := next((os.environ[name] for name in names if os.environ.get(name)), None):
            found[setting] = value
    if "endpoint" in found:
        _check_endpoint(found["endpoint"])
    return found


def _of_files() -> dict[str, str]:
    """Settings of a profile in ~/.aws: the default one, or $AWS_PROFILE."""
    profile, found = os.environ.get("AWS_PROFILE", "default"), dict[str, str]()
    for variable, usual in FILES.items():
        parser = configparser.RawConfigParser()
        with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
            parser.read(Path(os.environ.get(variable, usual)).expanduser())
        for section in (profile, f"profile {profile}"):
            if parser.has_section(section):
                values = dict(parser.items(section))
                found |= {IN_FILES[name]: value for name, value in values.items() if name in IN_FILES}
    return found


def _check_endpoint(endpoint: str) -> None:
    """Raise UsageError for an endpoint that is no address of a server, or has a password in it."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("AWS_ENDPOINT_URL must be http:// or https:// and the name of a server")
    if parts.username or parts.password or parts.query:
        raise UsageError(
            "AWS_ENDPOINT_URL must be the address of a server alone: credentials are to be in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def server() -> str:
    """The server, in words."""
    return settings().get("endpoint", "Amazon")


@contextlib.contextmanager
def telling(path: object, bucket: str) -> Iterator[None]:
    """Raise what obstore raises over an object as an error that says, in one sentence of ours, what failed.

    FileNotFoundError : there is no such object.
    UsageError : there is no such bucket.
    InputRefused : the object is another one than was to be read.
    OSError : access was denied, the server gave no answer or failed.
    """
    try:
        yield
    except (UsageError, InputRefused):
        raise
    except Exception as error:
        if not (type(error).__module__.startswith("obstore") or isinstance(error, OSError | ValueError)):
            raise  # a fault of ours
        raise _failure(path, bucket, error) from None  # whose text may quote a request


def _failure(path: object, bucket: str, error: Exception) -> Exception:
    text, kind = str(error), type(error).__name__
    code = found[1] if (found := re.search(r"<Code>(\w+)</Code>", text)) else ""
    status = found[1] if (found := re.search(r"status code: (\d+)", text)) else ""
    name = str(path)
    if code == "NoSuchBucket":
        return UsageError(f"there is no bucket {bucket} at {server()}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such object", name)
    if kind in ("PreconditionError", "NotModifiedError"):
        return InputRefused(f"{name} was changed while it was being read: start again")
    if "169.254." in text or "CREDENTIALS" in text:
        hint = f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, {PUBLIC}"
        return PermissionError(errno.EACCES, f"there are no credentials: {hint}", name)
    if code in OTHER_REGION:
        return PermissionError(errno.EACCES, "the bucket is in another region: set AWS_REGION", name)
    said = " ".join(filter(None, (status, code)))
    denied = kind in ("PermissionDeniedError", "UnauthenticatedError") or code in DENIED
    if denied or status in ("401", "403"):
        return PermissionError(errno.EACCES, f"access was denied ({said}): {RENEW}, or {PUBLIC}", name)
    if status:
        return OSError(errno.EIO, f"{server()} failed ({said}), and went on so for {RETRY_SECONDS} s", name)
    if isinstance(error, ValueError):
        return UsageError(f"{name} is no name of an object that can be read here")
    silent = f"{server()} gives no answer; the same command goes on from here"
    return OSError(errno.EHOSTUNREACH, silent, name)
