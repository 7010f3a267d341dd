"""What an archive holds, and how fast it was made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.plots.canvas import BLUE, GREY, ORANGE, RED, grid_of
from hsi_batch.plots.described import archive_of
from hsi_batch.stages.throughput import StageThroughput, throughput
from hsi_batch.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["archive_overview"]

#: Sessions and workers that have bars of their own.
_BARS = 30


def archive_overview(
    archive: Archive | str | os.PathLike[str],
    *,
    axes: Sequence[Axes] | NDArray[np.object_] | None = None,
) -> NDArray[np.object_]:
    """Three pictures of an archive, from its catalog and the records beside it; reads no pixels.

    Frames by session (with labels, without, failed); the state of the sessions (complete, with
    failed frames, not finished) and the share of flagged pixels; blocks per second of each worker
    while it converted. Of more than 30 sessions the 30 with the most frames are shown, and
    the rest as one bar; of workers the 30 slowest.

    Parameters
    ----------
    archive : Archive or path
    axes : sequence of three matplotlib.axes.Axes, optional

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (3,)

    Raises
    ------
    hsi_batch.errors.StoreError
        There is no archive.
    hsi_batch.errors.ConfigError
        Another number of axes.

    Examples
    --------
    >>> archive_overview("archive.zarr")  # doctest: +SKIP
    """
    held = archive_of(archive)
    shown = min(len(held), _BARS + 1)
    drawn = grid_of(axes, 3, 3, float(np.clip(1.2 + 0.22 * shown, 3.0, 8.0)))
    _frames(drawn[0], held.catalog)
    _states(drawn[1], held)
    _speeds(drawn[2], throughput(held.path))
    return drawn


def _frames(ax: Axes, catalog: pd.DataFrame) -> None:
    ax.set_title("frames by session", fontsize=10)
    ax.set_xlabel("frames")
    if not len(catalog):
        return
    table = catalog.set_index("session")[["frames", "labelled_frames", "failed_frames"]]
    if len(table) > _BARS:
        ranked = table.sort_values("frames", ascending=False, kind="stable")
        rest = ranked.iloc[_BARS:]
        table = ranked.iloc[:_BARS].copy()
        table.loc[f"{len(rest)} more"] = rest.sum()
    names = [str(name) for name in table.index]
    labelled = table["labelled_frames"].to_numpy(np.int64)
    failed = table["failed_frames"].to_numpy(np.int64)
    plain = table["frames"].to_numpy(np.int64) - labelled - failed
    left = np.zeros(len(names), dtype=np.int64)
    parts = (("labelled", labelled, BLUE), ("no labels", plain, GREY), ("failed", failed, RED))
    for text, counts, colour in parts:
        if counts.any():
            ax.barh(names, counts, left=left, color=colour, label=text)
        left = left + counts
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=8)
    _whole_numbers(ax.xaxis)
    if len(ax.containers) > 1:
        ax.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    elif ax.containers:
        ax.set_title(f"frames by session, all {ax.containers[0].get_label()}", fontsize=10)


def _states(ax: Axes, archive: Archive) -> None:
    catalog = archive.catalog
    failed = int((catalog["failed_frames"] > 0).sum()) if len(catalog) else 0
    states = {
        "complete": (len(archive) - failed, BLUE),
        "with failed frames": (failed, ORANGE),
        "not finished": (len(archive.incomplete), RED),
    }
    counts = [count for count, _ in states.values()]
    bars = ax.barh(list(states), counts, color=[colour for _, colour in states.values()])
    ax.bar_label(bars, fontsize=8, padding=3)
    ax.margins(x=0.15)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=8)
    _whole_numbers(ax.xaxis)
    pixels = int(catalog["pixels"].sum()) if len(catalog) else 0
    share = 100 * int(catalog["flagged"].sum()) / pixels if pixels else 0.0
    ax.set(title=f"state; {share:.2g} % of the pixels flagged", xlabel="sessions")
    ax.title.set_fontsize(10)


def _speeds(ax: Axes, stages: Sequence[StageThroughput]) -> None:
    ax.set_title("throughput of conversion", fontsize=10)
    ax.set_xlabel("blocks per second and worker")
    convert = next((stage for stage in stages if stage.stage == "convert"), None)
    workers = [] if convert is None else [w for w in convert.workers if w.blocks]
    if not workers:
        ax.text(0.5, 0.5, "no records", ha="center", transform=ax.transAxes)
        return
    shown = workers[:_BARS]
    names = [
        f"worker {worker.name.rpartition(':')[2]}\n{counted(worker.blocks, 'block')}"
        for worker in shown
    ]
    ax.barh(names, [worker.rate for worker in shown], color=BLUE)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=8)


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
