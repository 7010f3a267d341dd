"""Numbers and classes as colours, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.display import rainbow
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = ["ClassMapToRGB", "ScalarHSVColormapNode"]

#: The colours ``tab20`` of matplotlib, which need not be loaded for them.
_TAB20 = (
    "1f77b4 aec7e8 ff7f0e ffbb78 2ca02c 98df8a d62728 ff9896 9467bd c5b0d5 "
    "8c564b c49c94 e377c2 f7b6d2 7f7f7f c7c7c7 bcbd22 dbdb8d 17becf 9edae5"
)
_PICTURE = PortSpec(torch.float32, (-1, -1, -1, 3), "red, green, blue in [0, 1]")


class ScalarHSVColormapNode(Node):
    """Show numbers as hues: ``(x - value_min) / (value_max - value_min)``, clamped to [0, 1].

    0 is red, 1/3 green, 2/3 blue, 1 red again, at full saturation and value, as the indices
    (:class:`.NDVISelector`) are shown. NaN is NaN in all three channels.

    Parameters
    ----------
    value_min, value_max : float
        Ends of the hues, in units of the data.

    Examples
    --------
    >>> node = ScalarHSVColormapNode(0.0, 3.0)
    >>> node(data=torch.tensor([[[[1.0], [2.0]]]]))["rgb_image"]
    tensor([[[[0., 1., 0.],
              [0., 0., 1.]]]])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, 1), "numbers")}
    OUTPUT_SPECS = {"rgb_image": _PICTURE}

    def __init__(
        self, value_min: float = 0.0, value_max: float = 1.0, name: str | None = None
    ) -> None:
        super().__init__(name, value_min=value_min, value_max=value_max)
        if not value_max > value_min:
            raise PipelineError(f"value_max {value_max} must be above value_min {value_min}.")
        self.value_min, self.value_max = float(value_min), float(value_max)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """Red, green and blue."""
        return {"rgb_image": ChannelAxis(3)}

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Colour ``data`` (B, y, x, 1)."""
        need_shapes(self, data=data)
        shown = (data.double() - self.value_min) / (self.value_max - self.value_min)
        return {"rgb_image": rainbow(shown).to(torch.float32)}


class ClassMapToRGB(Node):
    """Show class numbers as colours of a palette, ``palette[max(class, 0) mod length]``.

    Pixels of the class ``background_value``, and those where a connected ``mask`` is 0, are black.
    Class numbers are int32, as all nodes here give them (in cuvis-ai the port takes int64, and its
    own clusterers cannot be connected).

    Parameters
    ----------
    palette : sequence of (int, int, int), optional
        Red, green and blue, 0 to 255; the 20 colours ``tab20`` of matplotlib by default.
    background_value : int
        The class that is black; -1, what is in no class, by default.

    Examples
    --------
    >>> node = ClassMapToRGB(palette=[(255, 0, 0), (0, 255, 0)])
    >>> classes = torch.tensor([[[-1, 1, 2]]], dtype=torch.int32)
    >>> node(class_map=classes)["label_rgb"]
    tensor([[[[0., 0., 0.],
              [0., 1., 0.],
              [1., 0., 0.]]]])
    """

    INPUT_SPECS = {
        "class_map": PortSpec(torch.int32, (-1, -1, -1), "class numbers"),
        "mask": PortSpec(torch.int32, (-1, -1, -1), "0 where black", optional=True),
    }
    OUTPUT_SPECS = {"label_rgb": _PICTURE}

    def __init__(
        self,
        palette: Sequence[Sequence[int]] | None = None,
        background_value: int = -1,
        name: str | None = None,
    ) -> None:
        colours = None if palette is None else [[int(part) for part in c] for c in palette]
        super().__init__(name, palette=colours, background_value=background_value)
        if colours is not None and not colours:
            raise PipelineError("palette must hold at least one colour.")
        for colour in colours or ():
            if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
                raise PipelineError(
                    f"colour {colour} of the palette must be red, green and blue, each 0 to 255."
                )
        self._colours = torch.tensor(colours or _tab20(), dtype=torch.float32) / 255.0
        self.background_value = int(background_value)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """Red, green and blue."""
        return {"label_rgb": ChannelAxis(3)}

    def forward(self, class_map: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Colour ``class_map`` (B, y, x)."""
        need_shapes(self, class_map=class_map, mask=mask)
        colours = self._colours.to(class_map.device)
        picture = colours[torch.clamp(class_map.long(), min=0) % len(colours)]
        black = class_map == self.background_value
        if mask is not None:
            black = black | (mask == 0)
        return {"label_rgb": torch.where(black[..., None], 0.0, picture)}


def _tab20() -> list[list[int]]:
    return [list(bytes.fromhex(colour)) for colour in _TAB20.split()]
