"""Taking statistics of ports while lines pass by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hsi_batch.nodes import PortRef
from hsi_batch.pipeline.evaluate import Evaluator
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.statistics import Bundle, Extrema, Forest, Histogram, Measure, Moments
from hsi_batch.statistics.grid import lines_forest, measured_forest
from hsi_batch.statistics.measure import chosen_pixels
from hsi_batch.statistics.tree import Path, Pool

__all__ = ["Need", "empty", "gather_block", "gather_cube"]


class Need(NamedTuple):
    """A statistic of a port, of all pixels or of those where another port is above 0."""

    root: PortRef
    kind: str | Measure
    mask: PortRef | None = None

    @property
    def ports(self) -> tuple[PortRef, ...]:
        """What must be computed for it."""
        return (self.root,) if self.mask is None else (self.root, self.mask)

    def __str__(self) -> str:
        port = "cube" if self.root == CUBE else str(self.root)
        where = "" if self.mask is None else f" within {self.mask}"
        return f"{self.kind} of {port}{where}"


def empty(kind: str, channels: int, dtype: DTypeLike) -> Any:
    """The identity of a kind of statistic."""
    kinds = {"moments": Moments, "extrema": Extrema, "histogram": Histogram}
    return kinds[kind].empty(channels, dtype)  # type: ignore[attr-defined]


def gather_cube(
    needs: Iterable[Need],
    cube: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    classes: NDArray[np.int8] | None = None,
    *,
    start: int,
    height: int,
    prefix: Path = (),
) -> Bundle:
    """Statistics of stored lines, as a bundle of forests by ``str(need)``.

    Parameters
    ----------
    needs : iterable of Need
        All of :data:`.CUBE`, without a mask.
    cube : numpy.ndarray, shape (lines, x, C)
    valid : numpy.ndarray of bool, shape (lines, x), optional
        Pixels that count.
    classes : numpy.ndarray of int8, shape (lines, x), optional
        As for :meth:`.Measure.of`.
    start : int
        First line in the frame.
    height : int
        Lines of the frame.
    prefix : path
        Place of the frame in the tree over frames.
    """
    at: dict[str, Any] = {"start": start, "height": height, "prefix": prefix}
    forests: dict[str, Any] = {}
    for need in needs:
        forest: Forest[Any] | Pool[Any]
        if isinstance(need.kind, Measure):
            forest = measured_forest(need.kind, cube, valid, classes, **at)
        elif need.kind == "histogram":
            identity = empty(need.kind, cube.shape[2], cube.dtype)
            forest = Pool(identity.update(chosen_pixels(cube, valid)))
        else:
            identity = empty(need.kind, cube.shape[2], cube.dtype)
            forest = lines_forest(identity, cube, valid, **at)
        forests[str(need)] = forest
    return Bundle(forests)


def gather_block(
    needs: Iterable[Need],
    evaluator: Evaluator,
    valid: NDArray[np.bool_] | None,
    classes: NDArray[np.int8] | None = None,
    *,
    start: int,
    stop: int,
    leaves: int,
    prefix: Path = (),
) -> Bundle:
    """Statistics of computed ports on the lines ``start:stop``, as a bundle of forests.

    Pixels outside the mask of a need do not count for it, nor do pixels with a NaN, which a node
    gives where it has no value.

    Parameters
    ----------
    needs : iterable of Need
        Their ports are wanted by the evaluator's program.
    evaluator : Evaluator
        Of the frame.
    valid : numpy.ndarray of bool, shape (stop - start, x), optional
    classes : numpy.ndarray of int8, shape (stop - start, x), optional
    start, stop : int
        Lines; whole leaves.
    leaves : int
        Leaves of the frame.
    prefix : path
        Place of the frame in the tree over frames.
    """
    forests: dict[str, Any] = {
        str(need): Pool() if need.kind == "histogram" else Forest() for need in needs
    }
    leaf = start // evaluator.lines_per_leaf
    while evaluator.leaf_range(leaf)[0] < stop:
        first, last = evaluator.leaf_range(leaf)
        values = evaluator.leaf(leaf)
        here = slice(first - start, last - start)
        for need in needs:
            value = values[need.root]
            counted = _known(value, None if valid is None else valid[here])
            if need.mask is not None:
                inside = values[need.mask][..., 0] > 0
                counted = inside if counted is None else counted & inside
            if isinstance(need.kind, Measure):
                part = need.kind.of(value, counted, None if classes is None else classes[here])
            else:
                identity = empty(need.kind, value.shape[-1], value.dtype)
                part = identity.update(chosen_pixels(value, counted))
            found = (
                Pool(part)
                if need.kind == "histogram"
                else Forest.of((*prefix, (leaf, leaves)), part)
            )
            forests[str(need)] = forests[str(need)].merge(found)
        leaf += 1
    return Bundle(forests)


def _known(lines: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """The valid pixels without NaN; None if those are all."""
    if lines.dtype.kind != "f" or not (missing := np.isnan(lines)).any():
        return valid
    known: NDArray[np.bool_] = ~missing.any(axis=-1)
    return known if valid is None else known & valid


def finished(bundle: Bundle | Mapping[str, Any]) -> dict[str, Any]:
    """The statistic of each forest of a bundle; parts that never came count as nothing."""
    return {name: forest.result() for name, forest in bundle.items()}
