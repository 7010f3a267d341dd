"""Nodes that draw scores, and decisions against labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.metrics import Artifact, Context
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes
from hsi_batch.nodes.visualizers import PictureNode, artifact, caption, pixels

__all__ = ["AnomalyMask", "RGBAnomalyMask", "ScoreHeatmapVisualizer"]

_DECISIONS = PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged", optional=True)
_MASK = PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous", optional=True)
_SCORES = PortSpec(torch.float32, (-1, -1, -1, 1), "scores", optional=True)


class _AgreementNode(PictureNode):
    """Draws decisions against labels over a picture of the frame."""

    def _draw(
        self,
        name: str,
        shown: str,
        background: Callable[[int], NDArray[np.float64]],
        maps: dict[str, Tensor | None],
        frames: range,
        context: Context | None,
    ) -> dict[str, list[Artifact]]:
        from hsi_batch.nodes.pictures import agreement_picture

        drawn = []
        for i in frames:
            decisions, labels, scores = (
                None if values is None else pixels(values[i, ..., 0]) for values in maps.values()
            )
            title = caption(context, i)
            picture = agreement_picture(
                background(i), decisions, labels, scores, shown=shown, title=title
            )
            text = f"decisions against labels: {title}"
            drawn.append(artifact(f"{name}_img{i:02d}", picture, i, text, context))
        return {"artifacts": drawn}


class AnomalyMask(_AgreementNode):
    """Draw one channel of the frame with what was flagged and what is labelled, and the scores.

    Flagged and labelled pixels are green, flagged only red, labelled only yellow; without labels
    flagged ones are cyan. What is not connected is left out. Artifacts ``anomaly_mask_img00`` ...

    Parameters
    ----------
    channel : int
        The channel, counted from 0.
    up_to : int, optional
        Frames of a batch that are drawn; all by default.

    Examples
    --------
    >>> flags = torch.zeros(1, 8, 8, 1, dtype=torch.bool)
    >>> found = AnomalyMask(channel=0)(cube=torch.rand(1, 8, 8, 2), decisions=flags)["artifacts"]
    >>> found[0].name, found[0].value.shape[2]
    ('anomaly_mask_img00', 3)
    """

    INPUT_SPECS = {
        "decisions": _DECISIONS,
        "mask": _MASK,
        "cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "scores": _SCORES,
    }

    def __init__(self, channel: int, up_to: int | None = None, name: str | None = None) -> None:
        super().__init__(name, up_to, channel=channel, up_to=up_to)
        if channel < 0:
            raise PipelineError(f"channel {channel} must not be negative; channels count from 0.")
        self.channel = int(channel)

    def forward(
        self,
        cube: Tensor,
        decisions: Tensor | None = None,
        mask: Tensor | None = None,
        scores: Tensor | None = None,
        context: Context | None = None,
    ) -> dict[str, list[Artifact]]:
        """Draw the frames of ``cube`` (B, y, x, C)."""
        from hsi_batch.nodes.canvas import stretched

        need_shapes(self, cube=cube, decisions=decisions, mask=mask, scores=scores)
        if self.channel >= cube.shape[-1]:
            raise PipelineError(
                f"{self.name}: channel {self.channel} does not exist; the cube has"
                f" {cube.shape[-1]} channels, 0 to {cube.shape[-1] - 1}.",
                hint="Choose one of these.",
            )
        axis = self.axes.get("cube")
        shown = f"channel {self.channel}"
        if axis is not None and axis.wavelength is not None:
            shown += f", {axis.wavelength[self.channel]:g} nm"
        return self._draw(
            "anomaly_mask",
            shown,
            lambda i: stretched(pixels(cube[i, ..., self.channel])),
            {"decisions": decisions, "mask": mask, "scores": scores},
            self.frames(cube),
            context,
        )


class RGBAnomalyMask(_AgreementNode):
    """Draw a picture of the frame with what was flagged and what is labelled, and the scores.

    As :class:`.AnomalyMask`, on red, green and blue: used as they are if they lie in 0..1, else
    stretched together. Artifacts ``rgb_anomaly_mask_img00`` ...

    Parameters
    ----------
    up_to : int, optional
        Frames of a batch that are drawn; all by default.

    Examples
    --------
    >>> found = RGBAnomalyMask()(rgb_image=torch.rand(1, 8, 8, 3))["artifacts"]
    >>> found[0].name, found[0].value.shape[2]
    ('rgb_anomaly_mask_img00', 3)
    """

    INPUT_SPECS = {
        "decisions": _DECISIONS,
        "mask": _MASK,
        "rgb_image": PortSpec(torch.float32, (-1, -1, -1, 3), "picture"),
        "scores": _SCORES,
    }

    def __init__(self, up_to: int | None = None, name: str | None = None) -> None:
        super().__init__(name, up_to, up_to=up_to)

    def forward(
        self,
        rgb_image: Tensor,
        decisions: Tensor | None = None,
        mask: Tensor | None = None,
        scores: Tensor | None = None,
        context: Context | None = None,
    ) -> dict[str, list[Artifact]]:
        """Draw the frames of ``rgb_image`` (B, y, x, 3)."""
        from hsi_batch.nodes.canvas import as_colours

        need_shapes(self, rgb_image=rgb_image, decisions=decisions, mask=mask, scores=scores)
        return self._draw(
            "rgb_anomaly_mask",
            "frame",
            lambda i: as_colours(pixels(rgb_image[i])),
            {"decisions": decisions, "mask": mask, "scores": scores},
            self.frames(rgb_image),
            context,
        )


class ScoreHeatmapVisualizer(PictureNode):
    """Draw scores in colours, with their scale; what is not finite is grey.

    The colours end at the 99.8th percentile of the frame, so that one pixel does not turn the rest
    dark; the arrow on the scale says so. Artifacts ``score_heatmap_img00`` ...

    Parameters
    ----------
    normalize_scores : bool
        Bring the scores of each frame to 0..1 by their range, which the scale then tells.
    cmap : str
        Name of a colour map of matplotlib.
    up_to : int, optional
        Frames of a batch that are drawn; all if None.

    Examples
    --------
    >>> found = ScoreHeatmapVisualizer()(scores=torch.rand(1, 8, 8, 1))["artifacts"]
    >>> found[0].name, found[0].value.shape[2]
    ('score_heatmap_img00', 3)
    """

    INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "scores")}

    def __init__(
        self,
        normalize_scores: bool = True,
        cmap: str = "inferno",
        up_to: int | None = 5,
        name: str | None = None,
    ) -> None:
        super().__init__(name, up_to, normalize_scores=normalize_scores, cmap=cmap, up_to=up_to)
        from hsi_batch.nodes.canvas import colour_map

        self.normalize_scores = bool(normalize_scores)
        self.cmap = colour_map(cmap)

    def forward(self, scores: Tensor, context: Context | None = None) -> dict[str, list[Artifact]]:
        """Draw ``scores`` (B, y, x, 1)."""
        from hsi_batch.nodes.pictures import score_map_picture

        need_shapes(self, scores=scores)
        drawn = []
        for i in self.frames(scores):
            title = caption(context, i)
            picture = score_map_picture(
                pixels(scores[i, ..., 0]),
                normalize=self.normalize_scores,
                cmap=self.cmap,
                title=title,
            )
            text = f"scores: {title}"
            drawn.append(artifact(f"score_heatmap_img{i:02d}", picture, i, text, context))
        return {"artifacts": drawn}
