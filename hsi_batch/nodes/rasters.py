"""Frames as pictures without panels or texts: a pixel of the frame is a pixel of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from hsi_batch.nodes.canvas import NOTHING, as_colours, reduced, score_range

__all__ = ["MOST", "colour_raster", "mask_raster", "overlay_raster", "score_raster"]

#: Lines and columns of a picture at most; larger frames are reduced by whole cells.
MOST = (1024, 1024)
_RED = np.array([1.0, 0.0, 0.0])


def colour_raster(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Red, green and blue ``(y, x, 3)``, as :func:`.as_colours` has them, cells by their mean."""
    return _bytes(reduced(as_colours(image), most=MOST))


def overlay_raster(image: NDArray[Any], mask: NDArray[np.bool_], alpha: float) -> NDArray[np.uint8]:
    """As :func:`colour_raster`, mixed with red where a cell holds a pixel of the mask."""
    picture = reduced(as_colours(image), most=MOST)
    here = reduced(mask, np.max, most=MOST)
    picture[here] = (1.0 - alpha) * picture[here] + alpha * _RED
    return _bytes(picture)


def mask_raster(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """White where a cell holds a pixel of the mask, else black."""
    here = reduced(mask, np.max, most=MOST)
    return _bytes(np.repeat(here[..., None], 3, axis=-1))


def score_raster(scores: NDArray[Any], cmap: str = "inferno") -> NDArray[np.uint8]:
    """Scores ``(y, x)`` in colours, cells by their largest; what is not finite is grey."""
    scores = np.where(np.isfinite(scores), scores, np.nan).astype(np.float64)
    low, top, _ = score_range(scores)
    shown = reduced(np.where(np.isnan(scores), -np.inf, scores), np.max, most=MOST)
    level = np.ma.masked_invalid((shown - low) / (top - low if top > low else 1.0))
    colours = colormaps[cmap].with_extremes(bad=NOTHING)
    return _bytes(np.asarray(colours(level))[..., :3])


def _bytes(picture: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(255.0 * picture).astype(np.uint8)
