"""Objects whose spectra differ from the background of their frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.components import otsu_step
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = ["SpectralObjectMask"]

Values = NDArray[np.float64]


class SpectralObjectMask(Node):
    """Pixels whose spectral angle to the background of their frame is above a threshold.

    The background is the median of each channel over every ``median_stride``-th line and column,
    so it must cover most of the frame. Angles are ``2 atan2(|u - v|, |u + v|)`` for unit spectra,
    in degrees. Objects are decided on every ``stride``-th line and column, and each decision
    stands for the cell of ``stride`` x ``stride`` pixels right of and below its pixel. Spectra of
    zeros are at 90 degrees; pixels that are not finite have no angle and are no objects.

    cuvis-ai gives the angles on the coarse grid; here ``angle`` is that of every pixel.

    Parameters
    ----------
    min_angle_deg : float
        Threshold, degrees.
    stride, median_stride : int
        Steps of the grids, pixels.
    threshold : {"fixed", "otsu"}
        ``min_angle_deg``, or Otsu's threshold of the angles on the grid, clipped: in steps of 0.1
        degrees, angles above 25.5 counting as that.
    otsu_floor_deg, otsu_ceiling_deg : float
        Ends that Otsu's threshold is clipped to, degrees.
    fill : bool
        Close gaps by 3 x 3 cells, and fill holes.
    dilate_px : int
        Pixels by which objects are grown, to all sides, as a square.

    Examples
    --------
    >>> cube = torch.ones(1, 8, 8, 3)
    >>> cube[0, 2:5, 2:5] = torch.tensor([3.0, 1.0, 0.0])
    >>> out = SpectralObjectMask(stride=1, median_stride=1)(cube=cube)
    >>> int(out["decisions"].sum()), out["angle"].max().round()  # degrees
    (9, tensor(43.))
    """

    INPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = {
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "objects"),
        "angle": PortSpec(torch.float32, (-1, -1, -1, 1), "to the background, degrees"),
    }

    def __init__(
        self,
        min_angle_deg: float = 6.0,
        stride: int = 4,
        median_stride: int = 8,
        threshold: Literal["fixed", "otsu"] = "fixed",
        otsu_floor_deg: float = 3.0,
        otsu_ceiling_deg: float = 12.0,
        fill: bool = False,
        dilate_px: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            min_angle_deg=min_angle_deg,
            stride=stride,
            median_stride=median_stride,
            threshold=threshold,
            otsu_floor_deg=otsu_floor_deg,
            otsu_ceiling_deg=otsu_ceiling_deg,
            fill=fill,
            dilate_px=dilate_px,
        )
        angles = {
            "min_angle_deg": min_angle_deg,
            "otsu_floor_deg": otsu_floor_deg,
            "otsu_ceiling_deg": otsu_ceiling_deg,
        }
        for key, value in angles.items():
            if not 0.0 <= value <= 180.0:
                raise PipelineError(f"{key} {value} is not within 0 and 180 degrees.")
        if otsu_floor_deg > otsu_ceiling_deg:
            raise PipelineError(
                f"otsu_floor_deg {otsu_floor_deg} must not be above otsu_ceiling_deg"
                f" {otsu_ceiling_deg}."
            )
        for key, step, least in (
            ("stride", stride, 1),
            ("median_stride", median_stride, 1),
            ("dilate_px", dilate_px, 0),
        ):
            if step < least:
                raise PipelineError(f"{key} {step} must be at least {least}.")
        if threshold not in ("fixed", "otsu"):
            raise PipelineError(f"threshold {threshold!r} is not 'fixed' or 'otsu'.")

    @property
    def scope(self) -> Scope:
        """The background is that of the frame."""
        return Scope.FRAME

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """One decision, one angle."""
        return {"decisions": ChannelAxis(1), "angle": ChannelAxis(1)}

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Find the objects of each frame of ``cube`` (B, y, x, C)."""
        frames = cube.detach().cpu().numpy()
        angles = np.stack([self._angles(frame) for frame in frames])
        objects = np.stack([self._objects(angle) for angle in angles])
        outputs = {"decisions": objects, "angle": angles.astype(np.float32)}
        return {
            port: torch.from_numpy(value[..., None]).to(cube.device)
            for port, value in outputs.items()
        }

    def _angles(self, frame: NDArray[Any]) -> Values:
        step = int(self.hparams["median_stride"])
        sample = frame[::step, ::step].reshape(-1, frame.shape[-1]).astype(np.float64)
        sample = sample[np.isfinite(sample).all(axis=1)]
        if not len(sample):
            return np.full(frame.shape[:2], np.nan)
        background = _unit(np.median(sample, axis=0))
        # A line at a time: float64 copies of a frame would be large.
        lines = []
        for line in frame:
            units = _unit(line.astype(np.float64))
            apart = np.linalg.norm(units - background, axis=-1)
            lines.append(2.0 * np.arctan2(apart, np.linalg.norm(units + background, axis=-1)))
        return np.asarray(np.rad2deg(np.stack(lines)))

    def _objects(self, angles: Values) -> NDArray[np.bool_]:
        step, grown = int(self.hparams["stride"]), int(self.hparams["dilate_px"])
        grid = angles[::step, ::step]
        least = float(self.hparams["min_angle_deg"])
        if self.hparams["threshold"] == "otsu":
            least = self._otsu(grid[np.isfinite(grid)])
        found: NDArray[np.bool_] = grid > least
        if self.hparams["fill"]:
            square = np.ones((3, 3), dtype=bool)
            found = scipy.ndimage.binary_dilation(found, square)
            found = scipy.ndimage.binary_erosion(found, square, border_value=1)
            found = scipy.ndimage.binary_fill_holes(found)
        whole = found.repeat(step, axis=0).repeat(step, axis=1)
        whole = np.ascontiguousarray(whole[: angles.shape[0], : angles.shape[1]])
        if grown:
            whole = scipy.ndimage.maximum_filter(whole, 2 * grown + 1, mode="constant", cval=0)
        return np.asarray(whole & np.isfinite(angles))

    def _otsu(self, angles: Values) -> float:
        floor = float(self.hparams["otsu_floor_deg"])
        ceiling = float(self.hparams["otsu_ceiling_deg"])
        step = otsu_step(np.clip(angles * 10.0, 0.0, 255.0).astype(np.int64))
        level = 0.0 if step is None else (step + 1) / 10.0
        return float(min(max(level, floor), ceiling))


def _unit(spectra: Values) -> Values:
    length = np.linalg.norm(spectra, axis=-1, keepdims=True)
    return np.asarray(spectra / np.where(length > 0, length, 1.0))
