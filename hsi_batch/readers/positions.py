"""Where pixels or lines are on the ground: input geometry files (IGM), and GPS tables per line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.envi import EnviSource
from hsi_batch.readers.envi_fields import read_fields
from hsi_batch.readers.folders import once_per_folder
from hsi_batch.readers.geography import crs_of
from hsi_batch.readers.geometry_names import geometry_kind

__all__ = ["Igm", "LineTrack", "find_positions", "open_igm", "read_track"]

_TABLES = (".csv", ".txt", ".gps", ".tsv")
_NAMES = {
    "line": ("line", "frame", "scanline", "row", "index"),
    "time": ("time", "timestamp", "utc", "gpstime", "datetime"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "long", "lng", "longitude"),
    "heading": ("heading", "yaw", "azimuth", "course", "track"),
}
_TABLE_HINT = (
    "Give a table with a header row: line, lat, lon, and if there are, time and heading; lines"
    " count from 0."
)
_IGM_HINT = (
    "Give the IGM of this recording: an ENVI file of its lines and samples with two or three bands"
    " (x or longitude, y or latitude, elevation)."
)


def find_positions(recording: str) -> tuple[str | None, str | None]:
    """The IGM and the GPS table that bear the name of a recording, by ``_igm`` and ``_gps``."""
    path = Path(recording)
    if not path.parent.is_dir():
        return None, None
    stem = path.stem.casefold()
    # A header may be named after its data file: scan.raw.hdr.
    stems = {stem, Path(stem).stem}
    held = _positions_in(path.parent)

    def first(kind: str) -> str | None:
        names = {name for stem in stems for name in held.get((kind, stem), ())} - {path.name}
        return str(path.with_name(min(names))) if names else None

    return first("igm"), first("gps")


@once_per_folder
def _positions_in(names: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Files of positions by kind and the recording that they name."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name.casefold())  # noqa: PTH122 - a name, of many
        scan, kind = geometry_kind(stem)
        kind = "gps" if suffix == ".gps" else kind
        if kind is not None and suffix in {"igm": (".hdr",), "gps": _TABLES}.get(kind, ()):
            found.setdefault((kind, scan), []).append(name)
    return found


@dataclass(frozen=True)
class Igm:
    """An input geometry file: map coordinates of the centre of every pixel.

    Attributes
    ----------
    path : str
        Its header.
    files : tuple of str
    crs : str
        Of its coordinates, ``EPSG:4326`` for degrees.
    nodata : float, optional
    """

    path: str
    files: tuple[str, ...]
    crs: str
    nodata: float | None

    def read(
        self, start: int, stop: int, columns: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude in degrees (WGS 84) of some lines; NaN where there is none."""
        with EnviSource(self.path) as source:
            values = source.frame(0).read(start, stop)[:, columns, :2].astype(np.float64)
        unknown = ~np.isfinite(values).all(axis=-1)
        if self.nodata is not None:
            unknown |= (values == self.nodata).any(axis=-1)
        x, y = values[..., 0], values[..., 1]
        if self.crs != "EPSG:4326":
            from pyproj import Transformer

            change = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
            x, y = change.transform(x, y)
        return np.where(unknown, np.nan, x), np.where(unknown, np.nan, y)


