"""Statistics of a node's own: how the pixels of a leaf make one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measure", "chosen_pixels"]


class Measure(ABC):
    """What is taken of a port where moments, extrema and histograms do not tell enough.

    A measure is a small picklable value; it turns the pixels of one leaf into a statistic, any
    value object with an associative ``merge``. Statistics of leaves are merged in the fixed tree
    over lines, frames and sessions, so ``merge`` may round. Measures of equal names are taken once.

    Examples
    --------
    >>> from hsi_batch.statistics import Extrema
    >>> class Sums(Measure):
    ...     name = "sums"
    ...     def of(self, lines, valid, classes):
    ...         sums = lines.reshape(-1, lines.shape[-1]).sum(axis=1, keepdims=True)
    ...         return Extrema.empty(1, "float64").update(sums)
    >>> Sums().of(np.ones((1, 2, 3)), None, None).high.tolist()
    [3.0]
    """

    #: Whether it looks at the labels; :meth:`of` is given classes only then.
    labelled: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique name: a word, and what tells measures of different parameters apart."""

    @abstractmethod
    def of(
        self,
        lines: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        classes: NDArray[np.int8] | None,
    ) -> Any:
        """The statistic of a leaf.

        Parameters
        ----------
        lines : numpy.ndarray, shape (lines, x, C)
            Values of the port; as stored if the port is the cube.
        valid : numpy.ndarray of bool, shape (lines, x), optional
            Pixels that count; all by default.
        classes : numpy.ndarray of int8, shape (lines, x), optional
            1 anomalous, 0 normal, -1 unlabelled; None if the measure is not ``labelled``.
        """

    def nbytes(self, channels: int) -> int:
        """Bytes of one statistic at most, for plans of memory; by default those of moments."""
        return 8 * (channels + 2) ** 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measure) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


def chosen_pixels(lines: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Valid pixels of a leaf, ``(n, C)``."""
    flat = lines.reshape(-1, lines.shape[-1])
    return flat if valid is None else flat[np.asarray(valid).ravel()]
