"""The viewer's server: this machine only, reading only, nothing but what its names stand for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from PIL import Image
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from hsi_batch._version import __version__
from hsi_batch.errors import ConfigError, HsiBatchError
from hsi_batch.viewer.content import Content, NotThere, palette

__all__ = ["Viewer", "view"]

_HOST = "127.0.0.1"
#: Names by which a browser may ask for this machine; others are those of another site.
_NAMES = (_HOST, "localhost")


class Viewer:
    """A server on a port of the loopback address, behind a token that is made for it.

    Parameters
    ----------
    content : Content
    port : int
        0 takes one that is free.

    Attributes
    ----------
    address : str
        What to open in a browser.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The port is taken or not allowed.
    """

    def __init__(self, content: Content, port: int = 0) -> None:
        listening = _listen(port)
        self.port = int(listening.getsockname()[1])
        self.token = secrets.token_urlsafe(32)
        self.address = f"http://{_HOST}:{self.port}/{self.token}/"
        known = {"content": content, "token": self.token, "port": self.port}
        handlers = [
            (r"/([^/]+)/", _Page, known),
            (r"/([^/]+)/tables\.json", _Tables, known),
            (r"/([^/]+)/frame\.json", _Frame, known),
            (r"/([^/]+)/(scores|decisions|labels)\.bin", _Map, known),
            (r"/([^/]+)/colour\.png", _Colour, known),
            (r"/([^/]+)/spectrum\.json", _Spectrum, known),
        ]
        self._server = HTTPServer(
            Application(
                handlers,
                default_handler_class=_Nothing,
                default_handler_args=known,
                # Lines of a log would hold the token.
                log_function=lambda _: None,
            )
        )
        self._server.add_socket(listening)

    async def close(self) -> None:
        """Stop listening; what is open is closed."""
        self._server.stop()
        await self._server.close_all_connections()


def _listen(port: int) -> socket.socket:
    found = socket.socket()
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((_HOST, port))
        found.listen(64)
    except (OSError, OverflowError) as error:
        found.close()
        raise ConfigError(
            f"port {port} of {_HOST} cannot be had ({error}).",
            hint="Name another with --port, or none to take one that is free.",
        ) from None
    found.setblocking(False)
    return found


class _Nothing(RequestHandler):
    """Refuses all that does not come from the page of this viewer."""

    def initialize(self, content: Content, token: str, port: int) -> None:
        self.content = content
        self._token = token
        self._hosts = {f"{name}:{port}" for name in _NAMES}

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in (
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.set_header(name, value)

    def prepare(self) -> None:
        # A name that leads here but is not ours is that of a page which had its DNS changed.
        if self.request.headers.get("Host", "").lower() not in self._hosts:
            self._refuse(403)
        elif self.request.method != "GET":
            self._refuse(405)
        else:
            given = self.path_args[0] if self.path_args else ""
            if not hmac.compare_digest(str(given).encode(), self._token.encode()):
                self._refuse(404)

    def _refuse(self, code: int) -> None:
        self.set_status(code)
        self.finish()

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_status(status_code)
        self.finish()

    def log_exception(self, *_: Any) -> None:
        """No traceback on the terminal."""

    async def get(self, *_: str) -> None:
        self._refuse(404)

    async def answer(self, make: Callable[[], tuple[str, bytes]]) -> None:
        """Send what a thread reads; what cannot be read is said in words."""
        try:
            kind, body = await asyncio.get_running_loop().run_in_executor(None, make)
        except NotThere as error:
            self.set_status(404)
            kind, body = "application/json", json.dumps({"problem": str(error)}).encode()
        except HsiBatchError as error:
            self.set_status(500)
            kind, body = "application/json", json.dumps({"problem": str(error)}).encode()
        self.set_header("Content-Type", kind)
        await self.finish(body)

    def place(self) -> tuple[str, int]:
        """The frame that is asked for."""
        return self.get_query_argument("session", strip=False), self.number("frame")

    def number(self, name: str) -> int:
        """A whole number of the query; one that is none is no place."""
        text = self.get_query_argument(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


class _Page(_Nothing):
    async def get(self, *_: str) -> None:
        page, policy = _page(self.content)
        self.set_header("Content-Security-Policy", policy)
        await self.answer(lambda: ("text/html; charset=utf-8", page.encode()))


class _Tables(_Nothing):
    async def get(self, *_: str) -> None:
        await self.answer(lambda: ("application/json", self.content.tables().encode()))


class _Frame(_Nothing):
    async def get(self, *_: str) -> None:
        place = self.place()
        await self.answer(lambda: _json(self.content.frame(*place)))


class _Map(_Nothing):
    async def get(self, *names: str) -> None:
        place, name = self.place(), names[1]

        def read() -> tuple[str, bytes]:
            values = self.content.map(*place, name)
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            return "application/octet-stream", little.tobytes()

        await self.answer(read)


class _Colour(_Nothing):
    async def get(self, *_: str) -> None:
        place = self.place()

        def read() -> tuple[str, bytes]:
            buffer = io.BytesIO()
            Image.fromarray(self.content.colour(*place)).save(buffer, format="png")
            return "image/png", buffer.getvalue()

        await self.answer(read)


class _Spectrum(_Nothing):
    async def get(self, *_: str) -> None:
        place, y, x = self.place(), self.number("y"), self.number("x")
        await self.answer(lambda: _json(self.content.spectrum(*place, y, x)))


def _json(content: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(content, allow_nan=False).encode()


def _page(content: Content) -> tuple[str, str]:
    """The page, and what it may do: run its own scripts, and ask this server."""
    environment = Environment(
        loader=PackageLoader("hsi_batch.viewer"), autoescape=select_autoescape(default=True)
    )
    shared = Environment(  # noqa: S701 - scripts and styles of ours, nothing is filled in
        loader=PackageLoader("hsi_batch.stages")
    )
    scripts = [
        shared.get_template("report.js").render(),
        environment.get_template("view.js").render(),
    ]
    page = environment.get_template("view.html.j2").render(
        title=content.place.name,
        archive=None if content.archive is None else str(content.archive.path),
        style=Markup(shared.get_template("report.css").render()),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        colours=Markup(json.dumps(palette(), separators=(",", ":"))),  # noqa: S704
        version=__version__,
    )
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline';"
        " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return page, policy


def view(
    content: Content,
    port: int = 0,
    *,
    started: Callable[[Viewer], Awaitable[None] | None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Parameters
    ----------
    content : Content
    port : int
        0 takes one that is free.
    started : callable, optional
        Is given the server when it listens.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The port is taken.
    """

    async def serve() -> None:
        viewer = Viewer(content, port)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        try:
            if started is not None:
                waited = started(viewer)
                if waited is not None:
                    await waited
            await ended.wait()
        finally:
            await viewer.close()

    asyncio.run(serve())
