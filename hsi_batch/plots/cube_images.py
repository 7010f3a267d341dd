"""Images of a frame: false colour, one band, a sheet of bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.plots.canvas import axes_or_new, bar_beside, grid_of
from hsi_batch.plots.planes import Cube, Given, Planes, cube_of, frame_of, place_words
from hsi_batch.stages.pictures import display_channels, stretched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["band", "bands", "false_color"]

_INVALID = (128, 128, 128)


def false_color(data: Given, frame: int = 0, *, ax: Axes | None = None) -> Axes:
    """A frame in three bands as red, green and blue; reads the pixels of this frame.

    The bands are those nearest to 650, 550 and 450 nm, or of channels at 5/6, 1/2 and 1/6 where
    the recording does not reach these. Each is stretched by itself, from the 2nd to the 98th
    percentile of the valid pixels, as the title says. Invalid pixels are grey.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        A session, ``archive[NAME]``, or a cube ``(frame, y, x, channel)``, ``(y, x, channel)``.
    frame : int
        From 0.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The picture is ``ax.images[0]``, uint8 ``(y, x, 3)``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No cube, or no such frame.

    Examples
    --------
    >>> import xarray as xr
    >>> cube = xr.DataArray(np.random.default_rng(0).random((4, 5, 6)), dims=["y", "x", "channel"])
    >>> false_color(cube).get_title().splitlines()
    ['frame 0', 'channels 4, 3, 1, each from 2 % to 98 %']
    """
    cube = cube_of(data)
    channels, words = display_channels(cube.axis.wavelength, cube.axis.size)
    planes = frame_of(cube, frame, channels)
    image = stretched(planes.values, planes.valid)
    image[~planes.valid] = _INVALID
    ax = axes_or_new(ax, 5.6, 4.2)
    ax.imshow(image, extent=planes.extent, interpolation="nearest")
    ax.set_title(f"{place_words(cube.name, frame)}\n{words}, each from 2 % to 98 %", fontsize=9)
    ax.set(xlabel="sample (pixel)", ylabel="line (pixel)")
    return ax


def band(
    data: Given,
    channel: int | None = None,
    frame: int = 0,
    *,
    nm: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One band of a frame, with a colour bar; reads the pixels of this frame.

    Grey levels run from the 2nd to the 98th percentile of the valid pixels; invalid ones are
    transparent.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        A session, ``archive[NAME]``, or a cube.
    channel : int, optional
        Its number, from 0; the middle one by default.
    frame : int
    nm : float, optional
        The channel nearest to this wavelength, instead of a number.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The picture is ``ax.images[0]``, physical values ``(y, x)``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No cube, no such frame or channel, or wavelengths of a cube that states none.

    Examples
    --------
    >>> import xarray as xr
    >>> cube = xr.DataArray(np.arange(60.0).reshape(4, 5, 3), dims=["y", "x", "channel"])
    >>> float(band(cube, 2).images[0].get_array()[0, 1])
    5.0
    """
    cube = cube_of(data)
    chosen = _channel(cube, channel, nm)
    ax = axes_or_new(ax, 5.6, 4.2)
    image = _show(ax, frame_of(cube, frame, [chosen]), 0)
    ax.set_title(f"{place_words(cube.name, frame)}: {_named(cube, chosen)}", fontsize=9)
    bar_beside(ax, image, cube.words, extend="both")
    return ax


def bands(
    data: Given,
    channels: int | Sequence[int] = 9,
    frame: int = 0,
    *,
    axes: Sequence[Axes] | NDArray[np.object_] | None = None,
) -> NDArray[np.object_]:
    """A sheet of bands of a frame, to find those that are noise; reads the frame once.

    Every band has grey levels of its own, from the 2nd to the 98th percentile of its valid pixels.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        A session, ``archive[NAME]``, or a cube.
    channels : int or sequence of int
        How many, evenly spread, or which.
    frame : int
    axes : sequence of matplotlib.axes.Axes, optional
        One per band.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (bands,)

    Raises
    ------
    hsi_batch.errors.ConfigError
        As :func:`band`.

    Examples
    --------
    >>> import xarray as xr
    >>> cube = xr.DataArray(np.arange(60.0).reshape(4, 5, 3), dims=["y", "x", "channel"])
    >>> [each.get_title() for each in bands(cube, 2)]
    ['channel 0', 'channel 2']
    """
    cube = cube_of(data)
    if isinstance(channels, int):
        spread = np.linspace(0, cube.axis.size - 1, min(max(channels, 1), cube.axis.size))
        channels = [int(c) for c in spread.round()]
    planes = frame_of(cube, frame, channels)
    height, width = planes.valid.shape
    tall = float(np.clip(2.9 * height / width + 0.4, 1.2, 6.0))
    drawn = grid_of(axes, len(channels), min(3, len(channels)), tall)
    for at, (ax, channel) in enumerate(zip(drawn, channels, strict=True)):
        _show(ax, planes, at)
        ax.set_title(_named(cube, channel), fontsize=9)
        ax.label_outer()
    if axes is None:
        drawn[0].figure.suptitle(place_words(cube.name, frame), fontsize=10)
    return drawn


def _show(ax: Axes, planes: Planes, at: int) -> AxesImage:
    values = np.where(planes.valid, planes.values[..., at], np.nan)
    inside = values[np.isfinite(values)]
    low, high = np.percentile(inside, [2, 98]) if inside.size else (0.0, 1.0)
    ax.set(xlabel="sample (pixel)", ylabel="line (pixel)")
    return ax.imshow(
        values, cmap="gray", vmin=low, vmax=high, extent=planes.extent, interpolation="nearest"
    )


def _channel(cube: Cube, channel: int | None, nm: float | None) -> int:
    if nm is None:
        return cube.axis.size // 2 if channel is None else channel
    if channel is not None:
        raise ConfigError("channel and nm both name a band.", hint="Give one of them.")
    if cube.axis.wavelength is None:
        raise ConfigError(
            "the recording states no wavelengths.", hint="Name the band by its number, channel=."
        )
    return int(np.argmin(np.abs(cube.axis.wavelength - nm)))


def _named(cube: Cube, channel: int) -> str:
    nm = cube.axis.wavelength
    return f"channel {channel}" + ("" if nm is None else f" ({nm[channel]:g} nm)")
