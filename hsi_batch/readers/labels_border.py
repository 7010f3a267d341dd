"""Labels without their borders, and with what is said of the pixels that nobody marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["AdjustedLabels", "Labels", "Rest", "numbered", "without_borders"]

#: What the pixels are that an annotation does not mark, within the frames that it mentions.
Rest = Literal["background", "unlabelled"]

_BACKGROUND = ("background", "normal")


class Labels(Protocol):
    """What a kind of annotation gives.

    Attributes
    ----------
    classes : dict of int to str
    digest : str
        SHA-256 of what they are made from.
    """

    classes: dict[int, str]
    digest: str

    def raster(self, frame: int) -> NDArray[np.int16] | None:
        """Labels of a frame ``(y, x)``; None if it is not mentioned."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


def numbered(names: Sequence[str]) -> dict[str, int]:
    """Class numbers of names in their order; one called background or normal is 0.

    Examples
    --------
    >>> numbered(["stone", "Background", "wood", "stone"])
    {'stone': 1, 'Background': 0, 'wood': 2}
    """
    found: dict[str, int] = {}
    for name in names:
        if name not in found:
            marked = sum(1 for number in found.values() if number)
            found[name] = 0 if name.casefold() in _BACKGROUND else marked + 1
    return found


def without_borders(labels: NDArray[np.int16], width: int) -> NDArray[np.int16]:
    """The labels with -1 wherever a pixel within ``width`` lines and columns has another label.

    Where two classes meet, ``width`` pixels of either side are unlabelled; edges of the frame are
    no borders.

    Examples
    --------
    >>> without_borders(np.array([[0, 0, 0, 1, 1, 1]], dtype=np.int16), 1).tolist()
    [[0, 0, -1, -1, 1, 1]]
    """
    if not width:
        return labels
    from scipy import ndimage

    size = 2 * width + 1
    low = ndimage.minimum_filter(labels, size=size, mode="nearest")
    high = ndimage.maximum_filter(labels, size=size, mode="nearest")
    return np.where(low == high, labels, np.int16(-1))


class AdjustedLabels:
    """Labels of an annotation with a word on what it does not mark, and without their borders.

    Parameters
    ----------
    labels : Labels
    rest : {"background", "unlabelled"}, optional
        What unmarked pixels are; what the kind of annotation says by default.
    ignore_border : int
        Pixels on either side of a border that become unlabelled.
    marks_background : bool
        The annotation marks background like any class, so what is 0 stays 0.
    """

    def __init__(
        self,
        labels: Labels,
        rest: Rest | None = None,
        ignore_border: int = 0,
        *,
        marks_background: bool = False,
    ) -> None:
        self._labels = labels
        self.classes = labels.classes
        self.digest = labels.digest
        self._rest = rest
        self._border = ignore_border
        self._marks_background = marks_background

    def raster(self, frame: int) -> NDArray[np.int16] | None:
        """Labels of a frame."""
        found = self._labels.raster(frame)
        if found is None:
            return None
        if self._rest == "background":
            found = np.maximum(found, np.int16(0))
        elif self._rest == "unlabelled" and not self._marks_background:
            found = np.where(found == 0, np.int16(-1), found)
        return without_borders(found, self._border)

    def close(self) -> None:
        """Release what the annotation holds."""
        self._labels.close()
