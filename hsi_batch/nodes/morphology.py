"""Shapes of the objects of a mask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataWarning, PipelineError, did_you_mean
from hsi_batch.nodes.components import connected, need_connectivity, numbered
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = ["ShapeMorphology"]

_PROPERTIES = (
    "area",
    "centroid_y",
    "centroid_x",
    "major_axis",
    "minor_axis",
    "eccentricity",
    "orientation",
    "bbox_area",
)


class ShapeMorphology(Node):
    """Numbers and shapes of the objects of each mask.

    With ``l1 >= l2`` the eigenvalues of the covariance of the coordinates of an object's pixels
    (the moments divided by the area): ``major_axis = 4 sqrt(l1)``, ``minor_axis = 4 sqrt(l2)``,
    the axes of the ellipse of the same covariance; ``eccentricity = sqrt(1 - l2 / l1)``, 0 for
    single pixels; ``orientation = atan2(2 c_yx, c_yy - c_xx) / 2``, the angle from the lines' axis
    (downwards) to the major axis, rad. Lengths are in pixels, centroids count from the middle of
    the first pixel. Conventions are those of ``regionprops`` of scikit-image.

    Objects are numbered in the order in which lines meet them; those after the first
    ``max_objects`` are left out, with a warning.

    Parameters
    ----------
    properties : sequence of str, optional
        Among area, centroid_y, centroid_x, major_axis, minor_axis, eccentricity, orientation and
        bbox_area, the area of the enclosing rectangle; all by default.
    max_objects : int
        Rows of the table.
    connectivity : {8, 4}
        Whether pixels that share a corner are connected, or only those that share a side.
    binarize : bool
        An object is a connected region of the pixels above 0; else all pixels of one positive
        number.

    Examples
    --------
    >>> mask = torch.tensor([[[1, 1, 0, 1]]], dtype=torch.int32)
    >>> out = ShapeMorphology(["area", "centroid_x"], max_objects=2)(mask=mask)
    >>> out["identity_mask"], out["properties"]
    (tensor([[[1, 1, 0, 2]]], dtype=torch.int32), tensor([[[2.0000, 0.5000],
             [1.0000, 3.0000]]]))
    """

    INPUT_SPECS = {"mask": PortSpec(torch.int32, (-1, -1, -1), "objects are above 0")}
    OUTPUT_SPECS = {
        "identity_mask": PortSpec(torch.int32, (-1, -1, -1), "number of the object, from 1"),
        "properties": PortSpec(torch.float32, (-1, -1, -1), "(B, max_objects, properties)"),
        "valid": PortSpec(torch.bool, (-1, -1), "rows that hold an object"),
    }

    def __init__(
        self,
        properties: Sequence[str] | None = None,
        max_objects: int = 256,
        connectivity: int = 8,
        binarize: bool = True,
        name: str | None = None,
    ) -> None:
        chosen = list(_PROPERTIES if properties is None else properties)
        super().__init__(
            name,
            properties=chosen,
            max_objects=max_objects,
            connectivity=connectivity,
            binarize=binarize,
        )
        for each in chosen:
            if each not in _PROPERTIES:
                raise PipelineError(
                    f"property {each!r} is not one of {', '.join(_PROPERTIES)}."
                    f"{did_you_mean(each, _PROPERTIES)}"
                )
        if not chosen:
            raise PipelineError(
                "properties must name at least one.", hint="Name some, such as area."
            )
        if max_objects < 1:
            raise PipelineError(f"max_objects {max_objects} must be at least 1.")
        need_connectivity(connectivity)
        self._chosen = chosen
        self.max_objects = int(max_objects)
        self.connectivity = int(connectivity)
        self.binarize = bool(binarize)

    @property
    def scope(self) -> Scope:
        """Objects may be as large as the frame."""
        return Scope.FRAME

    def forward(self, mask: Tensor) -> dict[str, Tensor]:
        """Describe the objects of ``mask`` (B, y, x)."""
        frames = mask.detach().cpu().numpy()
        identity = np.zeros(frames.shape, dtype=np.int32)
        table = np.zeros((len(frames), self.max_objects, len(self._chosen)), dtype=np.float32)
        valid = np.zeros(table.shape[:2], dtype=bool)
        for index, frame in enumerate(frames):
            labels = connected(frame > 0, self.connectivity) if self.binarize else numbered(frame)
            if labels.max(initial=0) > self.max_objects:
                warnings.warn(
                    f"{self.name}: there are more objects in a frame than max_objects"
                    f" {self.max_objects}; the last ones were left out.",
                    DataWarning,
                    stacklevel=2,
                )
                labels[labels > self.max_objects] = 0
            rows = _shapes(labels)
            found = len(rows["area"])
            table[index, :found] = np.stack([rows[each] for each in self._chosen], axis=-1)
            valid[index, :found] = True
            identity[index] = labels
        outputs = {"identity_mask": identity, "properties": table, "valid": valid}
        return {port: torch.from_numpy(value).to(mask.device) for port, value in outputs.items()}


def _shapes(labels: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
    """Each property of the objects 1, 2, ... of ``labels``."""
    y, x = np.nonzero(labels)
    of = labels[y, x] - 1
    count = int(labels.max(initial=0))
    area = np.bincount(of, minlength=count).astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(of, weights=values, minlength=count) / area)

    middle_y, middle_x = mean(y.astype(np.float64)), mean(x.astype(np.float64))
    off_y, off_x = y - middle_y[of], x - middle_x[of]
    yy, xx, yx = mean(off_y**2), mean(off_x**2), mean(off_y * off_x)
    apart = np.hypot(yy - xx, 2.0 * yx)
    large, small = (yy + xx + apart) / 2.0, np.maximum((yy + xx - apart) / 2.0, 0.0)
    corners = np.full((2, count), np.iinfo(np.int64).max), np.full((2, count), -1)
    for axis, place in enumerate((y, x)):
        np.minimum.at(corners[0][axis], of, place)
        np.maximum.at(corners[1][axis], of, place)
    return {
        "area": area,
        "centroid_y": middle_y,
        "centroid_x": middle_x,
        "major_axis": 4.0 * np.sqrt(large),
        "minor_axis": 4.0 * np.sqrt(small),
        "eccentricity": np.sqrt(1.0 - small / np.where(large > 0, large, 1.0)) * (large > 0),
        # No negative zero: level objects lie at +pi / 2.
        "orientation": 0.5 * np.arctan2(2.0 * yx + 0.0, yy - xx),
        "bbox_area": np.prod(corners[1] - corners[0] + 1, axis=0).astype(np.float64),
    }
