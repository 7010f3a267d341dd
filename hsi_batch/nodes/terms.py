"""The words in which nodes state what they are: scope, stage, request, quadratic form."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.measure import Measure

__all__ = ["ALWAYS", "Quadratic", "Request", "Scope", "Stage"]


class Scope(StrEnum):
    """What a node must see at once to give its answer."""

    PIXEL = "pixel"
    WINDOW = "window"
    FRAME = "frame"
    SEQUENCE = "sequence"


class Stage(StrEnum):
    """When a node runs."""

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
    """

    port: str
    kind: Literal["moments", "extrema", "histogram"] | Measure
    mask: str | None = None


class Quadratic(NamedTuple):
    """A score of the form ``|factor x + offset|^2``.

    Attributes
    ----------
    factor : numpy.ndarray of float64, shape (k, C)
    offset : numpy.ndarray of float64, shape (k,)
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
