"""Connected regions of a picture, numbered in the order in which lines meet them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hsi_batch.errors import PipelineError

__all__ = ["connected", "need_connectivity", "numbered", "otsu_above", "otsu_step"]

_BINS = 256


def need_connectivity(connectivity: int) -> None:
    """Raise :class:`~hsi_batch.errors.PipelineError` if it is not 4 or 8."""
    if connectivity not in (4, 8):
        raise PipelineError(f"connectivity {connectivity} is not 4 or 8.", hint="Give 4 or 8.")


def numbered(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Labels ``(y, x)`` above 0 as 1, 2, ... in the order of their first pixels; others 0."""
    flat = labels.ravel()
    values, first, where = np.unique(flat, return_index=True, return_inverse=True)
    met = np.where(values > 0, first, flat.size)
    rank = np.empty(values.size, dtype=np.int32)
    rank[np.argsort(met, kind="stable")] = np.arange(1, values.size + 1)
    return np.where(values > 0, rank, 0).astype(np.int32)[where.reshape(labels.shape)]


def connected(mask: NDArray[np.bool_], connectivity: int) -> NDArray[np.int32]:
    """Numbers of the regions of ``mask`` (y, x) whose pixels share a side, or with 8 a corner."""
    neighbours = scipy.ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    return numbered(scipy.ndimage.label(mask, neighbours)[0])


def otsu_step(steps: NDArray[np.int64]) -> int | None:
    """Otsu's threshold ``t`` of values from 0 to 255, None if all are the same.

    It makes ``w0 w1 (m0 - m1)^2`` largest, the variance between the two classes ``<= t`` and
    ``> t`` with their shares ``w`` and means ``m``. N. Otsu, A threshold selection method from
    gray-level histograms, IEEE Trans. Systems, Man and Cybernetics 9 (1979) 62-66.
    """
    counts = np.bincount(steps.ravel(), minlength=_BINS)
    # Whole numbers: the same threshold whatever the order of the pixels.
    below, sums = np.cumsum(counts), np.cumsum(counts * np.arange(_BINS))
    above = below[-1] - below
    some = (below > 0) & (above > 0)
    if not some.any():
        return None
    between = np.zeros(_BINS)
    w0, w1 = below[some].astype(np.float64), above[some].astype(np.float64)
    between[some] = w0 * w1 * (sums[some] / w0 - (sums[-1] - sums[some]) / w1) ** 2
    return int(between.argmax())


def otsu_above(shares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the values from 0 to 1 are above Otsu's threshold in 256 steps."""
    steps = np.clip((shares * _BINS).astype(np.int64), 0, _BINS - 1)
    threshold = otsu_step(steps)
    if threshold is None:
        return np.zeros(shares.shape, dtype=bool)
    return np.asarray(steps > threshold)
