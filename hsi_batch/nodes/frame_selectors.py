"""False-colour pictures that look at the whole frame first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.color_selectors import Range, checked_range, range_info, range_weights
from hsi_batch.nodes.false_color import (
    BAND_INFO,
    CUBE_IN,
    RGB,
    FalseColor,
    NormMode,
    nearest,
    register_bounds,
)
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.wavelengths import known_wavelengths, reaching_axis
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.moments import Moments

__all__ = ["FastRGBSelector", "HighContrastSelector"]

#: The value of full reflectance in the integers of Cubert's processing.
_FULL = 10000.0
#: Strengths up to this count as none.
_NONE = 1e-3


class FastRGBSelector(Node):
    """A picture of averaged ranges, its mean brought to a fixed grey, in 256 steps.

    ``rgb = round(min(max(f m, 0), 255)) / 255`` where ``m`` are the means over three ranges of
    wavelengths and ``f = 128 normalization_strength / mean`` by the mean of ``m`` over the frame
    (0 if that is not positive). Without a strength (0.001 or less) ``f = 255 / 10000``, and nothing
    of the frame has to be known.

    Parameters
    ----------
    red_range, green_range, blue_range : (float, float)
        Ends, inclusive, nm; a range without channels gives 0.
    normalization_strength : float
        Grey that the mean becomes, in units of 128/255.

    Examples
    --------
    >>> nm = np.array([450, 550, 600], dtype=np.int32)
    >>> cube = torch.tensor([[[[1000.0, 2000.0, 3000.0]]]])
    >>> (255 * FastRGBSelector()(cube=cube, wavelengths=nm)["rgb_image"]).ravel()
    tensor([144.,  96.,  48.])
    """

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = {"rgb_image": RGB, "band_info": BAND_INFO}

    def __init__(
        self,
        red_range: Range = (580.0, 650.0),
        green_range: Range = (500.0, 580.0),
        blue_range: Range = (420.0, 500.0),
        normalization_strength: float = 0.75,
        name: str | None = None,
    ) -> None:
        given = {"red_range": red_range, "green_range": green_range, "blue_range": blue_range}
        ranges = {key: checked_range(key, value) for key, value in given.items()}
        super().__init__(
            name,
            **{key: list(value) for key, value in ranges.items()},
            normalization_strength=normalization_strength,
        )
        need_non_negative(normalization_strength=normalization_strength)
        self.ranges = tuple(ranges.values())
        self.strength = float(normalization_strength)
        register_bounds(self)
        self.register_buffer("_ranges", torch.tensor(self.ranges))

    @property
    def scope(self) -> Scope:
        """Frame with a strength, else pixel."""
        return Scope.FRAME if self.strength > _NONE else Scope.PIXEL

    def requests(self) -> tuple[Request, ...]:
        """Moments of the frame, for its mean."""
        return (Request("cube", "moments"),) if self.strength > _NONE else ()

    def frame_fit(self, statistic: Moments) -> Node:
        """Scaling by this frame's mean."""
        composed = range_weights(self.name, self.ranges, self.axes["cube"])
        mean = float((composed.matrix @ statistic.mean).mean()) if statistic.count else 0.0
        return _FixedFactor(self, self._factor(mean))

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """Red, green and blue."""
        range_weights(self.name, self.ranges, axes["cube"])
        return {"rgb_image": ChannelAxis(3)}

    def _factor(self, mean: float) -> float:
        if self.strength <= _NONE:
            return 255.0 / _FULL
        return 128.0 * self.strength / mean if mean > 1e-12 else 0.0

    def averaged(self, cube: Tensor, axis: ChannelAxis) -> Tensor:
        """Means over the ranges, float64."""
        matrix = range_weights(self.name, self.ranges, axis).matrix
        return cube.double() @ torch.from_numpy(matrix).to(cube.device).T

    @staticmethod
    def stepped(picture: Tensor, factor: float) -> Tensor:
        """256 steps from 0 to 1."""
        steps = torch.clamp(torch.round(picture * factor), 0.0, 255.0)
        return (steps / 255.0).to(torch.float32)

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Any]:
        """Compose a picture of ``cube`` (B, y, x, C)."""
        axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
        pictures = self.averaged(cube, axis)
        finite = [p[torch.isfinite(p).all(dim=-1)] for p in pictures]
        factors = [self._factor(float(p.mean()) if len(p) else 0.0) for p in finite]
        shown = [self.stepped(p, f) for p, f in zip(pictures, factors, strict=True)]
        told = {
            "strategy": "fast_rgb",
            **range_info(self.ranges, range_weights(self.name, self.ranges, axis), axis),
            "normalization_strength": self.strength,
            "applied_scale_factor": factors[0] if len(factors) == 1 else factors,
        }
        return {"rgb_image": torch.stack(shown), "band_info": told}