def open_igm(path: str, shape: tuple[int, int]) -> Igm:
    """Look at an IGM without reading its pixels, but for some lines.

    Parameters
    ----------
    path : str
        Its header.
    shape : (int, int)
        Lines and samples of the recording, before it is cropped.

    Raises
    ------
    hsi_batch.errors.SourceError
        It is of another size, holds no coordinates, or in a system that it does not name.
    """
    with EnviSource(path) as source:
        info = source.info
        if info.shape[:2] != shape or info.shape[2] not in (2, 3) or info.dtype.kind != "f":
            raise SourceError(
                f"it has {info.shape[0]} lines x {info.shape[1]} samples x {info.shape[2]} bands of"
                f" {info.dtype}; the recording has {shape[0]} lines x {shape[1]} samples.",
                path=path,
                hint=_IGM_HINT,
            )
        middle = source.frame(0).read(shape[0] // 2, shape[0] // 2 + 1)[..., :2]
    crs = crs_of(read_fields(path))
    known = middle[np.isfinite(middle).all(axis=-1)]
    if info.nodata is not None:
        known = known[(known != info.nodata).all(axis=-1)]
    degrees = bool((np.abs(known) <= (360, 90)).all()) and known.size > 0
    if crs is None and not degrees:
        raise SourceError(
            "its coordinates are no degrees, and nothing says what they are.",
            path=path,
            hint="Add 'coordinate system string' (WKT, or EPSG:32633) to its header.",
        )
    if crs is not None and crs != "EPSG:4326":
        _need_pyproj(path)
    return Igm(path, info.files, crs or "EPSG:4326", info.nodata)


def _need_pyproj(path: str) -> None:
    try:
        import pyproj  # noqa: F401
    except ImportError:
        raise SourceError(
            "its coordinates are not in degrees; pyproj is needed to make them so.",
            path=path,
            hint="Install it: pip install 'hsi-batch[geo]'.",
        ) from None


@dataclass(frozen=True)
class LineTrack:
    """Where the platform was at each line; NaN where the table does not reach.

    Attributes
    ----------
    lat, lon : numpy.ndarray of float64, shape (line,)
        Degrees.
    heading : numpy.ndarray of float64, shape (line,), optional
        Degrees clockwise from north.
    time : numpy.ndarray of float64, shape (line,), optional
        Seconds since 1970 if the table holds dates, else as it counts them.
    dated : bool
    """

    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    heading: NDArray[np.float64] | None = None
    time: NDArray[np.float64] | None = None
    dated: bool = False


def read_track(path: str, lines: int) -> LineTrack:
    """Read a table of fixes, and interpolate linearly between them.

    Longitudes and headings go the short way round. Without a column of line numbers there must be
    a row for each line.

    Parameters
    ----------
    path : str
        Text or CSV with a header row, separated by commas, semicolons, tabs or blanks.
    lines : int
        Of the recording, before it is cropped.

    Raises
    ------
    hsi_batch.errors.SourceError
        Columns are missing, values are no coordinates, or rows cannot be told to lines.
    """
    table = _columns(path)
    for name in ("lat", "lon"):
        if name not in table:
            raise SourceError(
                f"it has no column of {'latitudes' if name == 'lat' else 'longitudes'}.",
                path=path,
                hint=_TABLE_HINT,
            )
    lat, lon = _numbers(path, "lat", table["lat"]), _numbers(path, "lon", table["lon"])
    if lat.size == 0 or not ((np.abs(lat) <= 90) & (np.abs(lon) <= 360)).all():
        raise SourceError("it holds values that are no degrees.", path=path, hint=_TABLE_HINT)
    if "line" in table:
        at = _numbers(path, "line", table["line"])
    elif lat.size == lines:
        at = np.arange(lines, dtype=np.float64)
    else:
        raise SourceError(
            f"it has {lat.size} rows for {lines} lines and no column of line numbers.",
            path=path,
            hint=_TABLE_HINT,
        )
    order = np.argsort(at, kind="stable")
    at = at[order]
    if (np.diff(at) <= 0).any() or at[-1] < 0 or at[0] >= lines:
        raise SourceError(
            "a line is there twice, or none of the recording is.", path=path, hint=_TABLE_HINT
        )
    where = np.arange(lines, dtype=np.float64)

    def between(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.interp(where, at, values[order], left=np.nan, right=np.nan))

    turned = between(np.degrees(np.unwrap(np.radians(lon[order])))[np.argsort(order)])
    heading = time = None
    if "heading" in table:
        around = np.radians(_numbers(path, "heading", table["heading"]))
        unwrapped = np.unwrap(around[order])[np.argsort(order)]
        heading = np.degrees(between(unwrapped)) % 360
    dated = False
    if "time" in table:
        seconds, dated = _seconds(path, table["time"])
        time = between(seconds)
    return LineTrack(between(lat), (turned + 180) % 360 - 180, heading, time, dated)


def _columns(path: str) -> Mapping[str, Any]:
    import pandas as pd

    try:
        table = pd.read_csv(path, sep=None, engine="python", comment="#", skipinitialspace=True)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise SourceError(f"it is no table: {error}.", path=path, hint=_TABLE_HINT) from None
    found = {}
    for column in table.columns:
        plain = re.sub(r"[^a-z]", "", re.sub(r"[\[(].*", "", str(column).casefold()))
        for name, words in _NAMES.items():
            if plain in words and name not in found:
                found[name] = table[column]
    return found


def _numbers(path: str, name: str, column: Any) -> NDArray[np.float64]:
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise SourceError(
            f"{name} of row {row} is no number ({column.iloc[row]!r}).", path=path, hint=_TABLE_HINT
        )
    return np.asarray(values)


def _seconds(path: str, column: Any) -> tuple[NDArray[np.float64], bool]:
    """Times as numbers, and whether they are seconds since 1970."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).all():
        return np.asarray(numbers), False
    dates = pd.to_datetime(column, errors="coerce", utc=True)
    if dates.isna().any():
        row = int(np.flatnonzero(dates.isna().to_numpy())[0])
        raise SourceError(
            f"time of row {row} is neither a number nor a date ({column.iloc[row]!r}).",
            path=path,
            hint="Write seconds, or dates such as 2024-05-01T10:00:00.25Z.",
        )
    return (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(), True
