"""What the false-colour nodes share: three mixtures of channels, brought to [0, 1] for a screen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.display import srgb, stretch
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import known_wavelengths, reaching_axis
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.histogram import Histogram
from hsi_batch.statistics.mapped import MappedExtrema, MappedHistogram, Mapping32

__all__ = ["BAND_INFO", "CUBE_IN", "RGB", "FalseColor", "NormMode", "nearest", "register_bounds"]

NormMode = Literal["running", "statistical", "per_frame"]

CUBE_IN = {
    "cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
    "wavelengths": PortSpec(np.int32, (-1,), "nm per channel", optional=True),
}
RGB = PortSpec(torch.float32, (-1, -1, -1, 3), "red, green, blue")
BAND_INFO = PortSpec(dict, (), "channels that were used, and how")

#: Levels of the bounds in the modes ``running`` and ``statistical``.
_LEVELS = (0.005, 0.995)


def nearest(wavelengths: NDArray[np.float64], target: float) -> int:
    """The channel nearest to a wavelength; the first of equally near ones."""
    return int(np.argmin(np.abs(wavelengths - target)))


class FalseColor(Node):
    """Base of the nodes that compose a picture: ``rgb = A x``, then scaled to [0, 1].

    Scaling is ``(rgb - low) / (high - low)`` per output, clamped, then companded to sRGB. The
    bounds are, by ``norm_mode``:

    * ``statistical``: the 0.5 and 99.5 percent quantiles of the composed picture over all pixels of
      the fit, from an exact histogram; neither the order nor the grouping of frames matters.
    * ``per_frame``: minimum and maximum of each frame.
    * ``running``: each frame widens the bounds by its own quantiles until
      ``freeze_running_bounds_after_frames`` frames were seen, the first ``running_warmup_frames``
      are scaled by their own. The result depends on the order of frames, so an archive is refused
      until the bounds are frozen, by that many frames or by :meth:`freeze_bounds`.

    Without ``normalize_output`` the composed channels are the output, which is affine: fits behind
    it read no pixels.
    """

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = {"rgb_image": RGB, "band_info": BAND_INFO}
    #: Smallest value of a composed channel, if it is clamped.
    FLOOR: ClassVar[float | None] = None
    #: What ``band_info`` calls the way channels are chosen.
    STRATEGY: ClassVar[str] = ""
    running_min: Tensor
    running_max: Tensor
    _norm_frame_count: Tensor

    def __init__(
        self,
        name: str | None,
        *,
        norm_mode: NormMode,
        apply_gamma: bool,
        freeze_running_bounds_after_frames: int | None,
        running_warmup_frames: int,
        normalize_output: bool,
        **hparams: Any,
    ) -> None:
        super().__init__(
            name,
            **hparams,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )
        modes = ("running", "statistical", "per_frame")
        if norm_mode not in modes:
            raise PipelineError(f"norm_mode {norm_mode!r} is not one of {', '.join(modes)}.")
        need_non_negative(running_warmup_frames=float(running_warmup_frames))
        freeze = freeze_running_bounds_after_frames
        if freeze is not None and freeze < 1:
            raise PipelineError(
                f"freeze_running_bounds_after_frames {freeze} must be at least 1, or null."
            )
        self.norm_mode = norm_mode
        self.apply_gamma = bool(apply_gamma)
        self.freeze_after = freeze
        self.warmup = int(running_warmup_frames)
        self.normalize_output = bool(normalize_output)
        if not normalize_output and self.FLOOR is None:
            self.AFFINE = ("cube", "rgb_image")  # type: ignore[misc]
        register_bounds(self)

    # -- what a node of this kind says -----------------------------------------------------------

    @abstractmethod
    def compose(self, axis: ChannelAxis) -> Affine:
        """The map from the channels of an axis with wavelengths to those of the picture."""

    @abstractmethod
    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """What ``band_info`` tells of the channels."""

    # -- what the planner asks ---------------------------------------------------------------------

    @property
    def mixes_channels(self) -> bool:
        """Whether the map does, as far as it is known."""
        axis = self.axes.get("cube")
        return axis is None or self.compose(axis).monomial is None

    @property
    def has_bounds(self) -> bool:
        """Whether there are bounds for all channels."""
        return bool(torch.isfinite(torch.cat([self.running_min, self.running_max])).all())

    @property
    def frozen(self) -> bool:
        """Whether no frame will change the bounds of ``running`` any more."""
        if self.freeze_after is None or not self.has_bounds:
            return False
        return int(self._norm_frame_count) >= max(self.freeze_after, self.warmup)

    @property
    def scope(self) -> Scope:
        """Pixel with fixed bounds or none, frame with its own, sequence while they move."""
        if not self.normalize_output or self.norm_mode == "statistical":
            return Scope.PIXEL
        if self.norm_mode == "per_frame":
            return Scope.FRAME
        return Scope.PIXEL if self.frozen else Scope.SEQUENCE

    @property
    def requires_initial_fit(self) -> bool:
        """With ``statistical`` bounds."""
        return self.normalize_output and self.norm_mode == "statistical"

    @property
    def fits_each_frame(self) -> bool:
        """With bounds per frame."""
        return self.normalize_output and self.norm_mode == "per_frame"

    def requests(self) -> tuple[Request, ...]:
        """Value counts of the composed picture."""
        if not self.requires_initial_fit:
            return ()
        return (Request("cube", MappedHistogram(self._mapping(self.axes["cube"]))),)

    def frame_requests(self) -> tuple[Request, ...]:
        """Extrema of the composed picture."""
        return (Request("cube", MappedExtrema(self._mapping(self.axes["cube"]))),)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The channels of the picture; those that are picked keep their wavelengths."""
        axis = axes["cube"]
        known_wavelengths(axis, self.name)
        composed = self.compose(axis)
        picked = composed.monomial
        if picked is not None and not composed.offset.any() and (picked[1] == 1.0).all():
            return {"rgb_image": axis.select(picked[0])}
        return {"rgb_image": ChannelAxis(composed.outputs)}

    def affine(self) -> Affine:
        """The composition, where nothing is scaled for display."""
        if self.AFFINE is None:
            return super().affine()
        return self.compose(self.axes["cube"])

    # -- fitting -----------------------------------------------------------------------------------

    def fit(self, statistic: Histogram) -> None:
        """Take the quantiles of all pixels."""
        low, high = statistic.quantile(_LEVELS)
        self.set_state({"low": low, "high": high}, running_min=low, running_max=high)

    def frame_fit(self, statistic: Extrema) -> Node:
        """Scaling by this frame's bounds."""
        return _FrameColor(self, statistic.minimum, statistic.maximum)

    def freeze_bounds(self) -> None:
        """Let no further frame change the bounds of ``running``; archives can then be scored.

        Raises
        ------
        hsi_batch.errors.DataError
            No frame was seen yet.
        """
        if not self.has_bounds:
            raise DataError(
                f"{self.name}: there are no bounds to freeze yet.",
                hint="Run frames through the pipeline first, or use norm_mode 'statistical'.",
            )
        seen = int(self._norm_frame_count)
        self.freeze_after = min(self.freeze_after or seen, max(seen, 1))
        self.hparams["freeze_running_bounds_after_frames"] = self.freeze_after
        self._norm_frame_count = torch.tensor(max(seen, self.warmup, 1))

    # -- running -----------------------------------------------------------------------------------

    def _mapping(self, axis: ChannelAxis) -> Mapping32:
        return Mapping32(self.compose(axis), self.FLOOR)

    def _composed(self, cube: Tensor, axis: ChannelAxis) -> Tensor:
        composed = self.compose(axis)
        if composed.monomial is not None:
            source, factor = composed.monomial
            image = cube[..., torch.from_numpy(source).to(cube.device)].double()
            image = image * torch.from_numpy(factor).to(cube.device)
        else:
            image = cube.double() @ torch.from_numpy(composed.matrix).to(cube.device).T
        image = (image + torch.from_numpy(composed.offset).to(cube.device)).to(torch.float32)
        return image if self.FLOOR is None else torch.clamp(image, min=self.FLOOR)

    def show(self, image: Tensor, low: NDArray[Any], high: NDArray[Any]) -> Tensor:
        """Bring a composed picture to [0, 1]."""
        linear = stretch(image, low, high)
        return srgb(linear) if self.apply_gamma else linear

    def _bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        state = self.exact_state()
        if state is not None and "low" in state:
            return state["low"], state["high"]
        return _double(self.running_min), _double(self.running_max)

    def _own(self, image: Tensor) -> Tensor:
        pixels = _finite(image)
        if not len(pixels):
            return torch.full_like(image, torch.nan)
        return self.show(image, pixels.min(axis=0), pixels.max(axis=0))

    def _next(self, image: Tensor) -> Tensor:
        """Count a picture, let it widen the bounds, and scale it."""
        pixels = _finite(image)
        if not len(pixels):
            return torch.full_like(image, torch.nan)
        self._norm_frame_count = self._norm_frame_count + 1
        count = int(self._norm_frame_count)
        low, high = np.quantile(pixels, _LEVELS, axis=0)
        if self.freeze_after is None or count <= self.freeze_after:
            seen = [torch.from_numpy(bound).to(self.running_min) for bound in (low, high)]
            if self.has_bounds:
                seen[0] = torch.minimum(self.running_min, seen[0])
                seen[1] = torch.maximum(self.running_max, seen[1])
            self.running_min, self.running_max = seen
        if count > self.warmup:
            low, high = self._bounds()
        return self.show(image, low, high)

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Any]:
        """Compose a picture of ``cube`` (B, y, x, C)."""
        self._need_fit()
        axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
        known_wavelengths(axis, self.name)
        image = self._composed(cube, axis)
        if self.normalize_output and self.scope is Scope.PIXEL:
            image = self.show(image, *self._bounds())
        elif self.normalize_output:
            step = self._own if self.norm_mode == "per_frame" else self._next
            image = torch.stack([step(each) for each in image])
        told = {"strategy": self.STRATEGY, "normalized_output": self.normalize_output}
        return {"rgb_image": image, "band_info": {**told, **self.info(axis)}}


