"""Nodes that draw what goes through a graph: false colours, components, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.metrics import Artifact, ArtifactType, Context
from hsi_batch.nodes.node import Node, Stage
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = [
    "ChannelWeightsViz",
    "CubeRGBVisualizer",
    "ImageArtifactVizBase",
    "PCAVisualization",
    "PictureNode",
    "caption",
    "wavelengths_of",
]

_WAVELENGTHS = PortSpec(np.int32, (-1,), "nm per channel", optional=True)


class PictureNode(Node):
    """Base of the nodes that draw: one output ``artifacts``, a list of :class:`.Artifact`.

    Values are (y, x, 3) uint8, drawn without any window or global state; large frames are reduced
    to what a screen shows. Pictures are for eyes: brightness is stretched between the 1st and the
    99th percentile of a frame.
    """

    OUTPUT_SPECS = {"artifacts": PortSpec(list, (), "list of Artifact")}
    stages = frozenset({Stage.VAL, Stage.TEST})

    def __init__(self, name: str | None, limit: int | None, **hparams: Any) -> None:
        super().__init__(name, **hparams)
        if limit is not None and limit < 0:
            raise PipelineError(f"up_to {limit} must not be negative.")
        #: Frames of a batch that are drawn; all if None.
        self.up_to = limit

    def frames(self, batch: Tensor) -> range:
        """Places in the batch of the frames to draw."""
        count = len(batch)
        return range(count if self.up_to is None else min(count, self.up_to))


def artifact(
    name: str, value: NDArray[np.uint8], index: int, desc: str, context: Context | None
) -> Artifact:
    """A picture of a place in a run."""
    at = context or Context()
    return Artifact(name, value, index, desc, ArtifactType.IMAGE, at.stage, at.epoch, at.batch_idx)


def caption(context: Context | None, index: int | None = None) -> str:
    """Where a picture comes from, in words."""
    at = context or Context()
    frame = "" if index is None else f", frame {index}"
    return f"{at.stage}, epoch {at.epoch}, batch {at.batch_idx}{frame}"


def pixels(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array that nothing else holds on to."""
    return np.asarray(tensor.detach().cpu().numpy())


def wavelengths_of(node: Node, given: Any, channels: int) -> NDArray[Any] | None:
    """Wavelengths in nm for the channels of an input, or None if there are none.

    Raises
    ------
    hsi_batch.errors.PipelineError
        Their number is not that of the channels.
    """
    if given is None:
        return None
    values = np.asarray(given)
    if values.shape != (channels,):
        raise PipelineError(
            f"{node.name}: {channels} channels came with wavelengths of shape {values.shape};"
            " one per channel is needed.",
            hint="A node before it drops or mixes channels; leave `wavelengths` unconnected.",
        )
    return values


class CubeRGBVisualizer(PictureNode):
    """Draw the three channels of largest weight as red, green and blue, beside all weights.

    The channel of largest weight is red, the next green, the third blue (equal weights in the
    order of the channels); all three share one stretch. Artifacts ``viz_rgb_sample_0`` ...

    Parameters
    ----------
    up_to : int, optional
        Frames of a batch that are drawn; all if None.

    Examples
    --------
    >>> found = CubeRGBVisualizer()(cube=torch.rand(1, 8, 8, 4), weights=torch.rand(4))["artifacts"]
    >>> found[0].name, found[0].value.shape[2]
    ('viz_rgb_sample_0', 3)
    """

    INPUT_SPECS = {
        "cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "weights": PortSpec(torch.float32, (-1,), "weight per channel"),
        "wavelengths": _WAVELENGTHS,
    }

    def __init__(self, up_to: int | None = 5, name: str | None = None) -> None:
        super().__init__(name, up_to, up_to=up_to)

    def forward(
        self,
        cube: Tensor,
        weights: Tensor,
        wavelengths: Any = None,
        context: Context | None = None,
    ) -> dict[str, list[Artifact]]:
        """Draw ``cube`` (B, y, x, C) by ``weights`` (C,)."""
        from hsi_batch.nodes.pictures import false_colour_picture

        need_shapes(self, cube=cube, weights=weights)
        if cube.shape[-1] != len(weights):
            raise PipelineError(
                f"{self.name}.cube has {cube.shape[-1]} channels, {self.name}.weights has"
                f" {len(weights)}; they must be the same."
            )
        axis = wavelengths_of(self, wavelengths, len(weights))
        values = pixels(weights)
        drawn = []
        for i in self.frames(cube):
            title = caption(context, i)
            picture = false_colour_picture(pixels(cube[i]), values, axis, title=title)
            text = f"channels of largest weight as red, green and blue: {title}"
            drawn.append(artifact(f"viz_rgb_sample_{i}", picture, i, text, context))
        return {"artifacts": drawn}


