"""Which pixels count: quality flags and the mask of valid pixels."""

from __future__ import annotations

from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Quality", "flag_pixels"]


class Quality(IntFlag):
    """Bits of the quality of a pixel; 0 is valid."""

    NODATA = 1
    NON_FINITE = 2
    SATURATED = 4
    DEAD = 8
    USER = 16
    OUTSIDE_ROI = 32


#: Pixels looked at at once, so that scratch memory stays small.
_GROUP = 4096


def flag_pixels(
    cube: NDArray[Any],
    *,
    nodata: float | None = None,
    saturation: float | None = None,
    used: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8] | None:
    """Flag the pixels of some lines.

    A pixel is flagged if any of its used channels is the no-data value, not finite, or at or above
    saturation: one such channel is enough to spoil a covariance.

    Parameters
    ----------
    cube : numpy.ndarray, shape (lines, x, C)
        Stored values.
    nodata, saturation : float, optional
        Stored values that mean "no data" and "from here on saturated".
    used : numpy.ndarray of bool, shape (C,), optional
        Channels that matter; all by default.

    Returns
    -------
    numpy.ndarray of uint8, shape (lines, x), or None if no pixel is flagged

    Examples
    --------
    >>> flag_pixels(np.array([[[1.0, np.nan], [2.0, 3.0]]]))
    array([[2, 0]], dtype=uint8)
    """
    is_float = cube.dtype.kind == "f"
    if not is_float and nodata is None and saturation is None:
        return None
    flat = cube.reshape(-1, cube.shape[-1])
    channels = None if used is None or used.all() else np.flatnonzero(used)
    flags = np.zeros(len(flat), dtype=np.uint8)
    for start in range(0, len(flat), _GROUP):
        pixels = flat[start : start + _GROUP]
        if channels is not None:
            pixels = pixels[:, channels]
        out = flags[start : start + _GROUP]
        if is_float:
            out[~np.isfinite(pixels).all(axis=1)] |= np.uint8(Quality.NON_FINITE)
        # Limits beyond the range of the dtype (a float64's lowest, say) become infinite.
        with np.errstate(over="ignore"):
            if nodata is not None:
                same = np.isnan(pixels) if np.isnan(nodata) else pixels == nodata
                out[same.any(axis=1)] |= np.uint8(Quality.NODATA)
            if saturation is not None:
                out[(pixels >= saturation).any(axis=1)] |= np.uint8(Quality.SATURATED)
    return flags.reshape(cube.shape[:2]) if flags.any() else None
