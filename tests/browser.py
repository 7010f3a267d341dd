"""A page in a real Chromium, over its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tornado.websocket import websocket_connect

CHROMIUM = "/usr/bin/chromium"


@dataclass
class Visit:
    """What a page did and looks like.

    ``requests`` are the addresses it asked for, ``complaints`` what came to the console or was
    thrown, ``value`` what the expression gave.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    value: object = None
    picture: np.ndarray | None = None


def visit(page: Path, expression: str, profile: Path) -> Visit:
    """Open a local page, evaluate an expression in it when it is loaded, take its picture."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    options += [f"--user-data-dir={profile}", "--window-size=1200,2400", "about:blank"]
    with (profile.parent / "chromium.log").open("wb") as log:
        browser = subprocess.Popen([CHROMIUM, *options], stdout=log, stderr=log)
    try:
        return asyncio.run(_visit(_socket(profile), page.absolute().as_uri(), expression))
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


async def _visit(socket: str, address: str, expression: str) -> Visit:
    connection = await websocket_connect(socket, max_message_size=2**28)
    found = Visit()
    numbers = iter(range(1, 1000))

    async def until(wanted):
        while True:
            message = json.loads(await asyncio.wait_for(connection.read_message(), 60))
            _note(found, message)
            if wanted(message):
                return message

    async def call(method, **parameters):
        number = next(numbers)
        request = {"id": number, "method": method, "params": parameters}
        await connection.write_message(json.dumps(request))
        answer = await until(lambda m: m.get("id") == number)
        return answer["result"]

    for domain in ("Page", "Network", "Runtime", "Log"):
        await call(f"{domain}.enable")
    await call("Page.navigate", url=address)
    await until(lambda m: m.get("method") == "Page.loadEventFired")
    answer = await call("Runtime.evaluate", expression=expression, returnByValue=True)
    assert "exceptionDetails" not in answer, answer
    found.value = answer["result"].get("value")
    shot = await call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    found.picture = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    )
    connection.close()
    while await connection.read_message() is not None:
        pass
    return found


def _note(found: Visit, message) -> None:
    parameters = message.get("params", {})
    match message.get("method"):
        case "Network.requestWillBeSent":
            found.requests.append(parameters["request"]["url"])
        case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
            found.complaints.append(json.dumps(parameters))
        case "Log.entryAdded":
            found.complaints.append(parameters["entry"]["text"])
