"""A geographic lookup table made from the longitude and latitude of every pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.readers.geography import Geography
from hsi_batch.stages.places import PixelPositions

__all__ = ["NearestPixels"]

#: Lines of pixels that are looked at together, and rows of the map.
_LINES, _ROWS = 512, 256
#: Cells of a map per pixel, at most: more come from coordinates that are wrong.
_MOST = 16
_DEGREE = math.pi / 180


class NearestPixels:
    """For each cell of a map grid in degrees, the pixel whose centre is nearest.

    Cells are as large on the ground as the median distance of neighbouring pixels; one that is
    farther from every centre than half the diagonal of a pixel holds nothing. Distances are those
    of the plane that touches the sphere in the middle of the scene.

    Parameters
    ----------
    positions : PixelPositions
    name : str
        Of the session, for messages.

    Attributes
    ----------
    place : Geography
        Of the grid.
    shape : (int, int)

    Raises
    ------
    hsi_batch.errors.ConfigError
        No pixel has a position, or so few lie so far apart that the map would be empty.
    """

    def __init__(self, positions: PixelPositions, name: str) -> None:
        self._positions = positions
        west, east, south, north, across, along = _extent(positions, name)
        self._squeeze = math.cos(_DEGREE * (south + north) / 2)
        # Degrees of latitude.
        step = math.sqrt(across * along)
        self._reach = math.hypot(across, along) / 2 * 1.001
        self._step = (step / self._squeeze, step)
        width = max(round((east - west) / self._step[0]) + 1, 1)
        height = max(round((north - south) / self._step[1]) + 1, 1)
        pixels = positions.shape[0] * positions.shape[1]
        if height * width > max(_MOST * pixels, 10**6):
            raise ConfigError(
                f"the positions of session {name} span {east - west:.3g} x {north - south:.3g}"
                f" degrees, {height} x {width} cells for {pixels} pixels.",
                hint="Some are wrong: state the value that stands for missing ones ('data ignore"
                " value' in the header of the IGM), and convert again.",
            )
        self.shape = (height, width)
        corner = (west - self._step[0] / 2, north + self._step[1] / 2)
        transform = (corner[0], self._step[0], 0.0, corner[1], 0.0, -self._step[1])
        self.place = Geography(transform, PixelPositions.crs)
        self._line = np.full(self.shape, -1, dtype=np.int32)
        self._column = np.full(self.shape, -1, dtype=np.int32)
        self._find()

    def _find(self) -> None:
        from scipy.spatial import cKDTree

        height, width = self.shape
        left, top = self.place.at(0.5, 0.5)
        x = (left + np.arange(width) * self._step[0]) * self._squeeze
        best = np.full(self.shape, np.inf, dtype=np.float32)
        lines = self._positions.shape[0]
        for start in range(0, lines, _LINES):
            lon, lat = self._positions.lines(start, min(start + _LINES, lines))
            known = np.isfinite(lon) & np.isfinite(lat)
            if not known.any():
                continue
            row, column = np.nonzero(known)
            points = np.column_stack([_unwrapped(lon[known], left) * self._squeeze, lat[known]])
            tree = cKDTree(points)
            # Only the cells around these lines.
            rows = _cells((top - points[:, 1]) / self._step[1], height)
            columns = _cells((points[:, 0] / self._squeeze - left) / self._step[0], width)
            for first in range(rows.start, rows.stop, _ROWS):
                part = slice(first, min(first + _ROWS, rows.stop))
                y = top - np.arange(part.start, part.stop) * self._step[1]
                grid = np.stack(np.meshgrid(x[columns], y), axis=-1)
                far, found = tree.query(grid, distance_upper_bound=self._reach)
                nearer = far < best[part, columns]
                best[part, columns][nearer] = far[nearer]
                self._line[part, columns][nearer] = start + row[found[nearer]]
                self._column[part, columns][nearer] = column[found[nearer]]

    def check(self, session: str, height: int, width: int) -> None:
        """Its own pixels are there."""

    def mapped(self, values: NDArray[Any], nothing: Any) -> NDArray[Any]:
        """A map ``(y, x)`` on the grid."""
        known = self._line >= 0
        out = np.full(self.shape, nothing, dtype=values.dtype)
        out[known] = values[self._line[known], self._column[known]]
        return out


def _cells(at: NDArray[np.float64], size: int) -> slice:
    """Cells that points lie in, and a few around."""
    first, last = int(np.floor(at.min())) - 2, int(np.ceil(at.max())) + 3
    return slice(max(first, 0), max(min(last, size), 0))


def _unwrapped(lon: NDArray[np.float64], west: float) -> NDArray[np.float64]:
    """Longitudes that do not jump east of ``west``."""
    return west - 1.0 + (lon - west + 1.0) % 360


def _extent(
    positions: PixelPositions, name: str
) -> tuple[float, float, float, float, float, float]:
    """Bounds in degrees, and median distances across and along the lines in degrees of latitude."""
    height, _ = positions.shape
    bounds, steps = [], []
    origin: float | None = None
    for start in range(0, height, _LINES):
        lon, lat = positions.lines(start, min(start + _LINES, height))
        known = np.isfinite(lon) & np.isfinite(lat)
        if not known.any():
            continue
        origin = float(lon[known][0]) if origin is None else origin
        lon = origin + (lon - origin + 180) % 360 - 180
        bounds.append((lon[known].min(), lon[known].max(), lat[known].min(), lat[known].max()))
        squeeze = math.cos(_DEGREE * float(lat[known].mean()))
        steps.append([_between(lon * squeeze, lat, axis) for axis in (1, 0)])
    if not bounds:
        raise ConfigError(
            f"no pixel of session {name} has a position.",
            hint="Convert it again with the IGM of this recording (--igm FILE).",
        )
    low, high = np.min(bounds, axis=0), np.max(bounds, axis=0)
    found = [float(np.nanmedian([s[i] for s in steps])) for i in (0, 1)]
    # One line, or one column, has no neighbours on that side.
    across, along = (v if np.isfinite(v) and v > 0 else None for v in found)
    one = across or along or 1e-5
    return low[0], high[1], low[2], high[3], across or one, along or one


def _between(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> float:
    if x.shape[axis] < 2:
        return math.nan
    steps = np.hypot(np.diff(x, axis=axis), np.diff(y, axis=axis))
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if steps.size else math.nan
