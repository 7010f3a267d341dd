"""Quadratic scores, folded into one triangular product on the stored pixels."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hsi_batch.nodes import Quadratic
from hsi_batch.nodes.gaussian import least_squares, qr_triangle
from hsi_batch.statistics import Affine
from hsi_batch.statistics.whitened import WhitenedNorms

__all__ = ["QuadraticMap"]

_GROUP = 1024


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
        self._norms = WhitenedNorms(triangle, centre, offset, dtype)

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

        Triangular maps take half the work of full ones.
        """
        if self.channels is None:
            found = self._norms(pixels)
        else:
            found = np.empty(len(pixels))
            # A copy of some pixels at a time stays within the cache.
            for start in range(0, len(pixels), _GROUP):
                part = slice(start, start + _GROUP)
                found[part] = self._norms(pixels[part, self.channels])
        found += self.constant
        return found

    @property
    def products(self) -> int:
        """Products of numbers for each pixel."""
        return self._norms.products
