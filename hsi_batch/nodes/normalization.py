"""Nodes that bring values to a common scale."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, DataWarning
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.moments import Moments

__all__ = ["MinMaxNormalizer", "PerPixelUnitNorm", "ZScoreNormalizerGlobal"]

_IN = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
_OUT = {"normalized": PortSpec(torch.float32, (-1, -1, -1, -1), "scaled cube")}


class FrameScaling(Node):
    """What a per-frame normaliser becomes once its frame is known: a fixed affine map."""

    INPUT_SPECS = _IN
    OUTPUT_SPECS = _OUT
    AFFINE = ("data", "normalized")

    def __init__(self, scaling: Affine, name: str) -> None:
        super().__init__(name)
        self._scaling = scaling

    def affine(self) -> Affine:
        """The map of this frame."""
        return self._scaling

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Apply the map to ``data`` (B, y, x, C)."""
        return {"normalized": _mapped(self._scaling, data)}


class MinMaxNormalizer(Node):
    """Scale to the range seen in the fit: ``(x - min) / max(max - min, eps)``.

    With running statistics there is one minimum and one maximum over all frames, pixels and
    channels. Values outside the range leave [0, 1]; nothing is clipped. Without, each frame and
    channel is scaled by its own range over the pixels whose channels are all finite, and nothing is
    fitted. A range of zero with ``eps`` zero is an error.

    Parameters
    ----------
    eps : float
        Smallest range that is divided by.
    use_running_stats : bool
        One range for all (True) or one per frame and channel (False).

    Examples
    --------
    >>> node = MinMaxNormalizer()
    >>> node.fit(Extrema.empty(2, "uint8").update(np.array([[0, 10], [20, 5]], dtype=np.uint8)))
    >>> node.running_min, node.running_max
    (tensor(0.), tensor(20.))
    """

    INPUT_SPECS = _IN
    OUTPUT_SPECS = _OUT
    AFFINE = ("data", "normalized")
    TRAINABLE_BUFFERS = ("running_min", "running_max")
    running_min: Tensor
    running_max: Tensor

    def __init__(
        self, eps: float = 1e-6, use_running_stats: bool = True, name: str | None = None
    ) -> None:
        super().__init__(name, eps=eps, use_running_stats=use_running_stats)
        need_non_negative(eps=eps)
        self.eps = float(eps)
        self.use_running_stats = bool(use_running_stats)
        self.register_buffer("running_min", torch.tensor(torch.nan))
        self.register_buffer("running_max", torch.tensor(torch.nan))

    @property
    def scope(self) -> Scope:
        """Pixel with running statistics, else frame."""
        return Scope.PIXEL if self.use_running_stats else Scope.FRAME

    def request(self) -> Request:
        """Extrema of the data."""
        return Request("data", "extrema")

    def fit(self, statistic: Extrema) -> None:
        """Take the range over all channels."""
        low, high = float(statistic.minimum.min()), float(statistic.maximum.max())
        if low == high:
            if self.eps == 0:
                raise _no_range(self.name, f"all values are {low:g}")
            warnings.warn(
                f"{self.name}: all values are {low:g}; they are divided by eps {self.eps:g}.",
                DataWarning,
                stacklevel=2,
            )
        self.set_state(
            {"minimum": np.array(low), "maximum": np.array(high)}, running_min=low, running_max=high
        )

    def frame_fit(self, statistic: Extrema) -> Node:
        """Scaling by this frame's range per channel."""
        low, high = (b.astype(np.float64) for b in (statistic.minimum, statistic.maximum))
        constant = np.flatnonzero(low == high)
        if self.eps == 0 and constant.size:
            raise _no_range(self.name, f"channels {constant.tolist()} are constant in a frame")
        return FrameScaling(_range_scaling(low, high, self.eps), self.name)

    def affine(self) -> Affine:
        """The same scaling for every channel."""
        self._need_fit()
        state = self.exact_state()
        if state is None:
            low, high = float(self.running_min), float(self.running_max)
        else:
            low, high = float(state["minimum"]), float(state["maximum"])
        size = self.axes["data"].size
        return _range_scaling(np.full(size, low), np.full(size, high), self.eps)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Scale ``data`` (B, y, x, C)."""
        if self.use_running_stats:
            self._need_fit()
            low, high = self.running_min, self.running_max
        else:
            valid = torch.isfinite(data).all(dim=-1, keepdim=True)
            low = torch.where(valid, data, torch.inf).amin(dim=(1, 2), keepdim=True)
            high = torch.where(valid, data, -torch.inf).amax(dim=(1, 2), keepdim=True)
            if self.eps == 0 and bool((low == high).any()):
                raise _no_range(self.name, "a channel is constant in a frame")
        return {"normalized": (data - low) / torch.clamp(high - low, min=self.eps)}


class ZScoreNormalizerGlobal(Node):
    """Standardise every channel: ``(x - mean) / (std + eps)`` with the sample standard deviation.

    Mean and deviation are those of all pixels of the fit. A channel that is constant there is only
    centred (a warning says so): dividing by ``eps`` would blow its first deviation up to 1e8.

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    eps : float
        Added to the standard deviation.
    sample_n, seed : int, optional
        Kept for pipelines that name them; every pixel counts.

    Examples
    --------
    >>> node = ZScoreNormalizerGlobal(num_channels=1)
    >>> node.fit(Moments.empty(1, "float64").update(np.array([[0.0], [2.0], [4.0]])))
    >>> node(data=torch.tensor([[[[6.0]]]]))["normalized"].item()
    2.0
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube")}
    OUTPUT_SPECS = {
        "normalized": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "standardised cube")
    }
    AFFINE = ("data", "normalized")
    TRAINABLE_BUFFERS = ("zscore_mean", "zscore_std")
    CHANNEL_ARGUMENT = "num_channels"
    zscore_mean: Tensor
    zscore_std: Tensor

    def __init__(
        self,
        num_channels: int | None = None,
        eps: float = 1e-8,
        sample_n: int | None = None,  # noqa: ARG002
        seed: int | None = None,  # noqa: ARG002
        name: str | None = None,
    ) -> None:
        super().__init__(name, num_channels=num_channels, eps=eps)
        need_non_negative(eps=eps)
        self.num_channels = num_channels
        self.eps = float(eps)
        self.register_buffer("zscore_mean", torch.zeros(num_channels or 0))
        self.register_buffer("zscore_std", torch.ones(num_channels or 0))

    def request(self) -> Request:
        """Moments of the data."""
        return Request("data", "moments")

    def fit(self, statistic: Moments) -> None:
        """Take mean and sample standard deviation."""
        std = np.sqrt(statistic.variance())
        constant = np.flatnonzero(std == 0)
        if constant.size:
            warnings.warn(
                f"{self.name}: channels {constant.tolist()} are constant; they are centred, not"
                " scaled. Exclude them (BandpassByWavelength) to be rid of them.",
                DataWarning,
                stacklevel=2,
            )
        divisor = np.where(std == 0, 1.0, std + self.eps)
        self.set_state(
            {"mean": statistic.mean, "divisor": divisor},
            zscore_mean=statistic.mean,
            zscore_std=divisor,
        )

    def affine(self) -> Affine:
        """Scaling per channel."""
        self._need_fit()
        state = self.exact_state()
        if state is None:
            mean, divisor = _double(self.zscore_mean), _double(self.zscore_std)
        else:
            mean, divisor = state["mean"], state["divisor"]
        return Affine.scaling(1.0 / divisor, -mean / divisor)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Standardise ``data`` (B, y, x, C)."""
        self._need_fit()
        return {"normalized": (data - self.zscore_mean) / self.zscore_std}


class PerPixelUnitNorm(Node):
    """Centre each spectrum on its own mean and divide by its length.

    ``y = (x - mean_c x) / max(|x - mean_c x|, eps)``, per pixel over channels.

    Parameters
    ----------
    eps : float
        Smallest length that is divided by.

    Examples
    --------
    >>> PerPixelUnitNorm()(data=torch.tensor([[[[1.0, 3.0]]]]))["normalized"]
    tensor([[[[-0.7071,  0.7071]]]])
    """

    INPUT_SPECS = _IN
    OUTPUT_SPECS = _OUT

    def __init__(self, eps: float = 1e-8, name: str | None = None) -> None:
        super().__init__(name, eps=eps)
        need_non_negative(eps=eps)
        self.eps = float(eps)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Any) -> Any:
        """The axis of the input."""
        return {"normalized": axes["data"]}

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Normalise ``data`` (B, y, x, C)."""
        centred = data - data.mean(dim=-1, keepdim=True)
        length = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        return {"normalized": centred / torch.clamp(length, min=self.eps)}


def _no_range(name: str, found: str) -> DataError:
    return DataError(
        f"{name}: {found}, and eps is 0, so there is no range to divide by.",
        hint="Set `eps` (for example 1e-6), or exclude the channels (BandpassByWavelength).",
    )


def _range_scaling(low: NDArray[Any], high: NDArray[Any], eps: float) -> Affine:
    scale = 1.0 / np.maximum(high - low, eps)
    return Affine.scaling(scale, -low * scale)


def _double(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _mapped(affine: Affine, data: Tensor) -> Tensor:
    flat = affine(data.reshape(-1, data.shape[-1]).cpu().numpy())
    return torch.from_numpy(flat).to(torch.float32).reshape(*data.shape[:-1], affine.outputs)
