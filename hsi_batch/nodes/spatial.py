"""Coarser grids of pixels, and the way back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.grid import WHOLE, Grid
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = ["GridNode", "GridSubsample", "ScoreUpsample", "SpatialRotateNode"]

_CUBE = PortSpec(torch.float32, (-1, -1, -1, -1), "cube")
_SCORES = PortSpec(torch.float32, (-1, -1, -1, -1), "score maps")


class GridNode(Node):
    """Base of nodes whose outputs hold other pixels, or hold them elsewhere, than their inputs.

    A :class:`.Grid` says which pixels of the cube a map holds.
    """

    #: Inputs of which only lines and samples are looked at; their values are not computed.
    SIZE_INPUTS: ClassVar[frozenset[str]] = frozenset()

    @property
    def scope(self) -> Scope:
        """A frame."""
        return Scope.FRAME

    @abstractmethod
    def output_grid(self, grids: Mapping[str, Grid]) -> Grid:
        """Grid of the outputs from those of the inputs that are connected."""

    def grid_problem(self, grids: Mapping[str, Grid]) -> str | None:
        """What is wrong with the grids of the inputs; by default, that some are turned."""
        turned = len({grid.turns for grid in grids.values()}) > 1
        return "its inputs are turned differently." if turned else None


class GridSubsample(GridNode):
    """Every ``stride``-th pixel in both directions: ``cube[:, ::stride, ::stride]``.

    What comes behind it is computed, and fitted, on those pixels alone; they are taken block by
    block, so a frame is never held. :class:`ScoreUpsample` brings scores back to the size of the
    cube; without it they cannot be stored.

    Parameters
    ----------
    stride : int
        Step in pixels; 1 hands the cube on.

    Examples
    --------
    >>> GridSubsample(2)(cube=torch.arange(5.0).reshape(1, 1, 5, 1))["cube"].flatten()
    tensor([0., 2., 4.])
    """

    INPUT_SPECS = {"cube": _CUBE}
    OUTPUT_SPECS = {"cube": _CUBE}

    def __init__(self, stride: int = 4, name: str | None = None) -> None:
        super().__init__(name, stride=stride)
        if isinstance(stride, bool) or stride != int(stride) or stride < 1:
            raise PipelineError(
                f"stride {stride!r} is not a whole number of at least 1.",
                hint="Give 1, 2, 3 and so on.",
            )
        self.stride = int(stride)

    def output_grid(self, grids: Mapping[str, Grid]) -> Grid:
        """Steps multiply."""
        before = grids.get("cube", WHOLE)
        return before._replace(step=before.step * self.stride)

    def grid_problem(self, grids: Mapping[str, Grid]) -> str | None:
        """Pixels are counted from the first of the cube."""
        if grids.get("cube", WHOLE).turns:
            return "it counts pixels from the first of the cube; turn maps behind it, not before."
        return None

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"cube": axes["cube"]}

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Thin out ``cube`` (B, y, x, C)."""
        return {"cube": cube[:, :: self.stride, :: self.stride]}


