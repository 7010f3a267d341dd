"""Nodes that draw frames as they are: false colours, masks and scores, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.metrics import Artifact, Context
from hsi_batch.nodes.overlays import need_alpha
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes
from hsi_batch.nodes.visualizers import ImageArtifactVizBase, artifact, caption, pixels

__all__ = ["ChannelSelectorFalseRGBViz", "PipelineComparisonVisualizer"]

_PICTURE = (-1, -1, -1, 3)
_MAP = (-1, -1, -1, 1)
#: Channels that cuvis-ai shows as red, green and blue.
_CHANNELS = (0, 20, 40)


class ChannelSelectorFalseRGBViz(ImageArtifactVizBase):
    """Draw the picture of a channel selector, and again with a mask laid over it.

    The picture is shown as it is if it lies in 0..1, else stretched between its 1st and 99th
    percentile, all channels together; a pixel of the frame is one of the picture, up to 1024 lines
    and columns. Over the mask it is ``(1 - alpha) rgb + alpha (1, 0, 0)``. Artifacts
    ``false_rgb_sample_0`` ... and, of frames with a mask above 0, ``mask_overlay_sample_0`` ...;
    ``mesu_7`` instead of ``sample_0`` where measurements are numbered.

    Parameters
    ----------
    mask_overlay_alpha : float
        Share of red over the mask, 0 to 1.
    max_samples : int
        Frames of a batch that are drawn.
    log_every_n_batches : int
        Draw in the batches whose number is a multiple of this.

    Examples
    --------
    >>> node = ChannelSelectorFalseRGBViz()
    >>> (drawn,) = node(rgb_output=torch.full((1, 2, 2, 3), 0.2))["artifacts"]
    >>> drawn.name, drawn.value[0, 0].tolist()
    ('false_rgb_sample_0', [51, 51, 51])
    """

    INPUT_SPECS = {
        "rgb_output": PortSpec(torch.float32, _PICTURE, "red, green, blue"),
        "mask": PortSpec(torch.int32, (-1, -1, -1), "above 0 where it is laid", optional=True),
        "mesu_index": PortSpec(torch.int64, (-1,), "numbers of the measurements", optional=True),
    }

    def __init__(
        self,
        mask_overlay_alpha: float = 0.4,
        max_samples: int = 4,
        log_every_n_batches: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(
            max_samples, log_every_n_batches, name, mask_overlay_alpha=mask_overlay_alpha
        )
        self.mask_overlay_alpha = need_alpha("mask_overlay_alpha", mask_overlay_alpha)

    def forward(
        self,
        rgb_output: Tensor,
        mask: Tensor | None = None,
        mesu_index: Tensor | None = None,
        context: Context | None = None,
    ) -> dict[str, list[Artifact]]:
        """Draw the frames of ``rgb_output`` (B, y, x, 3)."""
        from hsi_batch.nodes.rasters import colour_raster, overlay_raster

        need_shapes(self, rgb_output=rgb_output, mask=mask, mesu_index=mesu_index)
        if mesu_index is not None and len(mesu_index) != len(rgb_output):
            raise PipelineError(
                f"{self.name}.mesu_index has {len(mesu_index)} numbers for {len(rgb_output)}"
                " frames; one per frame is needed."
            )
        if not self.is_due(context):
            return {"artifacts": []}
        drawn = []
        for i in self.frames(rgb_output):
            label = f"sample_{i}" if mesu_index is None else f"mesu_{int(mesu_index[i])}"
            image, title = pixels(rgb_output[i]), caption(context, i)
            text = f"false colours: {title}"
            drawn.append(artifact(f"false_rgb_{label}", colour_raster(image), i, text, context))
            marked = None if mask is None else pixels(mask[i]) > 0
            if marked is not None and marked.any():
                picture = overlay_raster(image, marked, self.mask_overlay_alpha)
                text = f"false colours and mask: {title}"
                drawn.append(artifact(f"mask_overlay_{label}", picture, i, text, context))
        return {"artifacts": drawn}


class PipelineComparisonVisualizer(ImageArtifactVizBase):
    """Draw what goes into a mixer, what comes out, the labels, and the scores.

    Four artifacts per frame, ``i`` its place in the batch, a pixel of the frame one of the picture,
    up to 1024 lines and columns:

    * ``hsi_input_sample_i``: three channels of the cube, stretched together between their 1st and
      99th percentile;
    * ``mixer_output_adaclip_input_sample_i``: the mixer's picture, as it is if it lies in 0..1,
      else stretched likewise;
    * ``ground_truth_mask_sample_i``: white where labelled;
    * ``anomaly_scores_heatmap_sample_i``: scores in the colours ``inferno`` of matplotlib, from the
      smallest to the 99.8th percentile; what is not finite is grey.

    Parameters
    ----------
    hsi_channels : sequence of 3 int, optional
        Channels shown as red, green and blue. By default 0, 20 and 40, or the first, the middle and
        the last of fewer than 41 channels; so, too, if 0, 20 and 40 are given, which cuvis-ai
        writes for the default.
    max_samples : int
        Frames of a batch that are drawn.
    log_every_n_batches : int
        Draw in the batches whose number is a multiple of this.

    Examples
    --------
    >>> flat, rgb = torch.zeros(1, 2, 2, 1), torch.full((1, 2, 2, 3), 0.2)
    >>> found = PipelineComparisonVisualizer()(
    ...     hsi_cube=torch.rand(1, 2, 2, 5), mixer_output=rgb,
    ...     ground_truth_mask=flat > 0, anomaly_scores=flat)["artifacts"]
    >>> [picture.value[0, 0].tolist() for picture in found[1:]]
    [[51, 51, 51], [0, 0, 0], [0, 0, 4]]
    """

    INPUT_SPECS = {
        "hsi_cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "mixer_output": PortSpec(torch.float32, _PICTURE, "red, green, blue"),
        "ground_truth_mask": PortSpec(torch.bool, _MAP, "True where anomalous"),
        "anomaly_scores": PortSpec(torch.float32, _MAP, "scores"),
    }

    def __init__(
        self,
        hsi_channels: Sequence[int] | None = None,
        max_samples: int = 4,
        log_every_n_batches: int = 1,
        name: str | None = None,
    ) -> None:
        channels = None if hsi_channels is None else [int(c) for c in hsi_channels]
        super().__init__(max_samples, log_every_n_batches, name, hsi_channels=channels)
        if channels is not None and (len(channels) != 3 or min(channels) < 0):
            raise PipelineError(
                f"hsi_channels {channels} must be three channels, counted from 0: red, green, blue."
            )
        self.hsi_channels = channels

    def _channels(self, count: int) -> list[int]:
        if self.hsi_channels in (None, list(_CHANNELS)):
            return list(_CHANNELS if count > _CHANNELS[-1] else (0, (count - 1) // 2, count - 1))
        assert self.hsi_channels is not None
        if max(self.hsi_channels) >= count:
            raise PipelineError(
                f"{self.name}: channel {max(self.hsi_channels)} does not exist; the cube has"
                f" {count} channels, 0 to {count - 1}.",
                hint="Choose one of these.",
            )
        return self.hsi_channels

    def forward(
        self,
        hsi_cube: Tensor,
        mixer_output: Tensor,
        ground_truth_mask: Tensor,
        anomaly_scores: Tensor,
        context: Context | None = None,
    ) -> dict[str, list[Artifact]]:
        """Draw the frames of ``hsi_cube`` (B, y, x, C)."""
        from hsi_batch.nodes.canvas import stretched
        from hsi_batch.nodes.rasters import colour_raster, mask_raster, score_raster

        need_shapes(
            self,
            hsi_cube=hsi_cube,
            mixer_output=mixer_output,
            ground_truth_mask=ground_truth_mask,
            anomaly_scores=anomaly_scores,
        )
        channels = self._channels(hsi_cube.shape[-1])
        if not self.is_due(context):
            return {"artifacts": []}
        drawn = []
        for i in self.frames(hsi_cube):
            shown = stretched(pixels(hsi_cube[i][..., channels]))
            labels = pixels(ground_truth_mask[i, ..., 0])
            pictures = {
                "hsi_input": (colour_raster(shown), "channels of the cube"),
                "mixer_output_adaclip_input": (
                    colour_raster(pixels(mixer_output[i])),
                    "picture of the mixer",
                ),
                "ground_truth_mask": (mask_raster(labels), "labelled pixels"),
                "anomaly_scores_heatmap": (
                    score_raster(np.asarray(pixels(anomaly_scores[i, ..., 0]))),
                    "scores",
                ),
            }
            title = caption(context, i)
            for name, (picture, text) in pictures.items():
                label = f"{name}_sample_{i}"
                drawn.append(artifact(label, picture, i, f"{text}: {title}", context))
        return {"artifacts": drawn}
