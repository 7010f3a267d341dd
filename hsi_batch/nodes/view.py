"""Which of the stored channels a graph sees, and in which units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.statistics.affine import Affine

__all__ = ["STORED", "View", "channels_of", "spans"]


def spans(indices: ArrayLike) -> str:
    """Ascending channel numbers as text.

    Examples
    --------
    >>> spans([0, 1, 2, 5])
    '0-2,5'
    """
    numbers = np.asarray(indices, dtype=np.intp)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if numbers.size else []
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def channels_of(text: str) -> NDArray[np.intp]:
    """Inverse of :func:`spans`.

    Raises
    ------
    hsi_batch.errors.PipelineError
        Not channel numbers, or not ascending.

    Examples
    --------
    >>> channels_of("0-2,5")
    array([0, 1, 2, 5])
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise PipelineError(
                f"channels {text!r} are not channel numbers.", hint="Write for example 0-33,40-94."
            )
        found.extend(range(int(first), int(last or first) + 1))
    if found != sorted(set(found)):
        raise PipelineError(f"channels {text!r} do not ascend.", hint="Sort them.")
    return np.array(found, dtype=np.intp)


@dataclass(frozen=True)
class View:
    """What a data node hands on: ``stored[..., channels] * scale + offset``.

    Attributes
    ----------
    channels : str, optional
        Channel numbers as :func:`spans` writes them; all if None.
    scale, offset : float

    Examples
    --------
    >>> view = View("0,2", scale=0.5)
    >>> view.affine(3)(np.array([[2.0, 4.0, 6.0]]))
    array([[1., 3.]])
    """

    channels: str | None = None
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale and math.isfinite(self.offset)):
            raise PipelineError(
                f"scale {self.scale} and offset {self.offset} must be finite, the scale not zero."
            )

    @classmethod
    def of(cls, kept: NDArray[np.bool_], scale: float = 1.0, offset: float = 0.0) -> Self:
        """Of the channels that are kept."""
        return cls(None if kept.all() else spans(np.flatnonzero(kept)), scale, offset)

    @cached_property
    def indices(self) -> NDArray[np.intp] | None:
        """Channels that are kept; None for all."""
        return None if self.channels is None else channels_of(self.channels)

    @property
    def plain(self) -> bool:
        """Whether everything is handed on as stored."""
        return self == STORED

    @property
    def hparams(self) -> dict[str, Any]:
        """As arguments of a data node; nothing where they have their defaults."""
        given = {"channels": self.channels, "scale": self.scale, "offset": self.offset}
        return {k: v for k, v in given.items() if v != getattr(STORED, k)}

    def axis(self, axis: ChannelAxis, name: str) -> ChannelAxis:
        """The axis of what is handed on.

        Raises
        ------
        hsi_batch.errors.PipelineError
            A channel that the data do not have.
        """
        if self.indices is None:
            return axis
        if self.indices[-1] >= axis.size:
            raise PipelineError(
                f"{name} hands on channel {self.indices[-1]}; the data have {axis.size} channels.",
                hint="Fit the pipeline on recordings of this sensor, or choose bands that it has.",
            )
        return axis.select(self.indices)

    def affine(self, channels: int) -> Affine:
        """As a map of all channels."""
        kept = np.arange(channels) if self.indices is None else self.indices
        matrix = np.zeros((kept.size, channels))
        matrix[np.arange(kept.size), kept] = self.scale
        return Affine(matrix, np.full(kept.size, self.offset))


#: Everything as it is stored.
STORED = View()
