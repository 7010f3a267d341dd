"""Where data enter a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.view import View
from hsi_batch.statistics.affine import Affine

__all__ = ["AnomalyDataNode", "CU3SDataNode", "LentilsAnomalyDataNode", "anomalous"]

_CUBE = PortSpec(torch.Tensor, (-1, -1, -1, -1), "cube (batch, y, x, channel) as recorded")
_CUBE_OUT = PortSpec(torch.float32, (-1, -1, -1, -1), "cube (batch, y, x, channel)")
_WAVELENGTHS = PortSpec(torch.int32, (-1, -1), "nm per channel", optional=True)
_WAVELENGTHS_OUT = PortSpec(np.int32, (-1,), "nm per channel", optional=True)
_INDEX = PortSpec(torch.int64, (-1,), "frame index", optional=True)


class CU3SDataNode(Node):
    """Hand recorded cubes to the graph as float32: ``stored[..., channels] * scale + offset``.

    Ports: ``cube`` (B, y, x, C) in any dtype, optional ``mask`` (B, y, x) int32 of class numbers,
    ``wavelengths`` (B, C) int32 nm and ``mesu_index`` (B,); each is handed on, the wavelengths as
    one numpy int32 vector ``(C,)``.

    Parameters
    ----------
    channels : str, optional
        Channels that are handed on, such as ``0-33,40-94``; all by default. Written by the fit,
        from the bands that it was told to use.
    scale, offset : float
        From stored to physical values; written by the fit, from what the recordings state.

    Examples
    --------
    >>> out = CU3SDataNode()(cube=torch.ones(1, 2, 2, 3, dtype=torch.uint8))
    >>> out["cube"].dtype
    torch.float32
    """

    INPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.int32, (-1, -1, -1), "class numbers", optional=True),
        "wavelengths": _WAVELENGTHS,
        "mesu_index": _INDEX,
    }
    OUTPUT_SPECS = {
        "cube": _CUBE_OUT,
        "mask": PortSpec(torch.int32, (-1, -1, -1), "class numbers", optional=True),
        "wavelengths": _WAVELENGTHS_OUT,
        "mesu_index": _INDEX,
    }
    AFFINE = ("cube", "cube")
    is_source = True
    #: Classes that are background, and those that are anomalies (every other one if None).
    normal_class_ids: tuple[int, ...] = (0,)
    anomaly_class_ids: tuple[int, ...] | None = None

    def __init__(
        self,
        name: str | None = None,
        channels: str | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        super().__init__(name)
        self.see(View(channels, float(scale), float(offset)))

    def see(self, view: View) -> None:
        """Hand on other channels, or in other units, from now on."""
        self.view = view
        for key in ("channels", "scale", "offset"):
            self.hparams.pop(key, None)
        self.hparams |= view.hparams

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """The axis of the archive, as far as its channels are handed on."""
        return {"cube": self.view.axis(axes["cube"], self.name)}

    def classes(self, labels: NDArray[np.integer]) -> NDArray[np.int8]:
        """1 where class numbers count as anomalous, 0 where as normal, -1 where unlabelled.

        Examples
        --------
        >>> CU3SDataNode().classes(np.array([-1, 0, 3])).tolist()
        [-1, 0, 1]
        """
        flags = anomalous(labels, self.normal_class_ids, self.anomaly_class_ids)
        return np.where(labels < 0, -1, flags).astype(np.int8)

    def affine(self) -> Affine:
        """From stored values to what is handed on."""
        return self.view.affine(self.axes["cube"].size)

    def forward(
        self,
        cube: Tensor,
        mask: Tensor | None = None,
        wavelengths: Any = None,
        mesu_index: Tensor | None = None,
    ) -> dict[str, Any]:
        """Cast the cube; hand on what else is there."""
        view = self.view
        if view.indices is not None:
            cube = cube[..., torch.from_numpy(view.indices)]
        if view.scale != 1.0 or view.offset:
            cube = cube.to(torch.float64) * view.scale + view.offset
        nm = None if wavelengths is None else _one_axis(wavelengths)
        given = {
            "cube": cube.to(torch.float32),
            "mask": None if mask is None else mask.to(torch.int32),
            "wavelengths": nm if nm is None or view.indices is None else nm[view.indices],
            "mesu_index": mesu_index,
        }
        return {port: value for port, value in given.items() if value is not None}


class AnomalyDataNode(CU3SDataNode):
    """Hand cubes to the graph, and class numbers as a mask of what counts as anomalous.

    ``mask`` (B, y, x) int32 becomes bool (B, y, x, 1): False for ``normal_class_ids``, True for
    every other class, or only for ``anomaly_class_ids`` if they are given. Unlabelled pixels (-1)
    are False here and are left out of metrics by the score stage.

    Parameters
    ----------
    normal_class_ids : sequence of int
        Classes that are background.
    anomaly_class_ids : sequence of int, optional
        Classes that are anomalies; those in neither list then count as normal.
    channels, scale, offset
        As for :class:`CU3SDataNode`.

    Examples
    --------
    >>> node = AnomalyDataNode(normal_class_ids=[0, 1])
    >>> classes = torch.tensor([[[0, 1, 2, -1]]], dtype=torch.int32)
    >>> node(cube=torch.zeros(1, 1, 4, 3), mask=classes)["mask"].ravel()
    tensor([False, False,  True, False])
    """

    INPUT_SPECS = {
        **CU3SDataNode.INPUT_SPECS,
        "class_mask": PortSpec(torch.Tensor, (-1, -1, -1), "class numbers", optional=True),
    }
    OUTPUT_SPECS = {
        **CU3SDataNode.OUTPUT_SPECS,
        "mask": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous", optional=True),
        "class_mask": PortSpec(torch.int32, (-1, -1, -1, 1), "class numbers", optional=True),
    }

    def __init__(
        self,
        normal_class_ids: Sequence[int] = (0,),
        anomaly_class_ids: Sequence[int] | None = None,
        name: str | None = None,
        channels: str | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        normal = [int(i) for i in normal_class_ids]
        anomaly = None if anomaly_class_ids is None else [int(i) for i in anomaly_class_ids]
        super().__init__(name, channels, scale, offset)
        self.hparams |= {"normal_class_ids": normal, "anomaly_class_ids": anomaly}
        both = sorted(set(normal) & set(anomaly or ()))
        if both:
            raise PipelineError(
                f"classes {both} are in normal_class_ids and in anomaly_class_ids;"
                " a class is one or the other.",
                hint="Remove them from one of the two.",
            )
        self.normal_class_ids = tuple(normal)
        self.anomaly_class_ids = None if anomaly is None else tuple(anomaly)

    def forward(
        self,
        cube: Tensor,
        mask: Tensor | None = None,
        wavelengths: Any = None,
        mesu_index: Tensor | None = None,
        class_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Cast the cube and map classes to True (anomalous) and False."""
        given = super().forward(cube, mask, wavelengths, mesu_index)
        if mask is not None:
            flags = anomalous(mask.cpu().numpy(), self.normal_class_ids, self.anomaly_class_ids)
            given["mask"] = torch.from_numpy(flags).to(mask.device)[..., None]
        if class_mask is not None:
            given["class_mask"] = class_mask.to(torch.int32)[..., None]
        return given


class LentilsAnomalyDataNode(AnomalyDataNode):
    """The name that older pipelines use for :class:`AnomalyDataNode`.

    Examples
    --------
    >>> LentilsAnomalyDataNode([0, 1]).classes(np.array([0, 1, 2])).tolist()
    [0, 0, 1]
    """


def anomalous(
    classes: Any, normal: Sequence[int] = (0,), anomaly: Sequence[int] | None = None
) -> Any:
    """Boolean mask of the pixels whose class counts as anomalous; -1 (unlabelled) never does.

    Examples
    --------
    >>> anomalous(np.array([-1, 0, 1, 2]), normal=[0, 1])
    array([False, False, False,  True])
    """
    if anomaly is not None:
        return np.isin(classes, list(anomaly))
    return (classes >= 0) & ~np.isin(classes, list(normal))


def _one_axis(wavelengths: Any) -> Any:
    values = wavelengths.cpu().numpy() if isinstance(wavelengths, Tensor) else wavelengths
    values = np.asarray(values)
    return np.rint(values[0] if values.ndim == 2 else values).astype(np.int32)
