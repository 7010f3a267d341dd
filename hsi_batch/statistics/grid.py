"""Statistics of the lines of a frame, at their place in the fixed tree."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.leaves import aligned_ranges, leaf_count, leaf_lines
from hsi_batch.statistics.measure import Measure
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.summary import Summary
from hsi_batch.statistics.tree import Forest, Path

__all__ = ["lines_forest", "measured_forest", "summary_forests"]

S = TypeVar("S", bound=Any)


def lines_forest(
    identity: S,
    cube: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    *,
    start: int,
    height: int,
    prefix: Path = (),
) -> Forest[S]:
    """Absorb the lines of a block and put the result at its place in the frame's tree.

    Parameters
    ----------
    identity : statistic
        What is absorbed into.
    cube : numpy.ndarray, shape (lines, x, C)
        Lines ``start : start + lines`` of the frame. ``start`` is the first line of a leaf, and the
        last line is the last one of a leaf or of the frame.
    valid : numpy.ndarray of bool, shape (lines, x), optional
        Pixels that count; all by default.
    start, height : int
        First line of the block; lines of the frame.
    prefix : path
        Place of the frame among others.

    Returns
    -------
    Forest
        One part per aligned power of two of leaves: one for a block, few for other ranges.

    Examples
    --------
    >>> from hsi_batch.statistics import Extrema
    >>> cube = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    >>> forest = lines_forest(Extrema.empty(2, "uint8"), cube, None, start=0, height=4)
    >>> forest.result().maximum
    array([22, 23], dtype=uint8)
    """
    lines, width, channels = cube.shape
    step, leaves = leaf_lines(width), leaf_count(height, width)
    forest: Forest[S] = Forest()
    ordered = getattr(identity, "ordered", False)
    stop = start + lines
    first, last = start // step, -(-stop // step)
    # Exact statistics may absorb many leaves at once; rounding asks for one leaf at a time.
    parts = ((0, leaf) for leaf in range(first, last)) if ordered else aligned_ranges(first, last)
    for level, index in parts:
        top = max((index << level) * step, start) - start
        bottom = min(((index + 1) << level) * step, stop) - start
        pixels = cube[top:bottom].reshape(-1, channels)
        if valid is not None:
            chosen = valid[top:bottom].ravel()
            if not chosen.all():
                pixels = pixels[chosen]
        part = identity.update(pixels)
        forest = forest.merge(Forest.of((*prefix, (index, leaves)), part, level))
    return forest


def summary_forests(
    cube: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    *,
    start: int,
    height: int,
    prefix: Path = (),
) -> tuple[Forest[Moments], Forest[Extrema]]:
    """As :func:`lines_forest`: moments and extrema from one visit."""
    identity = Summary.empty(cube.shape[2], cube.dtype)
    both = lines_forest(identity, cube, valid, start=start, height=height, prefix=prefix).parts
    return (
        Forest({place: part.moments for place, part in both.items()}),
        Forest({place: part.extrema for place, part in both.items()}),
    )


def measured_forest(
    measure: Measure,
    cube: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    classes: NDArray[np.int8] | None,
    *,
    start: int,
    height: int,
    prefix: Path = (),
) -> Forest[Any]:
    """As :func:`lines_forest`, for a measure: one part per leaf."""
    lines, width, _ = cube.shape
    step, leaves = leaf_lines(width), leaf_count(height, width)
    forest: Forest[Any] = Forest()
    for leaf in range(start // step, -(-(start + lines) // step)):
        top = max(leaf * step, start) - start
        bottom = min((leaf + 1) * step, start + lines) - start
        part = measure.of(
            cube[top:bottom],
            None if valid is None else valid[top:bottom],
            None if classes is None else classes[top:bottom],
        )
        forest = forest.merge(Forest.of((*prefix, (leaf, leaves)), part))
    return forest
