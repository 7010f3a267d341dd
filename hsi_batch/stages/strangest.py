"""The frames of scores to look at first."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.files import write_atomically
from hsi_batch.stages.outputs import check_place
from hsi_batch.stages.score_listing import list_scores
from hsi_batch.wording import counted

__all__ = ["By", "Strangest", "strangest"]

#: What makes a frame strange: its highest score, a quantile of its scores, or its flagged pixels.
By = Literal["highest", "p999", "p99", "flagged"]
_COLUMNS = {
    "highest": "score_max",
    "p999": "score_p999",
    "p99": "score_p99",
    "flagged": "flagged",
}


@dataclass(frozen=True)
class Strangest:
    """Frames in order, the strangest first.

    Attributes
    ----------
    store : str
    by : str
    rows : tuple of dict
        What the summary of the scores says of each frame, with its ``selector``.
    of : int
        Frames that were compared.
    out : str, optional
        File of selectors that was written.
    """

    store: str
    by: str
    rows: tuple[Mapping[str, Any], ...]
    of: int
    out: str | None = None

    @property
    def selectors(self) -> tuple[str, ...]:
        """A selector for each frame, as ``--frames`` takes it."""
        return tuple(str(row["selector"]) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        rows = [dict(row) for row in self.rows]
        return {"store": self.store, "by": self.by, "of": self.of, "out": self.out, "frames": rows}

    def __str__(self) -> str:
        return f"the {len(self.rows)} strangest of {counted(self.of, 'frame')} of {self.store}"


def strangest(
    store: str | os.PathLike[str],
    count: int = 10,
    *,
    by: By = "highest",
    out: str | os.PathLike[str] | None = None,
) -> Strangest:
    """Rank the frames of a store of scores; no score is read, only the summary beside the store.

    Parameters
    ----------
    store : path
        Scores.
    count : int
        Frames that are wanted, at most.
    by : {"highest", "p999", "p99", "flagged"}
        Highest score, 99.9 or 99 per cent quantile of the scores, or number of flagged pixels of a
        frame. Ties are in the order of sessions and frames.
    out : path, optional
        A file of selectors, a line each, for ``--frames @FILE``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The scores have no such figure, or the file cannot be written.
    """
    if by not in _COLUMNS:
        raise ConfigError(
            f"{by!r} is not one of {', '.join(get_args(By))}.{did_you_mean(by, get_args(By))}"
        )
    if out is not None:
        check_place(out)
    column = _COLUMNS[by]
    rows = [
        {**row, "selector": f"{session.name}[{row['frame']}]"}
        for session in list_scores(store).sessions
        for row in session.rows
        if row.get(column) is not None and not math.isnan(row[column])
    ]
    if not rows:
        raise ConfigError(
            f"the summary has no {column} of any frame.",
            path=os.fspath(store),
            hint="Score again with the output `scores` (or `decisions`, for --by flagged).",
        )
    ranked = sorted(rows, key=lambda row: -float(row[column]))[:count]
    found = Strangest(
        os.fspath(store), by, tuple(ranked), len(rows), None if out is None else os.fspath(out)
    )
    if out is not None:
        write_atomically(Path(out), "".join(f"{each}\n" for each in found.selectors))
    return found
