"""A page in a real Chromium, over its debugging protocol: looked at, typed into, clicked."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tornado.websocket import websocket_connect

CHROMIUM = "/usr/bin/chromium"
_KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40, "ArrowRight": 39, "End": 35}


@dataclass
class Visit:
    """What a page did and looks like.

    ``requests`` are the addresses it asked for, ``complaints`` what came to the console or was
    thrown, ``value`` what the expression gave.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    value: Any = None
    picture: np.ndarray | None = None


class Page:
    """A page that is open."""

    def __init__(self, connection, found: Visit) -> None:
        self._connection = connection
        self._numbers = iter(range(1, 10**6))
        self.found = found

    async def until(self, wanted):
        while True:
            message = json.loads(await asyncio.wait_for(self._connection.read_message(), 60))
            _note(self.found, message)
            if wanted(message):
                return message

    async def call(self, method, **parameters):
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        await self._connection.write_message(json.dumps(request))
        answer = await self.until(lambda m: m.get("id") == number)
        assert "error" not in answer, answer
        return answer["result"]

    async def value(self, expression):
        """What an expression gives; promises are awaited."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait(self, expression):
        """Until an expression is true."""
        deadline = time.monotonic() + 30
        while not await self.value(expression):
            assert time.monotonic() < deadline, expression
            await asyncio.sleep(0.05)

    async def press(self, key, text=None):
        """Press and release a key."""
        said = text or {"Enter": "\r", " ": " "}.get(key)
        known = {"key": key, "code": "Space" if key == " " else key}
        known |= {"windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {}
        down = {"type": "keyDown", "text": said} if said else {"type": "rawKeyDown"}
        await self.call("Input.dispatchKeyEvent", **known, **down)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    async def type(self, text):
        """Type into what has the focus."""
        for letter in text:
            await self.press(letter, letter)

    async def click(self, selector, at=(0.5, 0.5)):
        """Click into an element, by the mouse."""
        box = json.loads(
            await self.value(
                f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
                e.scrollIntoView({{block: "center", behavior: "instant"}});
                const b = e.getBoundingClientRect();
                return JSON.stringify([b.x, b.y, b.width, b.height]); }})()"""
            )
        )
        place = {"x": box[0] + at[0] * box[2], "y": box[1] + at[1] * box[3]}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place
            )

    async def dress(self, scheme="light", media="", width=1200, height=2400):
        """Colours that are preferred, the medium, and the size of the window."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", media=media, features=features)
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def picture(self, whole=True):
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))


def visit(page: Path | str, expression: str, profile: Path) -> Visit:
    """Open a page, evaluate an expression in it when it is loaded, take its picture."""

    async def look(opened: Page) -> None:
        opened.found.value = await opened.value(expression)
        opened.found.picture = await opened.picture()

    return drive(page, profile, look)


def drive(page: Path | str, profile: Path, steps: Callable[[Page], Awaitable[None]]) -> Visit:
    """Open a local page or an address, and do something with it."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    options += [f"--user-data-dir={profile}", "--window-size=1200,2400", "about:blank"]
    address = page if isinstance(page, str) else page.absolute().as_uri()
    with (profile.parent / "chromium.log").open("wb") as log:
        browser = subprocess.Popen([CHROMIUM, *options], stdout=log, stderr=log)
    try:
        return asyncio.run(_drive(_socket(profile), address, steps))
    finally:
        browser.terminate()
        browser.wait(30)


def _socket(profile: Path) -> str:
    port = profile / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while not (port.exists() and port.read_text().strip()):
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.05)
    address = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
    while True:
        with urllib.request.urlopen(address, timeout=30) as answer:
            pages = [t for t in json.load(answer) if t["type"] == "page"]
        if pages:
            return pages[0]["webSocketDebuggerUrl"]
        assert time.monotonic() < deadline, "Chromium has no page"
        time.sleep(0.05)


async def _drive(socket: str, address: str, steps: Callable[[Page], Awaitable[None]]) -> Visit:
    connection = await websocket_connect(socket, max_message_size=2**28)
    page = Page(connection, Visit())
    try:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        await page.call("Page.navigate", url=address)
        await page.until(lambda m: m.get("method") == "Page.loadEventFired")
        await steps(page)
    finally:
        connection.close()
        while await connection.read_message() is not None:
            pass
    return page.found


def _note(found: Visit, message) -> None:
    parameters = message.get("params", {})
    match message.get("method"):
        case "Network.requestWillBeSent":
            found.requests.append(parameters["request"]["url"])
        case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
            found.complaints.append(json.dumps(parameters))
        case "Log.entryAdded":
            found.complaints.append(parameters["entry"]["text"])