class PCAVisualization(PictureNode):
    """Draw the leading components: pixels as points of the first two, and as a picture.

    Points have the colour of their place in the frame, which a second panel shows. The picture has
    the components 1, 2 and, if there is one, 3 as red, green and blue. It runs in val only.
    Artifacts ``pca_projection_img00`` ...

    Parameters
    ----------
    up_to : int, optional
        Frames of a batch that are drawn; all by default.

    Examples
    --------
    >>> found = PCAVisualization()(data=torch.rand(1, 8, 8, 3))["artifacts"]
    >>> found[0].name, found[0].value.shape[2]
    ('pca_projection_img00', 3)
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "components")}
    stages = frozenset({Stage.VAL})

    def __init__(self, up_to: int | None = None, name: str | None = None) -> None:
        super().__init__(name, up_to, up_to=up_to)

    def forward(self, data: Tensor, context: Context | None = None) -> dict[str, list[Artifact]]:
        """Draw ``data`` (B, y, x, C), C at least 2."""
        from hsi_batch.nodes.pictures import component_picture

        need_shapes(self, data=data)
        if data.shape[-1] < 2:
            raise PipelineError(
                f"{self.name}.data has {data.shape[-1]} component; at least 2 are needed."
            )
        drawn = []
        for i in self.frames(data):
            title = caption(context, i)
            picture = component_picture(pixels(data[i]), title=title)
            text = f"principal components: {title}"
            drawn.append(artifact(f"pca_projection_img{i:02d}", picture, i, text, context))
        return {"artifacts": drawn}


class ImageArtifactVizBase(PictureNode):
    """Base of the nodes that draw in train, val and test, and not in every batch.

    Parameters
    ----------
    max_samples : int
        Frames of a batch that are drawn.
    log_every_n_batches : int
        Draw in the batches whose number is a multiple of this.

    Examples
    --------
    >>> from hsi_batch.nodes.metrics import Context
    >>> node = ImageArtifactVizBase(log_every_n_batches=2)
    >>> [node.is_due(Context(batch_idx=batch)) for batch in range(3)]
    [True, False, True]
    """

    stages = frozenset({Stage.TRAIN, Stage.VAL, Stage.TEST})

    def __init__(
        self,
        max_samples: int = 4,
        log_every_n_batches: int = 1,
        name: str | None = None,
        **hparams: Any,
    ) -> None:
        super().__init__(
            name,
            max_samples,
            max_samples=max_samples,
            log_every_n_batches=log_every_n_batches,
            **hparams,
        )
        if log_every_n_batches < 1:
            raise PipelineError(f"log_every_n_batches {log_every_n_batches} must be 1 or more.")
        self.log_every_n_batches = int(log_every_n_batches)

    def is_due(self, context: Context | None) -> bool:
        """Whether this batch is drawn."""
        return (context or Context()).batch_idx % self.log_every_n_batches == 0


class ChannelWeightsViz(ImageArtifactVizBase):
    """Draw a matrix of weights, a row per output and a column per channel.

    Weights of both signs are on a scale that is white at 0, others from 0 on. One picture per
    batch, artifact ``mixing_matrix``; three rows are named red, green and blue.

    Parameters
    ----------
    max_samples : int
        Kept for pipelines that name it; there is one matrix per batch.
    log_every_n_batches : int
        Draw in the batches whose number is a multiple of this.
    cell_height, cell_width : int
        Size of a cell in pixels; less where there are so many channels that it would not fit.

    Examples
    --------
    >>> found = ChannelWeightsViz()(weights=torch.rand(3, 8))["artifacts"]
    >>> found[0].name, found[0].value.shape[2]
    ('mixing_matrix', 3)
    """

    INPUT_SPECS = {
        "weights": PortSpec(torch.float32, (-1, -1), "weights, a row per output"),
        "wavelengths": _WAVELENGTHS,
    }

    def __init__(
        self,
        max_samples: int = 1,
        log_every_n_batches: int = 1,
        cell_height: int = 60,
        cell_width: int = 12,
        name: str | None = None,
    ) -> None:
        super().__init__(
            max_samples,
            log_every_n_batches,
            name,
            cell_height=cell_height,
            cell_width=cell_width,
        )
        for argument, size in (("cell_height", cell_height), ("cell_width", cell_width)):
            if size < 1:
                raise PipelineError(f"{argument} {size} must be 1 or more.")
        self.cell_height = int(cell_height)
        self.cell_width = int(cell_width)

    def forward(
        self, weights: Tensor, wavelengths: Any = None, context: Context | None = None
    ) -> dict[str, list[Artifact]]:
        """Draw ``weights``, (K, C) or (C,)."""
        from hsi_batch.nodes.pictures import weight_matrix_picture

        matrix = weights[None] if weights.ndim == 1 else weights
        need_shapes(self, weights=matrix)
        if not self.is_due(context):
            return {"artifacts": []}
        title = f"weights of the channels: {caption(context)}"
        picture = weight_matrix_picture(
            pixels(matrix),
            wavelengths_of(self, wavelengths, matrix.shape[1]),
            cell_height=self.cell_height,
            cell_width=self.cell_width,
            title=title,
        )
        return {"artifacts": [artifact("mixing_matrix", picture, 0, title, context)]}
