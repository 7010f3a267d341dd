"""Where the pixels of a session are on the ground, whichever way it is known."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.session import Session
from hsi_batch.errors import StoreError
from hsi_batch.readers.geography import Geography

__all__ = ["LinePositions", "Located", "PixelPositions", "place_of", "position_of"]

_WGS84 = "EPSG:4326"


class PixelPositions:
    """Longitude and latitude of the centre of every pixel, bilinear between them.

    Positions are counted as :class:`.Geography` does: the corner of the first pixel is (0, 0), its
    centre (0.5, 0.5). Beyond the outer centres the last step is continued.

    Parameters
    ----------
    session : Session
        With the arrays ``lon`` and ``lat`` of dimensions ``(y, x)``.
    """

    crs = _WGS84

    def __init__(self, session: Session) -> None:
        self._arrays = [session.optional(name) for name in ("lon", "lat")]
        self.shape: tuple[int, int] = session.geometry.shape[:2]
        self._held: tuple[int, int, list[NDArray[np.float64]]] = (0, 0, [])

    def lines(self, start: int, stop: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude of some lines, ``(lines, x)``."""
        lon, lat = (np.asarray(array[start:stop]) for array in self._arrays)  # type: ignore[index]
        return lon, lat

    def at(self, x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude of pixel positions."""
        columns, rows = np.broadcast_arrays(np.asarray(x, float) - 0.5, np.asarray(y, float) - 0.5)
        height, width = self.shape
        left = np.clip(np.floor(columns).astype(int), 0, max(width - 2, 0))
        top = np.clip(np.floor(rows).astype(int), 0, max(height - 2, 0))
        right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
        lon, lat = np.empty(rows.shape), np.empty(rows.shape)
        across, along = columns - left, rows - top
        # Lines are read once, a few at a time.
        for first in range(0, height, 512):
            here = (top >= first) & (top < first + 512)
            if not here.any():
                continue
            block = self.lines(first, min(first + 513, height))
            for values, out in zip(block, (lon, lat), strict=True):
                parts = [
                    values[v[here] - first, u[here]]
                    for v, u in ((top, left), (top, right), (bottom, left), (bottom, right))
                ]
                if out is lon:
                    # The short way round where 180 degrees lie between two pixels.
                    parts = [parts[0] + (p - parts[0] + 180) % 360 - 180 for p in parts]
                upper = parts[0] + (parts[1] - parts[0]) * across[here]
                lower = parts[2] + (parts[3] - parts[2]) * across[here]
                out[here] = upper + (lower - upper) * along[here]
        return (lon + 180) % 360 - 180, lat


class LinePositions:
    """Longitude and latitude of the platform at every line; the same for all its pixels.

    Parameters
    ----------
    session : Session
        With the arrays ``lon`` and ``lat`` of dimension ``y``.
    """

    crs = _WGS84

    def __init__(self, session: Session) -> None:
        self._lon, self._lat = (
            np.asarray(session.optional(name)[:])  # type: ignore[index]
            for name in ("lon", "lat")
        )

    def at(self, x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude of lines; ``x`` only says how many are asked for."""
        _, rows = np.broadcast_arrays(x, np.asarray(y, float) - 0.5)
        where = np.arange(len(self._lat))
        lon = np.interp(rows, where, np.unwrap(self._lon, period=360))
        return (lon + 180) % 360 - 180, np.interp(rows, where, self._lat)


#: Whatever turns pixel positions into map coordinates.
Located: TypeAlias = Geography | PixelPositions | LinePositions


def place_of(archive: str | None, name: str) -> Located | None:
    """Where the pixels of a session are; None if nothing says it, or the session is gone."""
    if archive is None:
        return None
    try:
        session = Session.open(archive, name)
    except StoreError:
        return None
    place = Geography.of_attrs(session.attrs.get("geography"))
    kind = dict(session.attrs.get("positions") or {}).get("of")
    if place is not None and (place.crs is not None or kind != "pixel"):
        return place
    if kind == "pixel":
        return PixelPositions(session)
    return LinePositions(session) if kind == "line" else None


def position_of(place: Located) -> str:
    """``map``, ``pixel`` or ``line``: what coordinates come from."""
    kinds = {PixelPositions: "pixel", LinePositions: "line"}
    return kinds.get(type(place), "map")
