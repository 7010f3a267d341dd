"""How far sessions have moved from what a pipeline was fitted on, over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.errors import ConfigError
from hsi_batch.pipeline import Pipeline
from hsi_batch.plots.canvas import BLUE, axes_or_new
from hsi_batch.plots.described import archive_of
from hsi_batch.stages.drift import DriftResult, SessionDrift
from hsi_batch.stages.drift import drift as measure_drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["drift"]

_WORDS = {
    "shift": "shift of the mean (Mahalanobis distance)",
    "divergence": "divergence of the covariance (nats)",
    "inflation": "mean score, times that of the fit",
}
#: Sessions whose names are written along the axis.
_NAMED = 40


def drift(
    pipeline: Pipeline | str | os.PathLike[str] | DriftResult,
    archive: Archive | str | os.PathLike[str],
    *,
    frames: str | Sequence[str] | None = None,
    value: Literal["shift", "divergence", "inflation"] = "shift",
    ax: Axes | None = None,
) -> Axes:
    """Distance of each session from the fit, over the time of its first frame; reads no pixels.

    Where not every session states its time, they stand in the order of their names. See
    :class:`hsi_batch.stages.drift.Moved` for the formulas.

    Parameters
    ----------
    pipeline : Pipeline, path or DriftResult
        Fitted; or what :func:`hsi_batch.stages.drift.drift` found.
    archive : Archive or path
    frames : str or sequence of str, optional
        Selection; everything by default.
    value : {"shift", "divergence", "inflation"}
        Distance of the means, in standard deviations along its direction; divergence of the
        covariances, in nats; or the factor by which the mean RX score grows.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        A line with a point per session; sessions that cannot be compared are named in the title.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is not known what the pipeline was fitted on, or no session can be compared.

    Examples
    --------
    >>> drift("fitted.yaml", "archive.zarr", value="inflation")  # doctest: +SKIP
    """
    if value not in _WORDS:
        raise ConfigError(
            f"value {value!r} is not known.", hint=f"Choose from {', '.join(_WORDS)}."
        )
    held = archive_of(archive)
    found = pipeline
    if not isinstance(found, DriftResult):
        found = measure_drift(found, held, frames=frames)
    known = [each for each in found.sessions if _value(each, value) is not None]
    if not known:
        reasons = "; ".join(f"{s.session}: {s.reason or 'not comparable'}" for s in found.sessions)
        raise ConfigError(
            f"no session can be compared with the fit ({reasons}).",
            hint="Choose sessions of the channels and the quantity of the fit.",
        )
    from matplotlib.dates import ConciseDateFormatter

    times = [_first_time(held, each.session) for each in known]
    ax = axes_or_new(ax, 6.8, 3.8)
    heights = np.array([_value(each, value) for each in known], dtype=np.float64)
    if all(time is not None for time in times):
        order = np.argsort(np.array(times), kind="stable")
        ax.plot(np.array(times)[order], heights[order], marker="o", color=BLUE, clip_on=False)
        formatter = ConciseDateFormatter(ax.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
        ax.xaxis.set_major_formatter(formatter)
        ax.set_xlabel("time of the first frame (UTC)")
    else:
        ax.plot(np.arange(len(known)), heights, marker="o", linestyle=":", color=BLUE)
        ax.set_xlabel("session, by name")
        ax.tick_params(axis="x", rotation=30 if len(known) <= 6 else 90)
        if len(known) <= _NAMED:
            ax.set_xticks(range(len(known)), [each.session for each in known])
    if value == "inflation":
        ax.axhline(1.0, color="0.6", linestyle="--", linewidth=1, zorder=0)
    else:
        ax.set_ylim(bottom=0)
    ax.set_ylabel(_WORDS[value], fontsize=9)
    lost = len(found.sessions) - len(known)
    ax.set_title(f"{lost} of {len(found.sessions)} sessions not comparable" if lost else "")
    return ax


def _value(session: SessionDrift, value: str) -> float | None:
    return None if session.moved is None else getattr(session.moved, value)


def _first_time(archive: Archive, name: str) -> np.datetime64 | None:
    array = archive.session(name).optional("time")
    if array is None:
        return None
    first: NDArray[np.float64] = np.asarray(array[:1], dtype=np.float64).ravel()
    if not first.size or not np.isfinite(first[0]) or first[0] <= 0:
        return None
    return np.datetime64(int(first[0]), "ms")
