"""Connected regions of flagged pixels, from runs of lines: no block is a border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Regions", "Runs", "regions_of", "runs_of"]


@dataclass(frozen=True)
class Runs:
    """Runs of flagged pixels, in the order of lines and columns; columns ``x0:x1`` of line ``y``.

    Attributes
    ----------
    y, x0, x1 : numpy.ndarray of int64, shape (n,)
    total, peak : numpy.ndarray of float64, shape (n,)
        Sum and maximum of the scores.
    peak_x : numpy.ndarray of int64, shape (n,)
        Column of the maximum.
    labelled : numpy.ndarray of int64, shape (n,)
        Pixels that labels call anomalous.
    """

    y: NDArray[np.int64]
    x0: NDArray[np.int64]
    x1: NDArray[np.int64]
    total: NDArray[np.float64]
    peak: NDArray[np.float64]
    peak_x: NDArray[np.int64]
    labelled: NDArray[np.int64]

    @classmethod
    def join(cls, parts: list[Runs]) -> Runs:
        """Runs of lines that follow each other."""
        names = ("y", "x0", "x1", "total", "peak", "peak_x", "labelled")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.y)


def runs_of(
    flags: NDArray[np.bool_],
    scores: NDArray[Any] | None,
    anomalous: NDArray[np.bool_] | None,
    start: int,
) -> Runs:
    """Runs of the lines from ``start`` on.

    Parameters
    ----------
    flags : numpy.ndarray of bool, shape (lines, x)
    scores : numpy.ndarray, shape (lines, x), optional
    anomalous : numpy.ndarray of bool, shape (lines, x), optional
        What labels say.
    start : int

    Examples
    --------
    >>> found = runs_of(np.array([[True, True, False, True]]), None, None, 5)
    >>> found.y, found.x0, found.x1
    (array([5, 5]), array([0, 3]), array([2, 4]))
    """
    padded = np.zeros((flags.shape[0], flags.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = flags
    steps = np.diff(padded, axis=1)
    y, x0 = np.nonzero(steps == 1)
    x1 = np.nonzero(steps == -1)[1]
    width = flags.shape[1]
    if not len(y):
        nothing = np.zeros(0, dtype=np.int64)
        return Runs(nothing, nothing, nothing, np.zeros(0), np.zeros(0), nothing, nothing)
    values = np.zeros(flags.shape) if scores is None else np.nan_to_num(scores, nan=0.0)
    flat = np.append(values.astype(np.float64).ravel(), 0.0)
    bounds = np.column_stack([y * width + x0, y * width + x1]).ravel()
    total = np.add.reduceat(flat, bounds)[::2]
    peak = np.maximum.reduceat(flat, bounds)[::2]
    # The first column that has the maximum of its run.
    chosen = np.flatnonzero(flags.ravel())
    owner = np.repeat(np.arange(len(y)), x1 - x0)
    top = flat[chosen] == peak[owner]
    _, first = np.unique(owner[top], return_index=True)
    peak_x = chosen[top][first] % width
    marks = np.zeros(flags.size + 1, dtype=np.int64)
    if anomalous is not None:
        marks[:-1] = anomalous.ravel()
    labelled = np.add.reduceat(marks, bounds)[::2]
    return Runs(y + start, x0, x1, total, peak, peak_x, labelled)


@dataclass(frozen=True)
class Regions:
    """Regions of one frame, ordered by their first pixel.

    Attributes
    ----------
    of_run : numpy.ndarray of int64, shape (runs,)
        The region of each run.
    columns : dict of numpy.ndarray
        ``y0, x0, y1, x1`` (ends outside), ``area``, ``max_score``, ``mean_score``, ``peak_y``,
        ``peak_x``, ``centre_y``, ``centre_x`` (pixel centres are whole numbers), ``labelled``.
    """

    of_run: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["area"])


def regions_of(runs: Runs, width: int) -> Regions:
    """Join runs that touch, also at corners.

    Examples
    --------
    >>> flags = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], dtype=bool)
    >>> regions_of(runs_of(flags, None, None, 0), 4).columns["area"]
    array([2, 1])
    """
    count = len(runs)
    stride = width + 2
    starts, ends = runs.y * stride + runs.x0, runs.y * stride + runs.x1
    # Runs of the next line that end at or behind my first column and begin at or before my end.
    first = np.searchsorted(ends, (runs.y + 1) * stride + runs.x0, "left")
    last = np.searchsorted(starts, (runs.y + 1) * stride + runs.x1, "right")
    touching = np.maximum(last - first, 0)
    above = np.repeat(np.arange(count), touching)
    within = np.arange(touching.sum()) - np.repeat(np.cumsum(touching) - touching, touching)
    below = np.repeat(first, touching) + within
    links = coo_array((np.ones(len(above), dtype=bool), (above, below)), shape=(count, count))
    found, label = connected_components(links, directed=False)
    # Numbered by their first pixel, whatever the algorithm calls them.
    _, opening = np.unique(label, return_index=True)
    rank = np.empty(found, dtype=np.int64)
    rank[np.argsort(opening)] = np.arange(found)
    label = rank[label]
    length = runs.x1 - runs.x0

    def summed(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(label, values, minlength=found).astype(np.float64)

    def least(values: NDArray[np.int64]) -> NDArray[np.int64]:
        out = np.full(found, np.iinfo(np.int64).max)
        np.minimum.at(out, label, values)
        return out

    area = summed(length)
    peak = np.full(found, -np.inf)
    np.maximum.at(peak, label, runs.peak)
    holder = np.flatnonzero(runs.peak == peak[label])
    _, at = np.unique(label[holder], return_index=True)
    top = holder[at]
    columns = {
        "y0": least(runs.y),
        "x0": least(runs.x0),
        "y1": -least(-runs.y) + 1,
        "x1": -least(-runs.x1),
        "area": area.astype(np.int64),
        "max_score": peak,
        "mean_score": summed(runs.total) / area,
        "peak_y": runs.y[top],
        "peak_x": runs.peak_x[top],
        "centre_y": summed(runs.y * length) / area,
        "centre_x": summed((runs.x0 + runs.x1 - 1) / 2 * length) / area,
        "labelled": summed(runs.labelled).astype(np.int64),
    }
    return Regions(label, columns)