class _FrameColor(Node):
    """What a node with bounds per frame becomes once its frame is known."""

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = FalseColor.OUTPUT_SPECS

    def __init__(self, node: FalseColor, low: NDArray[Any], high: NDArray[Any]) -> None:
        super().__init__(node.name)
        # Not a submodule: the node stays that of the graph.
        self._of = (node,)
        self._ends = (low, high)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Compose a picture of ``cube`` (B, y, x, C) by the bounds of the frame."""
        (node,) = self._of
        axis = reaching_axis(node, "cube", cube.shape[-1], wavelengths)
        image = node._composed(cube, axis)  # noqa: SLF001
        return {"rgb_image": node.show(image, *self._ends)}


def register_bounds(node: Node) -> None:
    """Give a node the buffers that cuvis-ai keeps for every selector, used or not."""
    node.register_buffer("running_min", torch.full((3,), torch.nan))
    node.register_buffer("running_max", torch.full((3,), torch.nan))
    node.register_buffer("_norm_frame_count", torch.tensor(0))


def _finite(image: Tensor) -> NDArray[np.float64]:
    """Pixels ``(n, C)`` whose channels are all finite."""
    pixels = image.detach()[torch.isfinite(image).all(dim=-1)]
    return np.asarray(pixels.double().cpu().numpy())


def _double(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
