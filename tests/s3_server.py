"""A server that speaks S3 (moto's), in a process of its own; a proxy before it, at which requests fail."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

KEY, SECRET = "AKIAOURTESTS", "a-secret-that-nobody-may-see"
PROGRAM = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://{}:{}".format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
"""
ERROR = "<Error><Code>{code}</Code><Message>no</Message><AWSAccessKeyId>{key}</AWSAccessKeyId></Error>"


@contextlib.contextmanager
def started():
    """Address of a server, which ends with the context."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    ) as process:
        yield process.stdout.readline().strip()
        process.kill()


def environment(address):
    """Variables of somebody who uses it."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_CONFIG_FILE": "/nonexistent",
    }


def make_bucket(address, name):
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")).close()


def upload(store, folder):
    """Upload a store and its manifest, as `aws s3 cp --recursive` would; returns where it is."""
    for file in [*store.rglob("*"), store.with_name(f"{store.name}.manifest.json")]:
        if file.is_file():
            (folder / str(file.relative_to(store.parent))).write_file(file)
    return folder / store.name


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on, but for those that `answer` has an answer to.

    answer : (method, path, headers) -> status and code of an error, or None
    """

    def __init__(self, address):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.answer, self.seen = address, lambda *request: None, []
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path))
        if error := self.server.answer(self.command, self.path, self.headers):
            status, code = error
            self.reply(status, {}, ERROR.format(code=code, key=KEY).encode())
            return
        url = self.server.behind + self.path
        headers = {"content-type": "application/octet-stream"} | dict(self.headers)
        request = urllib.request.Request(url, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                self.reply(answer.status, answer.headers, answer.read())
        except HTTPError as answer:
            self.reply(answer.code, answer.headers, answer.read())

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in dict(headers).items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "server", "date"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on

    def log_message(self, *_):
        """Not to the output of the tests."""


def contents(folder):
    """All objects of a folder: name -> bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")}


SECRETS = (SECRET, KEY)


def assert_silent(*texts):
    """No credentials are in what was printed or written."""
    for text in texts:
        assert not any(secret in str(text) for secret in SECRETS)


def files_with_secrets(folder):
    """Files below a folder that have the secret in them."""
    found = []
    for file in Path(folder).rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file() and SECRET.encode() in file.read_bytes():
                found.append(file)
    return found