class _FixedFactor(Node):
    """What a :class:`FastRGBSelector` becomes once its frame is known."""

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = FastRGBSelector.OUTPUT_SPECS

    def __init__(self, node: FastRGBSelector, factor: float) -> None:
        super().__init__(node.name)
        # Not a submodule: the node stays that of the graph.
        self._of = (node,)
        self._factor = factor

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Compose a picture of ``cube`` (B, y, x, C) by the factor of the frame."""
        (node,) = self._of
        axis = reaching_axis(node, "cube", cube.shape[-1], wavelengths)
        return {"rgb_image": node.stepped(node.averaged(cube, axis), self._factor)}


class HighContrastSelector(FalseColor):
    """A picture of the channel of most contrast in each of three windows, chosen for each frame.

    Contrast is ``var(I) + alpha mean |laplace(I)|`` over the frame, with mirrored edges, over the
    pixels that are numbers. Bounds with ``statistical`` would need the channels of all frames
    before any, so that mode is refused.

    Parameters
    ----------
    windows : three of (float, float)
        Ends, inclusive, nm; of a window without channels the one nearest to its middle is taken.
    alpha : float
        Weight of edges.
    norm_mode : {"running", "per_frame"}
        How the picture is scaled; see :class:`.FixedWavelengthSelector`.
    apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`.FixedWavelengthSelector`.
    normalize_output : bool
        Scale to [0, 1].

    Examples
    --------
    >>> nm = np.array([450, 480, 550, 650], dtype=np.int32)
    >>> cube = torch.zeros(1, 4, 4, 4)
    >>> cube[0, 1, 1] = torch.tensor([0.1, 0.9, 0.5, 0.5])
    >>> node = HighContrastSelector(norm_mode="per_frame")
    >>> node(cube=cube, wavelengths=nm)["band_info"]["band_indices"]
    [1, 2, 3]
    """

    STRATEGY = "high_contrast"

    def __init__(
        self,
        windows: Sequence[Range] = ((440.0, 500.0), (500.0, 580.0), (610.0, 700.0)),
        alpha: float = 0.1,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        checked = tuple(checked_range("windows", window) for window in windows)
        if len(checked) != 3:
            raise PipelineError(f"{len(checked)} windows were given; 3 are needed.")
        super().__init__(
            name,
            windows=[list(window) for window in checked],
            alpha=alpha,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )
        if norm_mode == "statistical" and normalize_output:
            raise PipelineError(
                "norm_mode 'statistical' is not for channels that are chosen frame by frame.",
                hint="Use 'per_frame', or a selector of fixed channels.",
            )
        self.windows = checked
        self.alpha = float(alpha)
        self.AFFINE = None  # type: ignore[misc]

    @property
    def scope(self) -> Scope:
        """Frame, or sequence while bounds move."""
        found = super().scope
        return Scope.FRAME if found is Scope.PIXEL else found

    @property
    def fits_each_frame(self) -> bool:
        """No: it looks at neighbours, so frames are assembled."""
        return False

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """Red, green and blue."""
        known_wavelengths(axes["cube"], self.name)
        return {"rgb_image": ChannelAxis(3)}

    def compose(self, axis: ChannelAxis) -> Affine:  # noqa: ARG002
        """There is no map for all frames."""
        raise PipelineError(
            f"{self.name} chooses the channels of every frame anew.",
            hint="Use it as a picture, not in front of nodes that need one map.",
        )

    def info(self, axis: ChannelAxis) -> dict[str, Any]:  # noqa: ARG002
        """What channels are chosen by."""
        return {"windows_nm": [list(window) for window in self.windows], "alpha": self.alpha}

    def _choose(self, image: NDArray[Any], wavelengths: NDArray[np.float64]) -> list[int]:
        chosen = []
        for low, high in self.windows:
            inside = np.flatnonzero((wavelengths >= low) & (wavelengths <= high))
            if inside.size:
                worth = [self._contrast(image[..., channel]) for channel in inside]
                chosen.append(int(inside[np.argmax(worth)]))
            else:
                chosen.append(nearest(wavelengths, (low + high) / 2))
        return chosen

    def _contrast(self, band: NDArray[Any]) -> float:
        values = band.astype(np.float64)
        edges = np.abs(scipy.ndimage.laplace(values))
        finite, sharp = values[np.isfinite(values)], edges[np.isfinite(edges)]
        spread = float(finite.var()) if finite.size else 0.0
        return spread + self.alpha * (float(sharp.mean()) if sharp.size else 0.0)

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Any]:
        """Compose a picture of each image of ``cube`` (B, y, x, C)."""
        axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
        known = known_wavelengths(axis, self.name)
        chosen = [self._choose(image, known) for image in cube.detach().cpu().numpy()]
        pictures = [image[..., each] for image, each in zip(cube, chosen, strict=True)]
        if self.normalize_output:
            pictures = [self._scaled(picture) for picture in pictures]
        told = {
            "strategy": self.STRATEGY,
            "normalized_output": self.normalize_output,
            "band_indices": chosen[0] if len(chosen) == 1 else chosen,
            **self.info(axis),
        }
        return {"rgb_image": torch.stack(pictures), "band_info": told}

    def _scaled(self, picture: Tensor) -> Tensor:
        if self.norm_mode == "per_frame":
            return self._own(picture)
        return self.show(picture, *self._bounds()) if self.frozen else self._next(picture)
