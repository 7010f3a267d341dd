"""Bright objects on a dark background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.components import connected, need_connectivity, numbered, otsu_above
from hsi_batch.nodes.false_color import CUBE_IN, nearest
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import known_wavelengths, reaching_axis

__all__ = ["BlobDetector"]

Picture = NDArray[np.float64]


class BlobDetector(Node):
    """Connected bright regions of each frame: their numbers, boxes and centroids.

    The brightness of the pixels is scaled to [0, 1] by its extremes in the frame and compared with
    a threshold; the foreground is opened, which removes specks, then closed, which fills gaps, by
    squares. Regions within the bounds of area are numbered in the order in which lines meet them.
    Pixels that are not finite are background. Boxes are ``(x0, y0, x1, y1)``, ends excluded, and
    centroids ``(x, y)``, in pixels; rows behind ``count`` are zeros.

    cuvis-ai looks at the first frame of a batch only, and takes the mean of the channels if it
    knows no wavelengths for ``index``, which here is an error.

    Parameters
    ----------
    brightness : {"band_mean", "max", "index"}
        Mean or maximum over the channels, or ``(a - b) / (a + b)`` of the channels nearest to
        ``index_wavelengths``.
    threshold_method : {"otsu", "quantile", "fixed"}
        Otsu's threshold in 256 steps; or a quantile of the brightness, or a scaled brightness,
        from which on pixels are bright.
    threshold : float
        The quantile, or the scaled brightness, in [0, 1].
    index_wavelengths : (float, float), optional
        Nanometres of ``a`` and ``b``.
    opening_kernel, closing_kernel : int
        Sides of the squares, pixels; even ones count as the next odd one, below 2 nothing is done.
    min_area : int
        Smallest number of pixels of a region.
    max_area : int, optional
        Largest number of pixels of a region.
    keep_largest : int, optional
        How many of them are kept at most, the largest.
    connectivity : {8, 4}
        Whether pixels that share a corner are connected, or only those that share a side.

    Examples
    --------
    >>> cube = torch.zeros(1, 8, 8, 2)
    >>> cube[0, 2:5, 3:7] = 1.0
    >>> out = BlobDetector(opening_kernel=1, closing_kernel=1)(cube=cube)
    >>> out["count"], out["bboxes"]
    (tensor([1], dtype=torch.int32), tensor([[[3., 2., 7., 5.]]]))
    """

    INPUT_SPECS = CUBE_IN
    OUTPUT_SPECS = {
        "mask": PortSpec(torch.int32, (-1, -1, -1), "number of the region, from 1"),
        "bboxes": PortSpec(torch.float32, (-1, -1, 4), "(B, N, 4), pixels"),
        "centroids": PortSpec(torch.float32, (-1, -1, 2), "(B, N, 2), pixels"),
        "count": PortSpec(torch.int32, (-1,), "regions of each frame"),
    }

    def __init__(
        self,
        brightness: Literal["band_mean", "max", "index"] = "band_mean",
        threshold_method: Literal["otsu", "quantile", "fixed"] = "otsu",
        threshold: float = 0.5,
        index_wavelengths: Sequence[float] | None = None,
        opening_kernel: int = 3,
        closing_kernel: int = 3,
        min_area: int = 5,
        max_area: int | None = None,
        keep_largest: int | None = None,
        connectivity: int = 8,
        name: str | None = None,
    ) -> None:
        pair = None if index_wavelengths is None else [float(each) for each in index_wavelengths]
        super().__init__(
            name,
            brightness=brightness,
            threshold_method=threshold_method,
            threshold=threshold,
            index_wavelengths=pair,
            opening_kernel=opening_kernel,
            closing_kernel=closing_kernel,
            min_area=min_area,
            max_area=max_area,
            keep_largest=keep_largest,
            connectivity=connectivity,
        )
        if brightness not in ("band_mean", "max", "index"):
            raise PipelineError(f"brightness {brightness!r} is not one of band_mean, max, index.")
        if threshold_method not in ("otsu", "quantile", "fixed"):
            raise PipelineError(
                f"threshold_method {threshold_method!r} is not one of otsu, quantile, fixed."
            )
        if not 0.0 <= threshold <= 1.0:
            raise PipelineError(f"threshold {threshold} is not within 0 and 1.")
        if brightness == "index" and (pair is None or len(pair) != 2):
            raise PipelineError(
                f"index_wavelengths {pair} must be two wavelengths for brightness 'index'."
            )
        need_connectivity(connectivity)
        if min_area < 1 or (max_area is not None and max_area < min_area):
            raise PipelineError(
                f"min_area {min_area} must be at least 1, and max_area {max_area} no less than it."
            )
        if keep_largest is not None and keep_largest < 1:
            raise PipelineError(f"keep_largest {keep_largest} must be at least 1.")
        self.connectivity = int(connectivity)

    @property
    def scope(self) -> Scope:
        """Brightness is scaled over the frame."""
        return Scope.FRAME

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """Nothing but numbers; an index needs wavelengths."""
        if self.hparams["brightness"] == "index":
            known_wavelengths(axes["cube"], self.name)
        return {}

    def forward(self, cube: Tensor, wavelengths: Any = None) -> dict[str, Tensor]:
        """Find the blobs of each frame of ``cube`` (B, y, x, C)."""
        bands = None
        if self.hparams["brightness"] == "index":
            axis = reaching_axis(self, "cube", cube.shape[-1], wavelengths)
            known = known_wavelengths(axis, self.name)
            bands = [nearest(known, each) for each in self.hparams["index_wavelengths"]]
        frames = cube.detach().cpu().numpy()
        masks = np.zeros(frames.shape[:3], dtype=np.int32)
        for mask, frame in zip(masks, frames, strict=True):
            bright = self._foreground(self._brightness(frame, bands))
            mask[:] = self._kept(connected(bright, self.connectivity))
        counts = masks.max(axis=(1, 2), initial=0)
        boxes = np.zeros((len(masks), counts.max(initial=0), 4), dtype=np.float32)
        centroids = np.zeros((*boxes.shape[:2], 2), dtype=np.float32)
        for index, mask in enumerate(masks):
            for row, (lines, columns) in enumerate(scipy.ndimage.find_objects(mask)):
                boxes[index, row] = columns.start, lines.start, columns.stop, lines.stop
                y, x = np.nonzero(mask[lines, columns] == row + 1)
                centroids[index, row] = columns.start + x.mean(), lines.start + y.mean()
        outputs = {"mask": masks, "bboxes": boxes, "centroids": centroids, "count": counts}
        return {port: torch.from_numpy(value).to(cube.device) for port, value in outputs.items()}

    def _brightness(self, frame: NDArray[Any], bands: list[int] | None) -> Picture:
        if bands is not None:
            a, b = (frame[..., band].astype(np.float64) for band in bands)
            total = a + b
            return np.asarray((a - b) / np.where(total == 0, 1.0, total))
        if self.hparams["brightness"] == "max":
            return np.asarray(frame.max(axis=-1), dtype=np.float64)
        return np.asarray(frame.mean(axis=-1, dtype=np.float64))

    def _foreground(self, bright: Picture) -> NDArray[np.bool_]:
        found = np.zeros(bright.shape, dtype=bool)
        finite = np.isfinite(bright)
        values = bright[finite]
        if not values.size:
            return found
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low if high > low else 1.0)
        if self.hparams["threshold_method"] == "otsu":
            found[finite] = otsu_above(scaled)
        elif self.hparams["threshold_method"] == "quantile":
            found[finite] = scaled >= np.quantile(scaled, self.hparams["threshold"])
        else:
            found[finite] = scaled >= self.hparams["threshold"]
        opening = _square(self.hparams["opening_kernel"])
        closing = _square(self.hparams["closing_kernel"])
        # What lies beyond the edges neither erodes nor grows.
        found = scipy.ndimage.binary_erosion(found, opening, border_value=1)
        found = scipy.ndimage.binary_dilation(found, opening)
        found = scipy.ndimage.binary_dilation(found, closing)
        return np.asarray(scipy.ndimage.binary_erosion(found, closing, border_value=1))

    def _kept(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        most, largest = self.hparams["max_area"], self.hparams["keep_largest"]
        kept = areas >= self.hparams["min_area"]
        if most is not None:
            kept &= areas <= most
        if largest is not None:
            # Of equal ones the first.
            order = np.argsort(np.where(kept, -areas, 1), kind="stable")
            kept[order[largest:]] = False
        return numbered(np.where(kept[labels], labels, 0))


def _square(side: int) -> NDArray[np.bool_]:
    return np.ones((side | 1, side | 1) if side > 1 else (1, 1), dtype=bool)
