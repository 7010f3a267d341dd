"""What the moments of columns tell about a line scanner: dead and hot columns, stripes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.columns import ColumnMoments

__all__ = ["Striping", "striping"]

#: Columns whose median a column is compared with, and least number of columns for it.
_WINDOW, _LEAST = 9, 5
#: A column is hot beyond so many robust deviations, and so much of the spread within columns.
_FAR, _SHARE = 8.0, 0.5
#: Deviations per median absolute deviation of Gaussian values.
_MAD = 1.4826


@dataclass(frozen=True)
class Striping:
    """Columns that are not like their neighbours.

    Attributes
    ----------
    empty : tuple of int
        Columns without valid pixels: flagged throughout.
    dead : tuple of int
        Columns that are constant in a channel in which most vary.
    hot, weak : tuple of int
        Columns whose mean is far above, or below, the median of 9 columns around it.
    share : numpy.ndarray of float64, shape (channel,)
        Stripes: root mean square of that difference over all other columns, as a share of the
        standard deviation within columns; NaN where that is 0.
    """

    empty: tuple[int, ...]
    dead: tuple[int, ...]
    hot: tuple[int, ...]
    weak: tuple[int, ...]
    share: NDArray[np.float64]

    @property
    def total(self) -> float:
        """Root mean square of :attr:`share`; NaN if it is nowhere known."""
        known = self.share[np.isfinite(self.share)]
        return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")

    def __str__(self) -> str:
        parts = [
            f"{len(columns)} {name} ({_listed(columns)})"
            for name, columns in (
                ("without valid pixels", self.empty),
                ("dead", self.dead),
                ("hot", self.hot),
                ("weak", self.weak),
            )
            if columns
        ]
        if np.isfinite(self.total):
            worst = int(np.nanargmax(self.share))
            parts.append(
                f"stripes of {100 * self.total:.1f} % of the deviation within columns"
                f" (channel {worst}: {100 * self.share[worst]:.1f} %)"
            )
        return "; ".join(parts) or "nothing stands out"


def striping(columns: ColumnMoments, used: NDArray[np.bool_] | None = None) -> Striping | None:
    """Compare every column with its neighbours; None for frames too narrow or too short for it.

    Parameters
    ----------
    columns : ColumnMoments
    used : numpy.ndarray of bool, shape (channel,), optional
        Channels that count.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> lines = rng.normal(100, 1, (500, 20, 2))
    >>> lines[:, 3] = 7
    >>> lines[:, 12] += 50
    >>> found = striping(ColumnMoments.empty(20, 2, "float64").update(lines))
    >>> found.dead, found.hot
    ((3,), (12,))
    """
    picked = np.ones(columns.shape[1], dtype=bool) if used is None else used
    count, width = columns.columns, columns.shape[0]
    there = count >= 2
    if width < _WINDOW or np.count_nonzero(there) < _LEAST or not picked.any():
        return None
    mean = columns.mean[:, picked]
    spread = np.sqrt(columns.variance()[:, picked])
    varies = np.nanmedian(spread[there], axis=0) > 0
    constant = there[:, None] & (spread == 0) & varies
    dead = constant.any(axis=1)
    good = there & ~dead
    apart = mean - _around(np.where(good[:, None], mean, np.nan))
    within = np.sqrt(np.mean(spread[good] ** 2, axis=0)) if good.any() else np.zeros(mean.shape[1])
    middle = np.nanmedian(np.abs(apart[good]), axis=0) if good.any() else within
    error = within / np.sqrt(max(float(np.median(count[good])), 1.0)) if good.any() else within
    limit = np.maximum(_FAR * np.maximum(_MAD * middle, error), _SHARE * within)
    hot = (good[:, None] & (apart > limit) & varies).any(axis=1)
    weak = (good[:, None] & (apart < -limit) & varies).any(axis=1) & ~hot
    rest = good & ~hot & ~weak
    share = np.full(columns.shape[1], np.nan)
    if rest.any():
        stripes = np.sqrt(np.nanmean(apart[rest] ** 2, axis=0))
        share[np.flatnonzero(picked)[within > 0]] = (stripes / np.where(within, within, 1))[
            within > 0
        ]
    return Striping(_at(count == 0), _at(dead), _at(hot), _at(weak), share)


def _at(marks: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(column) for column in np.flatnonzero(marks))


def _around(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of the columns around each, without those that are NaN."""
    half = _WINDOW // 2
    padded = np.pad(mean, ((half, half), (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=0)
    with warnings.catch_warnings():
        # Where all columns around are dead.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(windows, axis=-1))


def _listed(columns: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, columns[:8]))
    return f"{shown} and {len(columns) - 8} more" if len(columns) > 8 else shown
