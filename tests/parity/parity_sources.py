"""Nodes of cuvis-ai that make what no node of both libraries gives: references, labels, levels.

Pipelines name them under ``plugins``, so both sides run the very same code.
"""

from __future__ import annotations

from typing import Any

import torch
from cuvis_ai_core.node import Node
from cuvis_ai_schemas.pipeline import PortSpec

_CUBE = {"cube": PortSpec(dtype=torch.float32, shape=(-1, -1, -1, -1))}
_SCORES = {"scores": PortSpec(dtype=torch.float32, shape=(-1, -1, -1, 1))}


class Spectra(Node):
    """Spectra made from four pixels of a frame, in the shapes that spectra have."""

    INPUT_SPECS = _CUBE
    OUTPUT_SPECS = {
        "signatures": PortSpec(dtype=torch.float32, shape=(-1, -1, -1, -1)),
        "endmembers": PortSpec(dtype=torch.float32, shape=(-1, -1)),
        "table": PortSpec(dtype=torch.float32, shape=(1, -1, -1)),
    }

    def forward(self, cube: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Of the first frame."""
        y, x = cube.shape[1] // 2, cube.shape[2] // 2
        quarters = (cube[0, :y, :x], cube[0, :y, x:], cube[0, y:, :x], cube[0, y:, x:])
        flat = [quarter.reshape(-1, cube.shape[-1]) for quarter in quarters]
        bright = torch.stack([f[f[:, i].argmax()] for i, f in enumerate(flat)])
        # Like no pixel: the angle to itself is a matter of rounding.
        spectra = bright * (
            1.0 + 0.5 * torch.sin(torch.arange(bright.numel()).reshape(bright.shape))
        )
        return {
            "signatures": spectra[:, None, None, :],
            "endmembers": spectra,
            "table": spectra[None],
        }


class Labels(Node):
    """Squares of 5 pixels in three classes, of which one is the background."""

    INPUT_SPECS = _CUBE
    OUTPUT_SPECS = {
        "labels": PortSpec(dtype=torch.int32, shape=(-1, -1, -1)),
        "numbers": PortSpec(dtype=torch.int64, shape=(1, -1)),
        "boxes": PortSpec(dtype=torch.float32, shape=(-1, -1, 4)),
    }

    def forward(self, cube: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """With a gap of a pixel between them, numbers of classes, and boxes, some of no use."""
        y, x = torch.arange(cube.shape[1]), torch.arange(cube.shape[2])
        inside = ((y % 6) < 5)[:, None] & ((x % 6) < 5)[None, :]
        classes = ((y // 6)[:, None] + (x // 6)[None, :]) % 3
        labels = torch.where(inside, classes, 0).to(torch.int32)
        boxes = [[2.2, 1.6, 9.4, 8.0], [0.0, 0.0, 2.0, 1.0], [-3.0, 15.0, 7.0, 99.0], [40.0] * 4]
        return {
            "labels": labels.expand(len(cube), -1, -1).contiguous(),
            "numbers": torch.tensor([[2, 7, 1]]),
            "boxes": torch.tensor([boxes]).expand(len(cube), -1, -1).contiguous(),
        }


class Picture(Node):
    """Three channels scaled to [0, 1], and as logits."""

    INPUT_SPECS = _CUBE
    OUTPUT_SPECS = {
        "rgb": PortSpec(dtype=torch.float32, shape=(-1, -1, -1, 3)),
        "logits": PortSpec(dtype=torch.float32, shape=(-1, -1, -1, -1)),
    }

    def forward(self, cube: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Of the frame's own range."""
        picked = cube[..., [7, 4, 1]]
        low, high = picked.amin(), picked.amax()
        rgb = (picked - low) / (high - low)
        return {"rgb": rgb, "logits": 6.0 * rgb - 3.0}


class Level(Node):
    """A level of scores as a port takes it, and scores without their last axis."""

    INPUT_SPECS = _SCORES
    OUTPUT_SPECS = {
        "level": PortSpec(dtype=torch.float32, shape=(1,)),
        "flat": PortSpec(dtype=torch.float32, shape=(-1, -1, -1)),
    }

    def forward(self, scores: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Between the two middle ones of the largest, so that rounding decides nothing."""
        ranked = scores.flatten().sort().values
        at = int(0.9 * len(ranked))
        gaps = ranked[at : at + 40].diff()
        at += int(gaps.argmax())
        return {"level": (ranked[at] + ranked[at + 1]).reshape(1) / 2, "flat": scores[..., 0]}
