"""Losses of class maps and of pictures against masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.losses import VALID, LossNode
from hsi_batch.nodes.node import need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = ["CrossEntropyLoss", "DiceLoss", "ForegroundContrastLoss", "oklab"]

_LOGITS = PortSpec(torch.float32, (-1, -1, -1, -1), "logits, a channel per class")
_TARGETS = PortSpec(torch.int32, (-1, -1, -1), "class numbers")


class _ClassMapLoss(LossNode):
    """A loss of logits per class against class numbers."""

    INPUT_SPECS = {"logits": _LOGITS, "targets": _TARGETS, "valid": VALID}

    def _labelled(
        self, logits: Tensor, targets: Tensor, valid: Tensor | None, ignore_index: int | None
    ) -> tuple[Tensor, Tensor]:
        """Logits ``(n, K)`` and classes ``(n,)`` of the pixels that count."""
        if targets.ndim == 4 and targets.shape[-1] == 1:
            targets = targets[..., 0]
        need_shapes(self, logits=logits, targets=targets, valid=valid)
        keep = torch.ones_like(targets, dtype=torch.bool) if valid is None else valid[..., 0]
        if ignore_index is not None:
            keep = keep & (targets != ignore_index)
        return logits[keep], targets[keep].to(torch.int64)

    def _need_classes(self, targets: Tensor, classes: int) -> None:
        if not targets.numel():
            return
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise DataError(
                f"{self.name}.targets holds class {wrong}, but the logits have {classes} channels"
                f" (classes 0 to {classes - 1}).",
                hint=f"Set ignore_index to {wrong} if such pixels are to be left out.",
            )


class DiceLoss(_ClassMapLoss):
    """Soft Dice of the whole batch: ``weight (1 - mean_k (2 I_k + eps) / (P_k + T_k + eps))``.

    ``P_k`` is the sum of the probabilities of class ``k``, ``T_k`` the number of its pixels and
    ``I_k`` the sum of its probabilities over them (Milletari et al. 2016). Probabilities are the
    softmax over the channels; with one channel its sigmoid, and class 1 is the only one.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    ignore_index : int, optional
        Class number of pixels that are left out.
    include_background : bool
        Whether class 0 counts in the mean (of two channels or more).
    eps : float
        Added to both sides of the ratio.

    Examples
    --------
    >>> logits = torch.tensor([[[[9.0, -9.0], [-9.0, 9.0]]]])
    >>> targets = torch.tensor([[[0, 1]]], dtype=torch.int32)
    >>> DiceLoss()(logits=logits, targets=targets)["loss"].item() < 1e-3
    True
    """

    def __init__(
        self,
        weight: float = 1.0,
        ignore_index: int | None = None,
        include_background: bool = True,
        eps: float = 1e-6,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            weight=weight,
            ignore_index=ignore_index,
            include_background=include_background,
            eps=eps,
        )
        if not eps > 0:
            raise PipelineError(f"eps {eps} must be above 0.")
        self.weight = float(weight)
        self.ignore_index = ignore_index
        self.include_background = bool(include_background)
        self.eps = float(eps)

    def forward(
        self, logits: Tensor, targets: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of ``logits`` (B, y, x, K) against ``targets`` (B, y, x)."""
        rows, classes = self._labelled(logits, targets, valid, self.ignore_index)
        channels = rows.shape[1]
        if channels == 1:
            p = torch.sigmoid(rows)
            t = (classes == 1).to(p.dtype)[:, None]
            both, sizes = (p * t).sum(dim=0), t.sum(dim=0)
        else:
            self._need_classes(classes, channels)
            p = torch.softmax(rows, dim=1)
            hit = p.gather(1, classes[:, None])[:, 0]
            both = torch.zeros_like(p[:0].sum(dim=0)).index_add(0, classes, hit)
            sizes = torch.bincount(classes, minlength=channels).to(p.dtype)
        dice = (2.0 * both + self.eps) / (p.sum(dim=0) + sizes + self.eps)
        if channels > 1 and not self.include_background:
            dice = dice[1:]
        return {"loss": self.weight * (1.0 - dice.mean())}


