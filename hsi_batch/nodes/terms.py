"""The words in which nodes state what they are: scope, stage, request, quadratic form."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.measure import Measure

__all__ = ["ALWAYS", "Quadratic", "Request", "Scope", "Stage"]


class Scope(StrEnum):
    """What a node must see at once to give its answer.

    Examples
    --------
    >>> [scope.value for scope in Scope]
    ['pixel', 'window', 'frame', 'sequence']
    """

    PIXEL = "pixel"
    WINDOW = "window"
    FRAME = "frame"
    SEQUENCE = "sequence"


class Stage(StrEnum):
    """When a node runs.

    Examples
    --------
    >>> [stage.value for stage in Stage]
    ['train', 'val', 'test', 'inference']
    """

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    INFERENCE = "inference"


ALWAYS = frozenset(Stage)


class Request(NamedTuple):
    """The statistic of one input that a node is fitted from.

    Attributes
    ----------
    port : str
        Name of an input port.
    kind : {"moments", "extrema", "histogram"} or Measure
        Which statistic of its pixels.
    mask : str, optional
        Name of an input that restricts it to pixels above 0.

    Examples
    --------
    >>> Request("data", "moments").mask is None
    True
    """

    port: str
    kind: Literal["moments", "extrema", "histogram"] | Measure
    mask: str | None = None


class Quadratic(NamedTuple):
    """A score of the form ``|factor x + offset|^2``.

    Attributes
    ----------
    factor : numpy.ndarray of float64, shape (k, C)
        Rows that the input is multiplied by.
    offset : numpy.ndarray of float64, shape (k,)
        Added after that.

    Examples
    --------
    >>> import numpy as np
    >>> form = Quadratic(np.eye(2), np.array([0.0, -1.0]))
    >>> float(((form.factor @ [3.0, 1.0] + form.offset) ** 2).sum())
    9.0
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
