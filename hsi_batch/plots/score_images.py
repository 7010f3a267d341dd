"""A map of scores with the outlines of labels and decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.errors import ConfigError
from hsi_batch.nodes.data import anomalous
from hsi_batch.plots.canvas import axes_or_new, bar_beside
from hsi_batch.plots.planes import Planes, map_of, place_words
from hsi_batch.plots.scored import Scores, maps_of
from hsi_batch.stages.pictures import score_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.lines import Line2D

__all__ = ["score_map"]

_LABELS, _DECISIONS = "#3ddc84", "#4fc3f7"


def score_map(
    scores: Scores | xr.Dataset,
    session: str | None = None,
    frame: int = 0,
    *,
    labels: Archive | xr.Dataset | xr.DataArray | None = None,
    decisions: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Scores of a frame, outlined where labels and decisions are; reads its maps, and no cube.

    The colour scale is logarithmic, from a quarter of the median to the largest score of the frame
    and over six decades at most, as in the report; it is linear where a score is below 0.
    Invalid pixels are grey. Of long frames every so many-th line is shown.

    Parameters
    ----------
    scores : ScoreResult, path or xarray.Dataset
        A store of scores, or the maps of a session of it.
    session : str, optional
        Its name, if there are several.
    frame : int
        From 0.
    labels : Archive, xarray.Dataset or xarray.DataArray, optional
        Where the labels are: the archive, a session of it, or class numbers ``(frame, y, x)``.
        Classes above 0 are outlined.
    decisions : bool
        Outline the stored decisions, if there are any.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        The map is ``ax.images[0]``, ``(y, x)``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No such session or frame, or no scores.

    Examples
    --------
    >>> import xarray as xr
    >>> scores = xr.Dataset({"scores": (("frame", "y", "x"), np.ones((1, 2, 2)))})
    >>> score_map(scores).get_title()
    'frame 0'
    """
    maps, name = maps_of(scores, session)
    if "scores" not in maps:
        raise ConfigError(
            f"there are no scores here, but {', '.join(map(str, maps)) or 'nothing'}.",
            hint="Score with the output scores (hsi-batch score --output scores).",
        )
    planes = map_of(maps["scores"], frame)
    ax = axes_or_new(ax, 6.2, 4.2)
    image = ax.imshow(
        np.ma.masked_invalid(planes.values.astype(np.float64)),
        norm=_scale(planes.values),
        cmap=_colours(),
        extent=planes.extent,
        interpolation="nearest",
    )
    bar_beside(ax, image, "score")
    drawn = []
    truth = _labels_of(labels, name)
    if truth is not None:
        drawn += _outline(ax, anomalous(map_of(truth, frame).values), planes, _LABELS, "labelled")
    if decisions and "decisions" in maps:
        said = map_of(maps["decisions"], frame).values == 1
        drawn += _outline(ax, said, planes, _DECISIONS, "decided")
    if drawn:
        _legend(ax, drawn)
    ax.set_title(place_words(name, frame), fontsize=9)
    ax.set(xlabel="sample (pixel)", ylabel="line (pixel)")
    return ax


def _scale(values: NDArray[np.floating]) -> Normalize:
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return Normalize(0, 1)
    median, highest = float(np.median(finite)), float(finite.max())
    if median > 0 and finite.min() >= 0:
        low, high = score_limits(values, median / 4, highest)
        if low < high:
            return LogNorm(low, high, clip=True)
    return Normalize(float(finite.min()), highest)


def _colours() -> Colormap:
    from matplotlib import colormaps

    return colormaps["magma"].with_extremes(bad="#808080")


def _labels_of(
    labels: Archive | xr.Dataset | xr.DataArray | None, session: str
) -> xr.DataArray | None:
    if labels is None or isinstance(labels, xr.DataArray):
        return labels
    group = labels[session] if isinstance(labels, Archive) else labels
    return group.get("label")


def _outline(
    ax: Axes, inside: NDArray[np.bool_], planes: Planes, colour: str, text: str
) -> list[Line2D]:
    """Draw the border of a region; returns what stands for it in a legend."""
    from matplotlib.lines import Line2D

    if not inside.any() or inside.shape != planes.values.shape or min(inside.shape) < 2:
        return []
    left, right, bottom, top = planes.extent
    rows, columns = inside.shape
    down, along = (bottom - top) / rows, (right - left) / columns
    # One pixel of nothing around it, so that regions at the border are closed.
    padded = np.pad(inside, 1).astype(np.uint8)
    y = top + (np.arange(-1, rows + 1) + 0.5) * down
    x = left + (np.arange(-1, columns + 1) + 0.5) * along
    ax.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.1)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    return [Line2D([], [], color=colour, label=text)]


def _legend(ax: Axes, drawn: list[Line2D]) -> None:
    """Below the words of the axis: inside of the map it would hide pixels."""
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(0, -38 / 72, ax.figure.dpi_scale_trans)
    where = ax.transAxes + down
    ax.legend(
        handles=drawn,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=where,
        borderaxespad=0.0,
        fontsize=8,
        frameon=False,
        ncols=2,
    )
