"""Counts every read of a stored chunk, in this process and on the workers."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path

_seen: list[str] = []
_originals: dict = {}


def start() -> None:
    """Record the files that are read, whichever way they are read."""
    from zarr.storage import LocalStore

    _seen.clear()
    if _originals:
        return
    _originals["open"], _originals["get"] = Path.open, LocalStore.get
    original_open, original_get = Path.open, LocalStore.get

    def opened(self, mode="r", *args, **kwargs):
        if "r" in mode:
            _seen.append(str(self))
        return original_open(self, mode, *args, **kwargs)

    async def got(self, key, *args, **kwargs):
        _seen.append(str(self.root / key))
        return await original_get(self, key, *args, **kwargs)

    Path.open, LocalStore.get = opened, got


def stop() -> list[str]:
    """Stop recording; returns what was read."""
    from zarr.storage import LocalStore

    if _originals:
        Path.open, LocalStore.get = _originals["open"], _originals["get"]
        _originals.clear()
    return list(_seen)


@contextmanager
def counting(client, store, array="cube"):
    """Count the chunks of an array that are read while the block runs, by file."""
    counts: Counter = Counter()
    client.run(start)
    start()
    try:
        yield counts
    finally:
        files = [*stop(), *(f for found in client.run(stop).values() for f in found)]
        counts.update(f for f in files if f"/{array}/c/" in f and f.startswith(str(store)))
