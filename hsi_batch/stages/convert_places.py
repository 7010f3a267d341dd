"""Pixels that a conversion flags by where they are: outside the region, dead columns."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError, PipelineError, SourceError
from hsi_batch.nodes.view import channels_of
from hsi_batch.stages.mask_terms import Polygon, Spans, mask_term
from hsi_batch.statistics.quality import Quality

__all__ = ["check_places", "dead_columns", "placed_flags", "region_of"]


@lru_cache(maxsize=16)
def region_of(text: str) -> Spans | Polygon:
    """The region that ``--roi`` says.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Not columns, lines or a polygon.

    Examples
    --------
    >>> region_of("100:900")
    Spans(x=(100, 900), y=(0, None))
    """
    try:
        found = mask_term(text)
    except ConfigError:
        found = None
    if not isinstance(found, Spans | Polygon):
        raise ConfigError(
            f"the region {text!r} is neither columns, lines, nor a polygon.",
            hint="Write --roi 100:900 (columns), x=100:900,y=0:5000, or 'polygon (x,y) (x,y)"
            " (x,y)'; pixels by value or from a file are named with hsi-batch mask.",
        )
    return found


@lru_cache(maxsize=16)
def dead_columns(text: str) -> tuple[int, ...]:
    """The columns that ``--dead-columns`` names, such as ``31,47,100-102``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Not numbers of columns, ascending.

    Examples
    --------
    >>> dead_columns("31,47-49")
    (31, 47, 48, 49)
    """
    try:
        return tuple(int(column) for column in channels_of(text))
    except PipelineError:
        raise ConfigError(
            f"dead columns {text!r} are not ascending numbers of columns.",
            hint="Write for example --dead-columns 31,47,100-102; columns count from 0.",
        ) from None


def check_places(path: str, shape: tuple[int, int, int], roi: str | None, dead: str | None) -> None:
    """Refuse places that a recording does not have.

    Raises
    ------
    hsi_batch.errors.SourceError
        The region has no pixel of it, or a dead column lies outside.
    """
    height, width, _ = shape
    if dead is not None and dead_columns(dead)[-1] >= width:
        raise SourceError(
            f"column {dead_columns(dead)[-1]} is named as dead; there are 0 to {width - 1}.",
            path=path,
            hint="Columns count from 0, after --crop; convert recordings of other cameras on their"
            " own.",
        )
    if roi is not None and not _inside(region_of(roi), 0, height, width).any():
        raise SourceError(
            f"the region {roi!r} holds no pixel of {height} lines x {width} columns.",
            path=path,
            hint="Positions count from 0, after --crop.",
        )


def placed_flags(
    flags: NDArray[np.uint8] | None,
    start: int,
    shape: tuple[int, int],
    roi: str | None,
    dead: str | None,
) -> NDArray[np.uint8] | None:
    """Flags of the lines from ``start`` on, ``shape`` (lines, x), with those of their places."""
    if roi is None and dead is None:
        return flags
    marks = np.zeros(shape, dtype=np.uint8) if flags is None else flags
    if dead is not None:
        marks[:, list(dead_columns(dead))] |= np.uint8(Quality.DEAD)
    if roi is not None:
        outside = ~_inside(region_of(roi), start, *shape)
        marks[outside] |= np.uint8(Quality.OUTSIDE_ROI)
    return marks if marks.any() else None


def _inside(region: Spans | Polygon, start: int, lines: int, width: int) -> NDArray[np.bool_]:
    return region.places(start, lines, width)
