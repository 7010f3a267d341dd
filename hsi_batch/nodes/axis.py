"""The channel axis that travels with a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hsi_batch.errors import PipelineError

__all__ = ["ChannelAxis"]


@dataclass(frozen=True, eq=False)
class ChannelAxis:
    """Number of channels of a port and, where they still mean one, their wavelengths.

    Parameters
    ----------
    size : int
        Number of channels.
    wavelength : numpy.ndarray of float64, shape (size,), optional
        Nanometres; None where channels are mixtures or the source does not know.
    columns : numpy.ndarray of float64, shape (x, size), optional
        Those of every column of a line scanner, where they are known.

    Examples
    --------
    >>> ChannelAxis.of([450.0, 550.0, 650.0]).select([0, 2]).wavelength
    array([450., 650.])
    """

    size: int
    wavelength: NDArray[np.float64] | None = None
    columns: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.wavelength is not None and self.wavelength.shape != (self.size,):
            raise PipelineError(
                f"{self.size} channels come with wavelengths of shape {self.wavelength.shape};"
                " one per channel is needed."
            )
        if self.columns is not None and self.columns.shape[1:] != (self.size,):
            raise PipelineError(
                f"{self.size} channels come with wavelengths of columns of shape"
                f" {self.columns.shape}; one per column and channel is needed."
            )

    @classmethod
    def of(cls, wavelength: ArrayLike) -> ChannelAxis:
        """An axis with these wavelengths in nanometres."""
        values = np.asarray(wavelength, dtype=np.float64)
        return cls(values.size, values)

    @property
    def plain(self) -> ChannelAxis:
        """Without the wavelengths of columns."""
        return ChannelAxis(self.size, self.wavelength)

    def select(self, indices: Any) -> ChannelAxis:
        """Only the channels ``indices``."""
        picked = np.asarray(indices, dtype=np.intp)
        kept = None if self.wavelength is None else self.wavelength[picked]
        columns = None if self.columns is None else self.columns[:, picked]
        return ChannelAxis(picked.size, kept, columns)
