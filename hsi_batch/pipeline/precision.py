"""Whether float32 is precise enough for a fitted score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsi_batch.pipeline.quadratic import QuadraticMap

__all__ = ["LIMIT", "Precision", "choose"]

#: Largest relative error of a score that float32 may cause.
LIMIT = 1e-6
#: The largest error of the sample stands for that of all pixels; the largest of all is larger.
_MARGIN = 3.0


@dataclass(frozen=True)
class Precision:
    """The arithmetic of a score, and why.

    Attributes
    ----------
    dtype : {"float32", "float64"}
    error : float, optional
        Largest relative error of float32 scores seen on the sample; None if there was no sample.
    pixels : int
        Pixels of the sample.
    """

    dtype: Literal["float32", "float64"] = "float64"
    error: float | None = None
    pixels: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.error is None:
            return self.dtype
        sign = "<" if self.dtype == "float32" else ">="
        return (
            f"{self.dtype} (float32 errs by {self.error:.1e} on {self.pixels} pixels,"
            f" times {_MARGIN:g} {sign} {LIMIT:g})"
        )


def choose(exact: QuadraticMap, sample: NDArray[Any] | None) -> Precision:
    """Measure the relative error of float32 on a sample of pixels and choose the arithmetic.

    Parameters
    ----------
    exact : QuadraticMap
        The folded score in float64.
    sample : numpy.ndarray, shape (n, C), optional
        Pixels as they are stored.
    """
    if sample is None or len(sample) == 0:
        return Precision()
    reference = exact.scores(sample)
    rounded = exact.with_dtype("float32").scores(sample)
    scale = np.maximum(np.abs(reference), np.finfo(np.float64).tiny)
    error = float(np.max(np.abs(rounded - reference) / scale))
    small = np.isfinite(error) and error * _MARGIN < LIMIT
    return Precision("float32" if small else "float64", error, len(sample))