class ScoreUpsample(GridNode):
    """Interpolate maps of a coarse grid to the size of ``reference``.

    By default as ``torch.nn.functional.interpolate`` with ``align_corners=False`` and cuvis-ai do:
    a coarse pixel stands for a tile, and its value for the middle of that. :class:`GridSubsample`
    takes the first pixel of each tile, so such maps lie ``(stride - 1) / 2`` pixels too far down
    and right; with its ``stride`` given here, values stay at the pixels they were computed for.
    Beyond the last of these they are repeated.

    Where an invalid value has a share in the result, the valid ones are averaged with their
    bilinear shares; where none has, the result is NaN.

    Parameters
    ----------
    mode : {"bilinear", "bicubic", "nearest"}
        Interpolation.
    stride : int, optional
        Coarse pixel ``i`` is pixel ``i stride`` of the reference.

    Examples
    --------
    >>> coarse = torch.tensor([0.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    >>> cube = torch.zeros(1, 1, 5, 61)
    >>> ScoreUpsample(stride=2)(scores=coarse, reference=cube)["scores"].flatten()
    tensor([0., 1., 2., 3., 4.])
    """

    INPUT_SPECS = {
        "scores": _SCORES,
        "reference": PortSpec(torch.float32, (-1, -1, -1, -1), "of the wanted size"),
    }
    OUTPUT_SPECS = {"scores": _SCORES}
    SIZE_INPUTS = frozenset({"reference"})

    def __init__(
        self,
        mode: Literal["bilinear", "bicubic", "nearest"] = "bilinear",
        stride: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name, mode=mode, stride=stride)
        if mode not in ("bilinear", "bicubic", "nearest"):
            raise PipelineError(f"mode {mode!r} is not 'bilinear', 'bicubic' or 'nearest'.")
        if stride is not None and stride < 1:
            raise PipelineError(f"stride {stride} must be at least 1.")
        self.mode = mode
        self.stride = stride

    def output_grid(self, grids: Mapping[str, Grid]) -> Grid:
        """The grid of the reference."""
        return grids.get("reference", WHOLE)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the scores."""
        return {"scores": axes["scores"]}

    def forward(self, scores: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """Bring ``scores`` (B, h, w, K) to ``(B, y, x, K)``."""
        size = (int(reference.shape[1]), int(reference.shape[2]))
        maps = scores.double().permute(0, 3, 1, 2)
        found = self._resized(maps, size, self.mode)
        known = torch.isfinite(maps)
        if not bool(known.all()):
            linear = "nearest" if self.mode == "nearest" else "bilinear"
            share = self._resized(known.double(), size, linear)
            filled = self._resized(torch.where(known, maps, 0.0), size, linear) / share
            found = torch.where(torch.isfinite(found), found, filled)
        return {"scores": found.permute(0, 2, 3, 1).to(scores.dtype)}

    def _resized(self, maps: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        if self.stride is None:
            align = None if mode == "nearest" else False
            return functional.interpolate(maps, size, mode=mode, align_corners=align)
        # From -1 at the first coarse pixel to 1 at the last.
        ends = [max(n - 1, 1) for n in maps.shape[2:]]
        axes = [
            2.0 * torch.arange(n, dtype=maps.dtype, device=maps.device) / self.stride / end - 1.0
            for n, end in zip(size, ends, strict=True)
        ]
        y, x = torch.meshgrid(*axes, indexing="ij")
        grid = torch.stack([x, y], dim=-1).expand(len(maps), -1, -1, -1)
        return functional.grid_sample(
            maps, grid, mode=mode, padding_mode="border", align_corners=True
        )


class SpatialRotateNode(GridNode):
    """Turn cubes, class maps and pictures by quarter turns, to the left if ``rotation`` is above 0.

    Fits and whatever works pixel by pixel find the same behind it. Maps behind it lie otherwise
    than the cube, so they cannot be stored, unless a second node turns them back.

    Parameters
    ----------
    rotation : {90, -90, 180, 270, -270, -180, 0}, optional
        In degrees; none or 0 hands everything on.

    Examples
    --------
    >>> SpatialRotateNode(90)(cube=torch.arange(4.0).reshape(1, 2, 2, 1))["cube"][0, ..., 0]
    tensor([[1., 3.],
            [0., 2.]])
    """

    INPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.int32, (-1, -1, -1), "class numbers", optional=True),
        "rgb_image": PortSpec(torch.float32, (-1, -1, -1, 3), "picture", optional=True),
    }
    OUTPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.int32, (-1, -1, -1), "class numbers, turned", optional=True),
        "rgb_image": PortSpec(torch.float32, (-1, -1, -1, 3), "picture, turned", optional=True),
    }

    def __init__(self, rotation: int | None = None, name: str | None = None) -> None:
        super().__init__(name, rotation=rotation)
        degrees = rotation or 0
        if degrees not in (0, 90, -90, 180, -180, 270, -270):
            raise PipelineError(
                f"rotation {rotation!r} is not 0, 90, 180 or 270 degrees.",
                hint="Give one of these, or a negative one.",
            )
        self.turns = int(degrees) // 90 % 4

    def output_grid(self, grids: Mapping[str, Grid]) -> Grid:
        """Turns add up."""
        before = grids.get("cube", WHOLE)
        return before._replace(turns=(before.turns + self.turns) % 4)

    def grid_problem(self, grids: Mapping[str, Grid]) -> str | None:
        """All inputs must be of one grid."""
        return "its inputs are maps of different grids." if len(set(grids.values())) > 1 else None

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"cube": axes["cube"]}

    def forward(
        self, cube: Tensor, mask: Tensor | None = None, rgb_image: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Turn what is given, ``(B, y, x)`` and ``(B, y, x, C)``."""
        given = {"cube": cube, "mask": mask, "rgb_image": rgb_image}
        return {
            port: torch.rot90(value, self.turns, dims=(1, 2))
            for port, value in given.items()
            if value is not None
        }
