"""Making the columns of a line scanner alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Request, Scope
from hsi_batch.nodes.spectral_map import CUBE_IN, CUBE_OUT
from hsi_batch.statistics.columns import COLUMNS, ColumnMoments

__all__ = ["Destripe"]


class Destripe(Node):
    """Give every column the mean and the spread of all: moment matching.

    Each detector element of a line scanner has a gain and an offset of its own, which show as
    stripes along the flight or the belt. With mean ``m`` and standard deviation ``s`` (n - 1) of
    column ``x`` and channel ``c`` over the lines of the fit,
    ``y = (v - m[x, c]) S[c] / s[x, c] + M[c]``. ``M`` is the mean of all columns and ``S^2`` their
    pooled variance, weighted by the pixels (pixels less one) of each; with ``window`` of the
    columns around ``x`` only, so that what changes slowly across the scan stays. Columns without
    spread in a channel (dead, or without valid pixels) are left as they are there, and count for
    no other. The method assumes that every column has seen the same kinds of material: scans of
    many lines, or several of one sensor. Horn and Woodham, Computer Graphics and Image Processing
    10 (1979) 69-83; Gadallah, Csillag and Smith, Int. J. Remote Sensing 21 (2000) 2505-2511.

    The moments of columns are kept by conversion, so the fit takes no pass where it is of whole
    sessions and all valid pixels. The map runs with the score; what is fitted behind it takes a
    pass, because no map of the whole is affine.

    Parameters
    ----------
    match : {"moments", "mean"}
        Gain and offset, or the offset alone: ``y = v - m[x, c] + M[c]``.
    window : int, optional
        Columns, an odd number, that a column is made like; all by default.

    Attributes
    ----------
    gain, offset : torch.Tensor of float32, shape (x, C)
        ``y = gain v + offset``.

    Raises
    ------
    hsi_batch.errors.PipelineError
        A window that is not odd; or a cube of another width than that of the fit.

    Examples
    --------
    >>> lines = np.array([[[0.0], [10.0]], [[2.0], [14.0]]])
    >>> node = Destripe(match="mean")
    >>> node.fit(ColumnMoments.empty(2, 1, "float64").update(lines))
    >>> node(cube=torch.from_numpy(lines[None]).float())["cube"].flatten()
    tensor([5.5000, 4.5000, 7.5000, 8.5000])
    """

    INPUT_SPECS = {"cube": CUBE_IN}
    OUTPUT_SPECS = {"cube": CUBE_OUT}
    gain: Tensor
    offset: Tensor

    def __init__(
        self,
        match: Literal["moments", "mean"] = "moments",
        window: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name, match=match, window=window)
        if match not in ("moments", "mean"):
            raise PipelineError(f"match {match!r} is not 'moments' or 'mean'.")
        if window is not None and (isinstance(window, bool) or window < 3 or window % 2 != 1):
            raise PipelineError(
                f"window {window!r} is not an odd number of columns of at least 3.",
                hint="Leave it out to make all columns alike.",
            )
        self.match = match
        self.window = window
        self.register_buffer("gain", torch.zeros(0, 0))
        self.register_buffer("offset", torch.zeros(0, 0))

    @property
    def scope(self) -> Scope:
        """Whole lines, of which each pixel is mapped alone."""
        return Scope.WINDOW

    @property
    def by_column(self) -> bool:
        """Always."""
        return True

    @property
    def width(self) -> int:
        """Columns of the fit; 0 before it."""
        return len(self.gain)

    def request(self) -> Request:
        """Moments of the columns."""
        return Request("cube", COLUMNS)

    def channel_axis(self, axes: Any) -> dict[str, ChannelAxis]:
        """That of the input."""
        return {"cube": axes["cube"]}

    def fit(self, columns: ColumnMoments) -> None:
        """Take gain and offset of every column and channel."""
        spread = np.sqrt(columns.variance())
        known = np.isfinite(spread) & (spread > 0)
        if not known.any():
            raise DataError(
                f"{self.name}: no column varies along the lines, so nothing tells stripes from"
                " the scene.",
                hint="Fit it on recordings of many lines, or leave Destripe out.",
            )
        count = np.where(known, columns.columns[:, None], 0).astype(np.float64)
        mean = np.where(known, columns.mean, 0.0)
        spread = np.where(known, spread, 1.0)
        free = np.maximum(count - 1, 0.0)
        middle = _share(self._around(count * mean), self._around(count))
        variance = _share(self._around(free * spread**2), self._around(free))
        gain = np.ones_like(mean)
        if self.match == "moments":
            gain = np.where(known, np.sqrt(variance) / spread, 1.0)
        offset = np.where(known, middle - gain * mean, 0.0)
        alone = np.count_nonzero(~known.all(axis=1))
        state = {"gain": gain, "offset": offset, "unknown": np.array(alone)}
        self.set_state(state, gain=gain, offset=offset)

    def _around(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the columns of the window around each, or over all; ``(x, C)``."""
        if self.window is None:
            return np.broadcast_to(values.sum(axis=0), values.shape)
        half, width = self.window // 2, len(values)
        total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        at = np.arange(width)
        found: NDArray[np.float64] = (
            total[np.minimum(at + half + 1, width)] - total[np.maximum(at - half, 0)]
        )
        return found

    def in_words(self) -> str:
        """Columns that are left as they are."""
        alone = int(self.state.get("unknown", 0))
        if not alone:
            return ""
        return f"{alone} of {self.width} columns are left as they are: without spread in a channel"

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Map ``cube`` (B, y, x, C) in float64, rounded once."""
        self._need_fit()
        if tuple(cube.shape[2:]) != tuple(self.gain.shape):
            raise PipelineError(
                f"{self.name}: lines of {cube.shape[2]} columns and {cube.shape[3]} channels came;"
                f" it was fitted on {self.gain.shape[0]} and {self.gain.shape[1]}.",
                hint="Score recordings of the sensor it was fitted on, and do not thin out or turn"
                " cubes before it.",
            )
        state = self.exact_state()
        if state is None:
            gain, offset = self.gain.double(), self.offset.double()
        else:
            gain, offset = (torch.from_numpy(state[k]).to(cube.device) for k in ("gain", "offset"))
        mapped = torch.addcmul(offset, cube.double(), gain)
        return {"cube": mapped.to(torch.float32)}


def _share(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.zeros(sums.shape)
    np.divide(sums, weights, out=out, where=weights > 0)
    return out
