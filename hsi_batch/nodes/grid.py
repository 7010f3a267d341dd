"""Which pixels of the cube a map holds, and how they lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["WHOLE", "Grid"]


class Grid(NamedTuple):
    """Pixels of a map.

    Attributes
    ----------
    step : int
        It holds every ``step``-th pixel of the cube in both directions, from the first on.
    turns : int
        Quarter turns to the left that these have made, 0 to 3.

    Examples
    --------
    >>> Grid(2, 1).pick(np.arange(12).reshape(3, 4))
    array([[ 2, 10],
           [ 0,  8]])
    >>> str(Grid(2, 1))
    'one pixel in 2 x 2, turned by 90 degrees'
    """

    step: int = 1
    turns: int = 0

    def pick(self, values: NDArray[Any]) -> NDArray[Any]:
        """The map of this grid from a map ``(y, x, ...)`` of every pixel."""
        return self.turn(values[:: self.step, :: self.step])

    def turn(self, values: NDArray[Any]) -> NDArray[Any]:
        """Turn a map ``(y, x, ...)`` whose pixels were picked."""
        return np.rot90(values, self.turns)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Lines and samples, where the cube has ``height`` and ``width``."""
        lines, samples = -(-height // self.step), -(-width // self.step)
        return (samples, lines) if self.turns % 2 else (lines, samples)

    def __str__(self) -> str:
        pixels = "every pixel" if self.step == 1 else f"one pixel in {self.step} x {self.step}"
        return f"{pixels}, turned by {90 * self.turns} degrees" if self.turns else pixels


#: That of the cube.
WHOLE = Grid()
