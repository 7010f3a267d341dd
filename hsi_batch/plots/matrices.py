"""Covariances: as they are, as correlations, by their eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.session import PixelChoice
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.nodes.gaussian import covariance_rank, eigh
from hsi_batch.pipeline import Pipeline
from hsi_batch.plots.canvas import axes_or_new, bar_beside, channels_along, middles
from hsi_batch.plots.described import Source, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["correlation", "covariance", "eigen_spectrum"]


def covariance(
    data: Source,
    frames: str | Sequence[str] | None = None,
    *,
    node: str | None = None,
    pixels: PixelChoice = "valid",
    ax: Axes | None = None,
) -> Axes:
    """The sample covariance of the channels; of an archive or a pipeline no pixel is read.

    Parameters
    ----------
    data : Archive, path, xarray.Dataset, xarray.DataArray or Pipeline
        A pipeline shows the pixels of its fit, as recorded.
    frames : str or sequence of str, optional
        Selection from an archive; everything by default.
    node : str, optional
        Of a pipeline: what this node has seen, behind those that feed it.
    pixels : {"valid", "labelled-normal", "mask:NAME"}
        Which pixels of an archive count.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The matrix is ``ax.collections[0]``, ``(C, C)``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The archive keeps no statistics of these frames; the pipeline is not fitted, or the node
        has no covariance.

    Examples
    --------
    >>> import xarray as xr
    >>> cube = xr.DataArray(np.arange(60).reshape(4, 5, 3), dims=["y", "x", "channel"])
    >>> float(covariance(cube).collections[0].get_array()[0, 0])
    315.0
    """
    matrix, axis, what, words = _matrix(data, frames, node, pixels)
    limit = float(np.abs(matrix).max()) or 1.0
    ax = _draw(ax, matrix, axis, limit, f"covariance, square of {words}")
    ax.set_title(what, fontsize=9)
    return ax


def correlation(
    data: Source,
    frames: str | Sequence[str] | None = None,
    *,
    node: str | None = None,
    pixels: PixelChoice = "valid",
    ax: Axes | None = None,
) -> Axes:
    """The correlation of the channels, -1 to 1; constant channels are blank.

    Parameters and errors are those of :func:`covariance`.

    Returns
    -------
    matplotlib.axes.Axes
        The matrix is ``ax.collections[0]``, ``(C, C)``.

    Examples
    --------
    >>> import xarray as xr
    >>> cube = xr.DataArray(np.arange(60).reshape(4, 5, 3), dims=["y", "x", "channel"])
    >>> round(float(correlation(cube).collections[0].get_array()[0, 2]), 6)
    1.0
    """
    matrix, axis, what, _ = _matrix(data, frames, node, pixels)
    deviation = np.sqrt(np.diagonal(matrix))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = matrix / np.outer(deviation, deviation)
    ax = _draw(ax, found, axis, 1.0, "correlation")
    ax.set_title(what, fontsize=9)
    return ax


def eigen_spectrum(
    data: Source,
    frames: str | Sequence[str] | None = None,
    *,
    node: str | None = None,
    pixels: PixelChoice = "valid",
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Eigenvalues of the covariance, descending, on a logarithmic axis.

    A dashed line marks how many are more than rounding (above C times 2.2e-16 the largest): the
    effective rank, which the legend names, with the condition number, largest over smallest of
    them. A steep fall followed by a plain says how few dimensions the background has.

    Parameters and errors are those of :func:`covariance`; ``label`` is for the legend.

    Returns
    -------
    matplotlib.axes.Axes
        The eigenvalues are a line of C points; those that are not above 0 are NaN.

    Examples
    --------
    >>> import xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> cube = xr.DataArray(rng.normal(size=(9, 9, 3)), dims=["y", "x", "channel"])
    >>> eigen_spectrum(cube).get_legend().texts[0].get_text()
    '1 frame: rank 3 of 3, condition 1.53'
    """
    matrix, axis, what, words = _matrix(data, frames, node, pixels)
    values, _ = eigh(matrix)
    rank = covariance_rank(values)
    said = f"rank {rank} of {axis.size}"
    if rank:
        said += f", condition {values[0] / values[rank - 1]:.3g}"
    ax = axes_or_new(ax)
    number = np.arange(1, axis.size + 1)
    shown = np.where(values > 0, values, np.nan)
    (line,) = ax.plot(
        number,
        shown,
        marker=".",
        label=f"{label or what}: {said}",
    )
    if rank < axis.size:
        ax.axvline(rank + 0.5, color=line.get_color(), linestyle="--", linewidth=1)
    ax.set_yscale("log")
    ax.set(xlabel="eigenvalue, by number", ylabel=f"variance, square of {words}")
    ax.legend(frameon=False, fontsize=8)
    return ax


def _matrix(
    data: Source, frames: str | Sequence[str] | None, node: str | None, pixels: PixelChoice
) -> tuple[NDArray[np.float64], ChannelAxis, str, str]:
    if node is None:
        found = describe(data, frames, pixels)
        return found.covariance, found.axis, found.what, found.words
    if not isinstance(data, Pipeline):
        raise ConfigError(
            f"node= chooses from a pipeline, not from {type(data).__name__}.",
            hint="Leave it out.",
        )
    held = {name: each.exact_state() or {} for name, each in data.nodes.items()}
    having = [name for name, state in held.items() if "covariance" in state]
    if node not in having:
        raise ConfigError(
            f"{node!r} has no covariance; nodes that have one: {', '.join(having) or 'none'}.",
            hint="Fit the pipeline first (hb.fit); of several backgrounds take one,"
            " pipeline.for_group(NAME).",
        )
    matrix = np.asarray(held[node]["covariance"], dtype=np.float64)
    axis = data.nodes[node].axes.get("data")
    if axis is None or axis.size != len(matrix):
        axis = ChannelAxis(len(matrix))
    return matrix, axis, f"{node} of {data.name}", "its input"


def _draw(
    ax: Axes | None, matrix: NDArray[np.float64], axis: ChannelAxis, limit: float, words: str
) -> Axes:
    ax = axes_or_new(ax, 5.4, 4.4)
    x, label = channels_along(axis)
    edges = middles(x)
    mesh = ax.pcolormesh(edges, edges, matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    mesh.set_rasterized(True)
    ax.set(xlabel=label, ylabel=label, aspect="equal")
    ax.invert_yaxis()
    bar_beside(ax, mesh, words)
    return ax
