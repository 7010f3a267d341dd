"""A real S3 server on the loopback address, and one in front of it that is slow and flaky."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hsi_batch.places import place, stores

ROOT = Path(__file__).parent.parent
BUCKET = "archives"
#: Secrets that must turn up nowhere.
SECRET = "wJalrXUtnFEMI7Kq3ZbPxRf0CYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEJr4EXAMPLETOKEN8kq2"


def server_command():
    """Path of ``moto_server``: an environment of its own has it, for its pins clash with ours."""
    named = os.environ.get("HSI_BATCH_S3_SERVER")
    beside = [
        Path(sys.prefix + "-s3") / "bin" / "moto_server",
        ROOT / ".venv-s3" / "bin" / "moto_server",
    ]
    found = named or next((str(p) for p in beside if p.exists()), None)
    return found or shutil.which("moto_server")


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Server:
    """moto's server, in memory; for as long as the block lasts."""

    def __init__(self, command):
        self.command = command
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.command, "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        )
        request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
        for _ in range(200):
            try:
                urllib.request.urlopen(request).close()
            except OSError:
                time.sleep(0.1)
            else:
                return self
        raise RuntimeError("the server did not come up")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def environment(self, url=None):
        return {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url or self.url,
            "NO_PROXY": "127.0.0.1",
        }


class Flaky:
    """Hands requests on, and makes some go wrong, by seed.

    ``refused``: 503. ``reset``: the connection is reset before the request is handed on; ``lost``:
    after, so that the answer is lost; ``cut``: in the middle of the answer. ``slow``: waits.
    """

    FATES = ("refused", "reset", "lost", "cut", "slow")

    def __init__(self, upstream, seed, share=0.25, delay=0.05, fates=FATES, status=503):
        self.upstream = upstream
        self.share, self.delay, self.fates, self.status = share, delay, fates, status
        self.random = random.Random(seed)
        self.met = Counter()
        self.guard = threading.Lock()

    def fate(self, _command=""):
        with self.guard:
            wrong = self.random.random() < self.share
            fate = self.random.choice(self.fates) if wrong else "passed"
            self.met[fate] += 1
            return fate

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def pass_on(self):
                fate = outer.fate(self.command)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fate == "refused":
                    self.send_response(outer.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fate == "reset":
                    self.break_off()
                    return
                if fate == "slow":
                    time.sleep(outer.delay)
                host = outer.upstream.removeprefix("http://")
                link = http.client.HTTPConnection(host, timeout=60)
                link.request(self.command, self.path, body, dict(self.headers))
                answer = link.getresponse()
                content = answer.read()
                if fate == "lost":
                    self.break_off()
                    return
                self.send_response(answer.status)
                length = answer.getheader("Content-Length") or str(len(content))
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if fate == "cut" and len(content) > 1:
                    self.wfile.write(content[: len(content) // 2])
                    self.break_off()
                    return
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on  # noqa: N815

            def break_off(self):
                self.wfile.flush()
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Gone(Flaky):
    """Hands on so many requests that write, and then refuses all."""

    def __init__(self, upstream, writes):
        super().__init__(upstream, seed=1, fates=("refused",))
        self.left = writes

    def fate(self, command=""):
        with self.guard:
            self.left -= command == "PUT"
            return "passed" if self.left >= 0 else "refused"


def files_of(where):
    """Everything below a URL or folder, by name."""
    where = place(where)
    if isinstance(where, Path):
        files = [file for file in where.rglob("*") if file.is_file()]
        return {file.relative_to(where).as_posix(): file.read_bytes() for file in files}
    return {str(file.relative_to(where)): file.read_bytes() for file in where.files()}


def contents(store):
    """Every chunk, by name."""
    return {name: raw for name, raw in files_of(store).items() if not name.endswith("zarr.json")}


def tell(client, environment):
    """Set variables here and on the workers, and forget what was opened with others."""

    def told(values=environment):
        os.environ.update(values)
        stores._plain.cache_clear()

    told()
    if client is not None:
        client.run(told)
