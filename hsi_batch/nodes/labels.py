"""From class numbers to anomalies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.data import anomalous
from hsi_batch.nodes.node import Node
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine

__all__ = ["BinaryAnomalyLabelMapper"]

_CUBE = PortSpec(torch.float32, (-1, -1, -1, -1), "cube or scores, handed on")


class BinaryAnomalyLabelMapper(Node):
    """Map class numbers to True (anomalous) and False, beside data that are handed on.

    False for ``normal_class_ids``, True for every other class, or only for ``anomaly_class_ids`` if
    they are given; those in neither list then count as normal. Unlabelled pixels (-1) are False.

    Parameters
    ----------
    normal_class_ids : sequence of int
        Classes that are background.
    anomaly_class_ids : sequence of int, optional
        Classes that are anomalies.

    Examples
    --------
    >>> node = BinaryAnomalyLabelMapper([0, 1])
    >>> mask = torch.tensor([[[[0], [1], [2], [-1]]]], dtype=torch.int32)
    >>> node(cube=torch.zeros(1, 1, 4, 1), mask=mask)["mask"].flatten()
    tensor([False, False,  True, False])
    """

    INPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.int32, (-1, -1, -1, 1), "class numbers"),
    }
    OUTPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous"),
    }
    AFFINE = ("cube", "cube")

    def __init__(
        self,
        normal_class_ids: Sequence[int],
        anomaly_class_ids: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        normal = [int(i) for i in normal_class_ids]
        anomaly = None if anomaly_class_ids is None else [int(i) for i in anomaly_class_ids]
        super().__init__(name, normal_class_ids=normal, anomaly_class_ids=anomaly)
        both = sorted(set(normal) & set(anomaly or ()))
        if both:
            raise PipelineError(
                f"classes {both} are in normal_class_ids and in anomaly_class_ids;"
                " a class is one or the other.",
                hint="Remove them from one of the two.",
            )
        self.normal_class_ids = tuple(normal)
        self.anomaly_class_ids = None if anomaly is None else tuple(anomaly)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the input."""
        return {"cube": axes["cube"]}

    def affine(self) -> Affine:
        """The identity."""
        return Affine.identity(self.axes["cube"].size)

    def forward(self, cube: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Hand on ``cube`` (B, y, x, C), map ``mask`` (B, y, x, 1)."""
        flags = anomalous(mask.cpu().numpy(), self.normal_class_ids, self.anomaly_class_ids)
        return {"cube": cube, "mask": torch.from_numpy(flags).to(mask.device)}
