"""Spectra: mean, percentile bands, extrema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hsi_batch.archive.session import PixelChoice
from hsi_batch.plots.canvas import axes_or_new, channels_along
from hsi_batch.plots.described import Source, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["spectra"]


def spectra(
    data: Source,
    frames: str | Sequence[str] | None = None,
    *,
    pixels: PixelChoice = "valid",
    percentiles: Sequence[float] = (5, 25),
    extremes: bool = False,
    label: str | None = None,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The mean spectrum, with bands of percentiles around it.

    Of an archive no pixel is read: the mean is exact, over all pixels, from the statistics that
    conversion kept; percentiles are those of the spectra that it kept as a sample (at most 16384),
    and the legend says of how many. Without a sample (labelled pixels, masks, the fit of a
    pipeline) the band is one standard deviation on both sides of the mean. Of a session or cube
    the pixels are read. Call it again with the same axes to compare.

    Parameters
    ----------
    data : Archive, path, xarray.Dataset, xarray.DataArray or Pipeline
        A pipeline shows the pixels of its fit.
    frames : str or sequence of str, optional
        Selection from an archive; everything by default.
    pixels : {"valid", "labelled-normal", "mask:NAME"}
        Which pixels of an archive count.
    percentiles : sequence of float
        A band from each to 100 minus it; none if it is empty.
    extremes : bool
        Dotted lines at the smallest and largest value of all pixels.
    label : str, optional
        For the legend; says which frames by default.
    color : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The last mean is a line with the label, bands are ``ax.collections``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The archive keeps no statistics of these frames, or sessions do not agree in channels.

    Examples
    --------
    >>> import xarray as xr
    >>> cube = xr.DataArray(np.arange(60).reshape(4, 5, 3), dims=["y", "x", "channel"])
    >>> spectra(cube).lines[0].get_ydata()
    array([28.5, 29.5, 30.5])
    """
    found = describe(data, frames, pixels)
    ax = axes_or_new(ax)
    x, words = channels_along(found.axis)
    name = label or found.what
    (line,) = ax.plot(
        x, found.mean, color=color, label=f"{name}: mean of {found.count:,} pixels", zorder=3
    )
    shade: dict[str, Any] = {"color": line.get_color(), "linewidth": 0}
    if found.sample is None and len(percentiles):
        deviation = np.sqrt(np.diagonal(found.covariance))
        low, high = found.mean - deviation, found.mean + deviation
        ax.fill_between(x, low, high, alpha=0.2, label="± 1 standard deviation", **shade)
    elif found.sample is not None:
        for lower in sorted(percentiles):
            low, high = np.percentile(found.sample, [lower, 100 - lower], axis=0)
            text = f"{lower:g} % to {100 - lower:g} % of {len(found.sample):,} spectra"
            ax.fill_between(x, low, high, alpha=0.2, label=text, **shade)
    if extremes and found.low is not None and found.high is not None:
        for bound, name in ((found.low, "smallest and largest of all"), (found.high, "_")):
            ax.plot(x, bound, linestyle=":", linewidth=1, color=line.get_color(), label=name)
    ax.set(xlabel=words, ylabel=found.words)
    ax.margins(x=0.01)
    ax.legend(frameon=False, fontsize=8)
    return ax
