"""Masks over pictures, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = ["MaskOverlayNode", "need_alpha"]

_PICTURE = (-1, -1, -1, 3)


def need_alpha(argument: str, alpha: float) -> float:
    """Check the share of a colour that is laid over a picture."""
    if not 0.0 <= alpha <= 1.0:
        raise PipelineError(f"{argument} {alpha} is not between 0 and 1.")
    return float(alpha)


class MaskOverlayNode(Node):
    """Lay a colour over the pixels of a mask: ``(1 - alpha) rgb + alpha colour``.

    Pixels with a mask above 0 are mixed, the others handed on; all are clamped to [0, 1], and NaN
    stays. (cuvis-ai clamps a batch only if any of its pixels is in the mask.)

    Parameters
    ----------
    alpha : float
        Share of the colour, 0 to 1.
    overlay_color : sequence of 3 float
        Red, green and blue, each 0 to 1; red by default.

    Examples
    --------
    >>> node = MaskOverlayNode(alpha=0.5)
    >>> picture = torch.full((1, 1, 2, 3), 0.5)
    >>> node(rgb_image=picture, mask=torch.tensor([[[0, 7]]]))["rgb_with_overlay"]
    tensor([[[[0.5000, 0.5000, 0.5000],
              [0.7500, 0.2500, 0.2500]]]])
    """

    INPUT_SPECS = {
        "rgb_image": PortSpec(torch.float32, _PICTURE, "red, green, blue in [0, 1]"),
        "mask": PortSpec(torch.int32, (-1, -1, -1), "above 0 where it is laid", optional=True),
    }
    OUTPUT_SPECS = {
        "rgb_with_overlay": PortSpec(torch.float32, _PICTURE, "red, green, blue in [0, 1]")
    }

    def __init__(
        self,
        alpha: float = 0.4,
        overlay_color: Sequence[float] = (1.0, 0.0, 0.0),
        name: str | None = None,
    ) -> None:
        colour = tuple(float(part) for part in overlay_color)
        super().__init__(name, alpha=alpha, overlay_color=list(colour))
        if len(colour) != 3 or not all(0.0 <= part <= 1.0 for part in colour):
            raise PipelineError(
                f"overlay_color {list(overlay_color)} must be red, green and blue, each between 0"
                " and 1."
            )
        self.alpha = need_alpha("alpha", alpha)
        self.overlay_color = colour

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """Red, green and blue."""
        return {"rgb_with_overlay": ChannelAxis(3)}

    def forward(self, rgb_image: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Mix into ``rgb_image`` (B, y, x, 3) where ``mask`` (B, y, x) is above 0."""
        need_shapes(self, rgb_image=rgb_image, mask=mask)
        picture = rgb_image
        if mask is not None:
            colour = torch.tensor(self.overlay_color).to(rgb_image)
            mixed = (1.0 - self.alpha) * rgb_image + self.alpha * colour
            picture = torch.where(mask[..., None] > 0, mixed, rgb_image)
        return {"rgb_with_overlay": torch.clamp(picture, 0.0, 1.0)}
