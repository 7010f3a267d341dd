"""Axes to draw on, and what stands along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.nodes import ChannelAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "RED",
    "axes_or_new",
    "bar_beside",
    "channels_along",
    "grid_of",
    "middles",
]

BLUE, RED, ORANGE, GREY = "#4c78a8", "#e45756", "#e08a2e", "#8a94a0"


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """The axes that were given, or those of a new figure of so many inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    _, made = plt.subplots(figsize=(width, height), layout="constrained")
    return made


def bar_beside(ax: Axes, shown: ScalarMappable, words: str, **options: Any) -> None:
    """A colour bar that is as high as the picture, whatever the shape of that."""
    place = ax.inset_axes((1.03, 0.0, 0.045, 1.0))
    ax.figure.colorbar(shown, cax=place, label=words, **options)


def grid_of(
    axes: Sequence[Axes] | NDArray[np.object_] | None, count: int, columns: int, height: float
) -> NDArray[np.object_]:
    """``count`` axes, those that were given or new ones, with rows of ``height`` inches.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Another number of axes was given.
    """
    if axes is not None:
        given = np.asarray(axes, dtype=object).ravel()
        if given.size != count:
            raise ConfigError(
                f"{given.size} axes were given, {count} are drawn on.",
                hint="Leave them out, and a figure is made.",
            )
        return given
    from matplotlib import pyplot as plt

    rows = -(-count // columns)
    _, made = plt.subplots(
        rows, columns, figsize=(3.3 * columns, height * rows), layout="constrained", squeeze=False
    )
    flat = np.asarray(made, dtype=object).ravel()
    for unused in flat[count:]:
        unused.set_visible(False)
    return flat[:count]


def channels_along(axis: ChannelAxis) -> tuple[NDArray[np.float64], str]:
    """Where channels stand, in nm if they ascend, else by number; and the label of the axis."""
    nm = axis.wavelength
    if nm is None or (np.diff(nm) <= 0).any():
        return np.arange(axis.size, dtype=np.float64), "channel"
    return nm, "wavelength (nm)"


def middles(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders of cells ``(n + 1,)`` around ascending places ``(n,)``.

    Examples
    --------
    >>> middles(np.array([1.0, 2.0, 4.0]))
    array([0.5, 1.5, 3. , 5. ])
    """
    if places.size == 1:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    inner = (places[1:] + places[:-1]) / 2
    first, last = places[0] - (inner[0] - places[0]), places[-1] + (places[-1] - inner[-1])
    return np.concatenate([[first], inner, [last]])
