"""Normalisers that scale each image by its own statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.normalization import FrameScaling
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.histogram import Histogram
from hsi_batch.statistics.moments import Moments

__all__ = ["SigmoidNormalizer", "ZScoreNormalizer"]

_ANY = (-1, -1, -1, -1)
_AXES = ("batch", "y", "x", "channel")


class _ImageNormalizer(Node):
    INPUT_SPECS = {"data": PortSpec(torch.float32, _ANY, "cube")}
    OUTPUT_SPECS = {"normalized": PortSpec(torch.float32, _ANY, "scaled cube")}

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"normalized": axes["data"]}


class ZScoreNormalizer(_ImageNormalizer):
    """Standardise each image by itself: ``(x - mean) / (std + eps)``.

    Mean and population standard deviation (n) are taken over ``dims`` of every image, from pixels
    whose channels are all finite. Nothing is fitted. Over lines and columns, with or without
    channels, a frame is scaled by statistics reduced over its blocks; over lines alone (``[1]``,
    which takes the stripes of a line scanner away) or columns alone it is held in memory whole;
    over channels alone (``[3]``) it goes pixel by pixel.

    Parameters
    ----------
    dims : sequence of int, optional
        Axes of (batch, y, x, channel) to reduce: of 1, 2, 3. ``[1, 2]`` by default: one mean and
        one deviation per image and channel.
    eps : float
        Added to the standard deviation.
    keepdim : bool
        Kept for pipelines that name it; the shape of the result is that of the input.

    Examples
    --------
    >>> ZScoreNormalizer()(data=torch.tensor([[[[1.0], [2.0], [3.0]]]]))["normalized"].ravel()
    tensor([-1.2247,  0.0000,  1.2247])
    """

    def __init__(
        self,
        dims: Sequence[int] | None = None,
        eps: float = 1e-6,
        keepdim: bool = True,
        name: str | None = None,
    ) -> None:
        given = [1, 2] if dims is None else [int(d) for d in dims]
        super().__init__(name, dims=given, eps=eps, keepdim=keepdim)
        need_non_negative(eps=eps)
        reduced = tuple(sorted({d % 4 for d in given if -4 <= d < 4}))
        if len(reduced) != len(given) or not reduced or 0 in reduced:
            raise PipelineError(
                f"dims {given} must be one or more of 1 (y), 2 (x), 3 (channel), each once; frames"
                " are not mixed."
            )
        self.dims = reduced
        self.eps = float(eps)

    @property
    def scope(self) -> Scope:
        """Pixel over channels alone, else frame."""
        return Scope.PIXEL if self.dims == (3,) else Scope.FRAME

    @property
    def fits_each_frame(self) -> bool:
        """Whether moments of a frame are enough."""
        return self.request() is not None

    def request(self) -> Request | None:
        """Moments of the frame, where all its lines and columns are reduced."""
        return Request("data", "moments") if {1, 2} <= set(self.dims) else None

    def frame_fit(self, statistic: Moments) -> Node:
        """Scaling by this frame's moments."""
        mean, variance = statistic.mean, statistic.variance(ddof=0)
        if 3 in self.dims:
            whole = mean.mean()
            variance = np.full_like(variance, (variance + (mean - whole) ** 2).mean())
            mean = np.full_like(mean, whole)
        divisor = np.sqrt(variance) + self.eps
        if (divisor == 0).any():
            raise self._no_spread()
        return FrameScaling(Affine.scaling(1.0 / divisor, -mean / divisor), self.name)

    def _no_spread(self) -> DataError:
        reduced = ", ".join(_AXES[d] for d in self.dims)
        return DataError(
            f"{self.name}: values are constant over {reduced} in a frame, and eps is 0.",
            hint="Set `eps` (for example 1e-6), or exclude the channels (BandpassByWavelength).",
        )

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Standardise ``data`` (B, y, x, C), in float64, rounded once."""
        exact = data.double()
        kept = torch.isfinite(data).all(dim=-1, keepdim=True).expand_as(data)
        count = kept.sum(dim=self.dims, keepdim=True)
        mean = torch.where(kept, exact, 0.0).sum(dim=self.dims, keepdim=True) / count
        centred = exact - mean
        scatter = torch.where(kept, centred.square(), 0.0).sum(dim=self.dims, keepdim=True)
        divisor = torch.sqrt(scatter / count) + self.eps
        if self.scope is Scope.FRAME and bool((divisor == 0).any()):
            raise self._no_spread()
        return {"normalized": (centred / divisor).to(torch.float32)}


class SigmoidNormalizer(_ImageNormalizer):
    """Squash each image around its own median: ``sigmoid((x - median) / max(std, std_floor))``.

    Median (the lower one of an even count) and population standard deviation (n) are those of the
    image and channel, over pixels whose channels are all finite. Nothing is fitted; a frame is
    scaled by its histogram, reduced over its blocks.

    Parameters
    ----------
    std_floor : float
        Smallest deviation that is divided by; above 0.

    Examples
    --------
    >>> SigmoidNormalizer()(data=torch.tensor([[[[1.0], [2.0], [3.0]]]]))["normalized"].ravel()
    tensor([0.2271, 0.5000, 0.7729])
    """

    def __init__(self, std_floor: float = 1e-6, name: str | None = None) -> None:
        super().__init__(name, std_floor=std_floor)
        if not std_floor > 0:
            raise PipelineError(f"std_floor {std_floor} must be above 0.")
        self.std_floor = float(std_floor)

    @property
    def scope(self) -> Scope:
        """A frame at once."""
        return Scope.FRAME

    def request(self) -> Request:
        """Histogram of the frame."""
        return Request("data", "histogram")

    def frame_fit(self, statistic: Histogram) -> Node:
        """The squashing of this frame."""
        found = [_spread(*statistic.bins(c)) for c in range(statistic.channels)]
        median, std = np.array(found).T
        return _FrameSigmoid(median, np.maximum(std, self.std_floor), self.name)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Squash ``data`` (B, y, x, C), in float64, rounded once."""
        return {"normalized": torch.stack([self._image(image) for image in data])}

    def _image(self, image: Tensor) -> Tensor:
        pixels = image[torch.isfinite(image).all(dim=-1)].double()
        if not len(pixels):
            return torch.full_like(image, torch.nan)
        std = torch.clamp(pixels.std(dim=0, unbiased=False), min=self.std_floor)
        centred = image.double() - pixels.median(dim=0).values
        return torch.sigmoid(centred / std).to(torch.float32)


class _FrameSigmoid(_ImageNormalizer):
    """What :class:`SigmoidNormalizer` becomes once its frame is known."""

    def __init__(
        self, median: NDArray[np.float64], divisor: NDArray[np.float64], name: str
    ) -> None:
        super().__init__(name)
        self._median = torch.from_numpy(median)
        self._divisor = torch.from_numpy(divisor)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Squash ``data`` (B, y, x, C)."""
        centred = data.double() - self._median.to(data.device)
        squashed = torch.sigmoid(centred / self._divisor.to(data.device))
        return {"normalized": squashed.to(torch.float32)}


def _spread(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Lower median and population deviation of counted values."""
    total = np.cumsum(counts)
    if not total.size:
        raise DataError(
            "no valid pixel was counted, so there is no median.",
            hint="Select more frames, or check the quality flags (hsi-batch show).",
        )
    median = values[np.searchsorted(total, (total[-1] - 1) // 2, side="right")]
    mean = float(values @ counts) / total[-1]
    variance = float(((values - mean) ** 2) @ counts) / total[-1]
    return float(median), float(np.sqrt(variance))
