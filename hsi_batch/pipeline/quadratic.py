"""Quadratic scores, folded into one triangular product on the stored pixels."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from hsi_batch.nodes import Quadratic
from hsi_batch.nodes.gaussian import least_squares, qr_triangle
from hsi_batch.statistics import Affine
from hsi_batch.statistics.whitened import shifted, squared_norms

__all__ = ["QuadraticMap"]


class QuadraticMap:
    """``score(x) = |R (x - r) + t|^2`` on the pixels of the port the score was folded back to.

    With ``W x + c`` the map that leads from those pixels to the whitened space, and its QR
    decomposition ``W = Q R``: ``R`` is upper triangular, ``r`` is a centre of whole numbers near
    the mean (so ``x - r`` is exact for integers), and ``t = Q^T (W r + c)``. What of ``W r + c``
    lies outside the range of ``W`` adds a constant.

    Parameters
    ----------
    triangle : numpy.ndarray of float64, shape (k, C)
        ``R``; triangular if square.
    centre : numpy.ndarray of float64, shape (C,)
    offset : numpy.ndarray of float64, shape (k,)
    constant : float
    dtype : {"float64", "float32"}
        Arithmetic of the product.
    channels : numpy.ndarray of int, optional
        Channels of the pixels that count; the others are not looked at. All by default.
    """

    def __init__(
        self,
        triangle: NDArray[np.float64],
        centre: NDArray[np.float64],
        offset: NDArray[np.float64],
        constant: float = 0.0,
        dtype: Literal["float64", "float32"] = "float64",
        channels: NDArray[np.intp] | None = None,
    ) -> None:
        self.channels = channels
        self.triangle = triangle
        self.centre = centre
        self.offset = offset
        self.constant = constant
        self.dtype = dtype
        self._square = triangle.shape[0] == triangle.shape[1]
        self._lower = self._square and not np.any(np.triu(triangle, 1))
        kind = np.dtype(dtype)
        self._matrix = np.asfortranarray(triangle, dtype=kind)
        self._centre = centre.astype(kind)
        self._offset = offset.astype(kind)
        self._trmm = blas.strmm if dtype == "float32" else blas.dtrmm

    @classmethod
    def fold(
        cls, form: Quadratic, inner: Affine | None, dtype: Literal["float64", "float32"]
    ) -> Self:
        """Fold a quadratic form and the affine map in front of it.

        Parameters
        ----------
        form : Quadratic
            The score in terms of the node's input.
        inner : Affine, optional
            From the stored pixels to the node's input; None for the identity.
        dtype : {"float64", "float32"}
            Arithmetic of the product.
        """
        if inner is None:
            factor, shift = form.factor, form.offset
        else:
            whole = Affine(form.factor, form.offset).after(inner)
            factor, shift = whole.matrix, whole.offset
        used = factor.any(axis=0)
        channels = None if used.all() else np.flatnonzero(used)
        if channels is not None:
            factor = factor[:, channels]
        lower = factor.shape[0] == factor.shape[1] and not np.any(np.triu(factor, 1))
        # Where is the score least? There the pixels are, up to rounding to whole numbers.
        mean = least_squares(factor, -shift)
        centre = np.rint(mean) if np.isfinite(mean).all() else np.zeros_like(mean)
        rest = factor @ centre + shift
        if lower:
            return cls(factor, centre, rest, 0.0, dtype, channels)
        orthogonal, triangle = qr_triangle(factor)
        inside = orthogonal.T @ rest
        constant = max(float(rest @ rest - inside @ inside), 0.0)
        if factor.shape[0] <= factor.shape[1]:
            constant = 0.0
        return cls(triangle, centre, inside, constant, dtype, channels)

    def with_dtype(self, dtype: Literal["float64", "float32"]) -> QuadraticMap:
        """The same map in other arithmetic."""
        return QuadraticMap(
            self.triangle, self.centre, self.offset, self.constant, dtype, self.channels
        )

    def scores(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of ``(n, C)`` pixels in any real dtype, ``(n,)`` float64.

        Square maps use a triangular product, half the work of a full one. In either, the last bits
        of a pixel may depend on how many pixels come with it, so programs pass fixed groups.
        """
        if len(pixels) == 0:
            return np.zeros(0)
        if self.channels is not None:
            pixels = pixels[:, self.channels]
        moved = shifted(pixels, self._centre)
        if self._square:
            whitened = self._trmm(
                1.0, self._matrix, moved.T, lower=int(self._lower), overwrite_b=1
            ).T
        else:
            whitened = moved @ self._matrix.T
        squared = squared_norms(whitened, self._offset)
        squared += self.constant
        return squared