class CrossEntropyLoss(_ClassMapLoss):
    """Cross-entropy of logits against classes: ``-weight sum_i v_i log p_i / sum_i v_i``.

    ``p_i`` is the softmax of the pixel's logits at its class, ``v_i`` the weight of that class.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    class_weights : sequence of float, optional
        Weight per class, against classes that are rare; 1 by default.
    ignore_index : int
        Class number of pixels that are left out.

    Examples
    --------
    >>> targets = torch.zeros(1, 1, 2, dtype=torch.int32)
    >>> CrossEntropyLoss()(logits=torch.zeros(1, 1, 2, 4), targets=targets)["loss"]  # log 4
    tensor(1.3863)
    """

    _class_weights: Tensor

    def __init__(
        self,
        weight: float = 1.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = -100,
        name: str | None = None,
    ) -> None:
        weights = None if class_weights is None else [float(w) for w in class_weights]
        super().__init__(name, weight=weight, class_weights=weights, ignore_index=ignore_index)
        self.weight = float(weight)
        self.ignore_index = int(ignore_index)
        self.weighted = weights is not None
        if weights is not None:
            if len(weights) < 2:
                raise PipelineError(f"class_weights {weights} must be one per class.")
            need_non_negative(class_weights=min(weights))
            self.register_buffer("_class_weights", torch.tensor(weights))

    def forward(
        self, logits: Tensor, targets: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of ``logits`` (B, y, x, K) against ``targets`` (B, y, x)."""
        rows, classes = self._labelled(logits, targets, valid, self.ignore_index)
        channels = rows.shape[1]
        if channels == 1:
            raise PipelineError(
                f"{self.name}.logits has one channel, whose softmax is always 1.",
                hint="Use AnomalyBCEWithLogits, or DiceLoss, for one logit per pixel.",
            )
        weights = self._class_weights.to(rows.dtype) if self.weighted else None
        if weights is not None and len(weights) != channels:
            raise PipelineError(
                f"{self.name} has {len(weights)} class_weights, but the logits have {channels}"
                " channels; give one per class."
            )
        self._need_classes(classes, channels)
        if not len(rows):
            return {"loss": rows.sum()}
        return {"loss": self.weight * cross_entropy(rows, classes, weight=weights)}


class ForegroundContrastLoss(LossNode):
    """Drive the mean colours of foreground and background apart, frame by frame.

    ``weight mean(-sqrt(|f - b|^2 + eps) + compactness v + anchor (m(f - a) + m(b - a)))`` over the
    frames that have both: ``f``, ``b`` and ``a`` are the mean colours of foreground, background and
    the frame, ``v`` the variance of the foreground and ``m`` the squared difference, both averaged
    over the three channels. Without such a frame the loss is 0.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    compactness_weight : float
        Factor of the variance of the foreground.
    anchor_weight : float
        Factor of the pull towards the mean colour, against extreme colours.
    eps : float
        Added under the root.
    color_space : {"rgb", "oklab"}
        Where colours are compared; see :func:`oklab`.
    assume_srgb : bool
        For OKLab: whether the picture is gamma coded (sRGB) rather than linear.

    Examples
    --------
    >>> rgb = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    >>> ForegroundContrastLoss()(rgb=rgb, mask=torch.tensor([[[1, 0]]], dtype=torch.int32))["loss"]
    tensor(-1.0000)
    """

    INPUT_SPECS = {
        "rgb": PortSpec(torch.float32, (-1, -1, -1, 3), "picture, 0..1"),
        "mask": PortSpec(torch.int32, (-1, -1, -1), "above 0 in the foreground"),
        "valid": VALID,
    }

    def __init__(
        self,
        weight: float = 1.0,
        compactness_weight: float = 0.0,
        anchor_weight: float = 0.0,
        eps: float = 1e-6,
        color_space: Literal["rgb", "oklab"] = "rgb",
        assume_srgb: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            weight=weight,
            compactness_weight=compactness_weight,
            anchor_weight=anchor_weight,
            eps=eps,
            color_space=color_space,
            assume_srgb=assume_srgb,
        )
        if color_space not in ("rgb", "oklab"):
            raise PipelineError(f"color_space {color_space!r} is not 'rgb' or 'oklab'.")
        need_non_negative(
            compactness_weight=compactness_weight, anchor_weight=anchor_weight, eps=eps
        )
        self.weight = float(weight)
        self.compactness_weight = float(compactness_weight)
        self.anchor_weight = float(anchor_weight)
        self.eps = float(eps)
        self.color_space = color_space
        self.assume_srgb = bool(assume_srgb)

    def forward(self, rgb: Tensor, mask: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Loss of ``rgb`` (B, y, x, 3) with ``mask`` (B, y, x)."""
        need_shapes(self, rgb=rgb, mask=mask, valid=valid)
        counts = torch.ones_like(mask, dtype=torch.bool)[..., None] if valid is None else valid
        colours = torch.where(counts, rgb, 0.0)
        if self.color_space == "oklab":
            colours = oklab(colours, gamma=self.assume_srgb)
        front = (mask > 0)[..., None] & counts
        back = counts & ~front
        both = front.any(dim=1).any(dim=1)[:, 0] & back.any(dim=1).any(dim=1)[:, 0]
        if not bool(both.any()):
            return {"loss": 0.0 * colours.sum()}
        colours, front, back, counts = (t[both] for t in (colours, front, back, counts))
        f, b, a = (_mean_colour(colours, region) for region in (front, back, counts))
        loss = -((f - b).square().sum(dim=-1) + self.eps).sqrt()
        if self.compactness_weight:
            spread = _mean_colour((colours - f[:, None, None]).square(), front)
            loss = loss + self.compactness_weight * spread.mean(dim=-1)
        if self.anchor_weight:
            pull = (f - a).square().mean(dim=-1) + (b - a).square().mean(dim=-1)
            loss = loss + self.anchor_weight * pull
        return {"loss": self.weight * loss.mean()}


def _mean_colour(colours: Tensor, region: Tensor) -> Tensor:
    return (colours * region).sum(dim=(1, 2)) / region.sum(dim=(1, 2))


#: Ottosson (2020), "A perceptual color space for image processing": linear sRGB to cone responses,
#: and their cube roots to L, a, b.
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def oklab(rgb: Tensor, *, gamma: bool = True) -> Tensor:
    """Colours ``(..., 3)`` in 0..1 as OKLab (Ottosson 2020), where distance is what the eye sees.

    Parameters
    ----------
    rgb : Tensor
        Red, green, blue; with ``gamma`` coded as sRGB (IEC 61966-2-1), else linear.
    gamma : bool
        Undo the gamma of sRGB first.
    """
    if gamma:
        knee = 0.04045
        # Each branch only sees values it is made for, so that no gradient is NaN.
        curved = ((rgb.clamp_min(knee) + 0.055) / 1.055) ** 2.4
        rgb = torch.where(rgb <= knee, rgb / 12.92, curved)
    cones = rgb @ rgb.new_tensor(_CONES).T
    roots = cones.sign() * cones.abs().clamp_min(1e-12) ** (1 / 3)
    return roots @ rgb.new_tensor(_LAB).T
