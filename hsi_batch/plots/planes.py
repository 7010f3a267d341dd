"""Planes of one frame, from what xarray holds of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.nodes import ChannelAxis

__all__ = ["Cube", "Given", "Planes", "cube_of", "frame_of", "map_of", "place_words", "value_words"]

#: A session as ``archive[NAME]`` gives it, or a cube ``(frame, y, x, channel)`` or of one frame.
Given: TypeAlias = xr.Dataset | xr.DataArray

#: Pixels on a side that are drawn; of longer frames every so many-th line and sample.
_SIDE = 2000


@dataclass(frozen=True)
class Cube:
    """A cube and what is known of its numbers.

    Attributes
    ----------
    values : xarray.DataArray, shape (frame, y, x, channel)
    quality : xarray.DataArray, optional, shape (frame, y, x)
    axis : ChannelAxis
    scale, offset : float
        From stored to physical values.
    words : str
        What the numbers are.
    name : str
        Of the session.
    """

    values: xr.DataArray
    quality: xr.DataArray | None
    axis: ChannelAxis
    scale: float
    offset: float
    words: str
    name: str


@dataclass(frozen=True)
class Planes:
    """What is drawn of a frame.

    Attributes
    ----------
    values : numpy.ndarray, shape (y, x, k) or (y, x)
    valid : numpy.ndarray of bool, shape (y, x)
    extent : tuple of float
        Left, right, bottom and top in samples and lines of the frame.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]
    extent: tuple[float, float, float, float]


def cube_of(data: Given) -> Cube:
    """The cube of a session, or one that stands alone; nothing is read.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is no cube.
    """
    group = data if isinstance(data, xr.Dataset) else None
    cube = data if group is None else group.get("cube")
    if not isinstance(cube, xr.DataArray) or cube.ndim not in (3, 4):
        shape = f" of shape {tuple(cube.shape)}" if isinstance(cube, xr.DataArray) else ""
        raise ConfigError(
            f"{type(data).__name__}{shape} is no cube (frame, y, x, channel).",
            hint="Give a session, archive['NAME'], or its cube.",
        )
    if cube.ndim == 3:
        cube = cube.expand_dims("frame")
    size = int(cube.shape[3])
    nm = cube.coords.get("wavelength") if group is None else group.get("wavelength")
    known = nm is not None and nm.shape == (size,)
    axis = ChannelAxis(size, np.asarray(nm, dtype=np.float64) if known else None)
    attrs: Mapping[Any, Any] = {} if group is None else group.attrs
    quality = None if group is None else group.get("quality")
    return Cube(
        cube,
        quality,
        axis,
        float(attrs.get("scale") or 1.0),
        float(attrs.get("offset") or 0.0),
        value_words(attrs),
        str(attrs.get("session") or cube.attrs.get("session") or ""),
    )


def value_words(attrs: Mapping[Any, Any]) -> str:
    """What physical values of a session are, for an axis."""
    quantity, units = attrs.get("quantity"), attrs.get("units")
    if quantity in (None, "dn"):
        return "counts as recorded" if quantity == "dn" else "value as recorded"
    return f"{quantity} ({units})" if units and units != "1" else str(quantity)


def place_words(name: str, frame: int) -> str:
    """A frame in words."""
    return f"{name}, frame {frame}" if name else f"frame {frame}"


def frame_of(cube: Cube, frame: int, channels: Sequence[int]) -> Planes:
    """Physical values ``(y, x, k)`` of some channels of a frame; this reads them.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No such frame or channel.
    """
    for channel in channels:
        if not 0 <= channel < cube.axis.size:
            raise ConfigError(
                f"there is no channel {channel}; there are {cube.axis.size}.",
                hint="Channels count from 0; give nm= to name a wavelength.",
            )
    picked, step = _thinned(cube.values, frame)
    stored = np.asarray(picked[..., list(channels)].values, dtype=np.float64)
    valid = np.asarray(np.isfinite(stored).all(axis=2))
    if cube.quality is not None:
        valid &= _thinned(cube.quality, frame)[0].values == 0
    height, width = cube.values.shape[1:3]
    return Planes(stored * cube.scale + cube.offset, valid, _extent(height, width, *step))


def map_of(values: xr.DataArray, frame: int) -> Planes:
    """A map ``(frame, y, x)`` or ``(y, x)`` of one frame; this reads it.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is no map, or there is no such frame.
    """
    if values.ndim == 2:
        values = values.expand_dims("frame")
    if values.ndim != 3:
        raise ConfigError(
            f"an array of shape {tuple(values.shape)} is no map (frame, y, x).",
            hint="Choose one channel of it: scores.isel(channel=0).",
        )
    picked, step = _thinned(values, frame)
    found = np.asarray(picked.values)
    height, width = values.shape[1:3]
    return Planes(found, ~np.isnan(found), _extent(height, width, *step))


def _thinned(values: xr.DataArray, frame: int) -> tuple[xr.DataArray, tuple[int, int]]:
    frames, height, width = values.shape[:3]
    if not 0 <= frame < frames:
        raise ConfigError(
            f"there is no frame {frame}; there are {frames}.", hint="Frames count from 0."
        )
    step = (-(-height // _SIDE), -(-width // _SIDE))
    return values[frame, :: step[0], :: step[1]], step


def _extent(height: int, width: int, down: int, right: int) -> tuple[float, float, float, float]:
    rows, columns = -(-height // down), -(-width // right)
    return (-0.5, columns * right - 0.5, rows * down - 0.5, -0.5)
