"""What training minimises: losses of scores, reconstructions and embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.node import Node, Stage, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = [
    "VALID",
    "AnomalyBCEWithLogits",
    "DeepSVDDSoftBoundaryLoss",
    "IoULoss",
    "LossNode",
    "MSEReconstructionLoss",
    "chosen_pixels",
]

#: The port of all losses of pixels by which pixels are left out.
VALID = PortSpec(torch.bool, (-1, -1, -1, 1), "True where a pixel counts", optional=True)


class LossNode(Node):
    """Base of the losses: one output ``loss``, a scalar; they run in train, val and test.

    A loss of pixels has the optional input ``valid`` (B, y, x, 1): pixels that are False there
    take no part, whatever their values are, NaN too. Without any pixel left a loss is 0.

    Parameters
    ----------
    name : str, optional
        Of the node in its graph.
    **hparams
        As for :class:`.Node`.

    Examples
    --------
    >>> class MeanScore(LossNode):
    ...     INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1))}
    ...     def forward(self, scores):
    ...         return {"loss": scores.mean()}
    >>> MeanScore()(scores=torch.ones(1, 2, 2, 1))["loss"]
    tensor(1.)
    """

    OUTPUT_SPECS = {"loss": PortSpec(torch.float32, (), "the loss")}
    stages = frozenset({Stage.TRAIN, Stage.VAL, Stage.TEST})


def chosen_pixels(valid: Tensor | None, *values: Tensor) -> tuple[Tensor, ...]:
    """Rows ``(n, channel)`` of the pixels that count, from ``(B, y, x, channel)``."""
    if valid is None:
        return tuple(value.reshape(-1, value.shape[-1]) for value in values)
    keep = valid[..., 0]
    return tuple(value[keep] for value in values)


def _need_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise PipelineError(
            f"reduction {reduction!r} is not 'mean' or 'sum'; a loss is one number."
        )


class AnomalyBCEWithLogits(LossNode):
    """Binary cross-entropy of logits: ``-weight (p t log s + (1 - t) log(1 - s))``.

    ``s`` is the sigmoid of the prediction, ``t`` the target, ``p`` the weight of positives.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    pos_weight : float, optional
        Factor of the anomalous pixels, against their rarity; 1 by default.
    reduction : {"mean", "sum"}
        Over pixels.

    Examples
    --------
    >>> logits, targets = torch.zeros(1, 1, 2, 1), torch.tensor([[[[True], [False]]]])
    >>> AnomalyBCEWithLogits()(predictions=logits, targets=targets)["loss"]
    tensor(0.6931)
    """

    INPUT_SPECS = {
        "predictions": PortSpec(torch.float32, (-1, -1, -1, 1), "logits"),
        "targets": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous"),
        "valid": VALID,
    }

    def __init__(
        self,
        weight: float = 1.0,
        pos_weight: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        name: str | None = None,
    ) -> None:
        super().__init__(name, weight=weight, pos_weight=pos_weight, reduction=reduction)
        _need_reduction(reduction)
        self.weight = float(weight)
        factor = None
        if pos_weight is not None:
            need_non_negative(pos_weight=pos_weight)
            factor = torch.tensor([float(pos_weight)])
            # Files of weights hold it twice, under this name and under that of the module.
            self.register_buffer("_pos_weight", factor)
        self.loss_fn = nn.BCEWithLogitsLoss(pos_weight=factor, reduction=reduction)

    def forward(
        self, predictions: Tensor, targets: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of ``predictions`` (B, y, x, 1)."""
        need_shapes(self, predictions=predictions, targets=targets, valid=valid)
        logits, truth = chosen_pixels(valid, predictions, targets)
        if not len(logits):
            return {"loss": logits.sum()}
        return {"loss": self.weight * self.loss_fn(logits, truth.to(logits.dtype))}


class MSEReconstructionLoss(LossNode):
    """Squared error ``weight mean((reconstruction - target)^2)`` over pixels and channels.

    Parameters
    ----------
    weight : float
        Factor of the loss.
    reduction : {"mean", "sum"}
        Over pixels and channels.

    Examples
    --------
    >>> one = torch.ones(1, 1, 2, 3)
    >>> MSEReconstructionLoss()(reconstruction=3 * one, target=one)["loss"]
    tensor(4.)
    """

    INPUT_SPECS = {
        "reconstruction": PortSpec(torch.float32, (-1, -1, -1, -1), "what a model made of it"),
        "target": PortSpec(torch.float32, (-1, -1, -1, -1), "what it should be"),
        "valid": VALID,
    }

    def __init__(
        self,
        weight: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        name: str | None = None,
    ) -> None:
        super().__init__(name, weight=weight, reduction=reduction)
        _need_reduction(reduction)
        self.weight = float(weight)
        self.reduction = reduction

    def forward(
        self, reconstruction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of ``reconstruction`` against ``target``, both (B, y, x, C)."""
        need_shapes(self, reconstruction=reconstruction, target=target, valid=valid)
        if reconstruction.shape != target.shape:
            raise PipelineError(
                f"{self.name}.reconstruction has {reconstruction.shape[-1]} channels,"
                f" {self.name}.target has {target.shape[-1]}; they must be the same."
            )
        made, truth = chosen_pixels(valid, reconstruction, target)
        error = (made - truth).square()
        total = error.mean() if self.reduction == "mean" and error.numel() else error.sum()
        return {"loss": self.weight * total}


class IoULoss(LossNode):
    """Soft intersection over union of the whole batch: ``weight (1 - (I + s) / (U + s))``.

    ``I = sum p t`` and ``U = sum p + sum t - I`` with predictions ``p`` brought to 0..1 and ``s``
    the smoothing (Rahman and Wang 2016).

    Parameters
    ----------
    weight : float
        Factor of the loss.
    smooth : float
        Added to both sides of the ratio.
    normalize_method : {"sigmoid", "clamp", "minmax"}
        How predictions are brought to 0..1: as logits, cut, or ``(p - min) / (max - min + s)``
        over the batch (0.5 where all are equal).

    Examples
    --------
    >>> scores = torch.tensor([[[[0.5], [0.5], [0.0]]]])
    >>> targets = torch.tensor([[[[True], [False], [False]]]])
    >>> IoULoss(normalize_method="clamp")(predictions=scores, targets=targets)["loss"]
    tensor(0.6667)
    """

    INPUT_SPECS = {
        "predictions": PortSpec(torch.float32, (-1, -1, -1, 1), "logits or scores"),
        "targets": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous"),
        "valid": VALID,
    }

    def __init__(
        self,
        weight: float = 1.0,
        smooth: float = 1e-6,
        normalize_method: Literal["sigmoid", "clamp", "minmax"] = "sigmoid",
        name: str | None = None,
    ) -> None:
        super().__init__(name, weight=weight, smooth=smooth, normalize_method=normalize_method)
        if normalize_method not in ("sigmoid", "clamp", "minmax"):
            raise PipelineError(
                f"normalize_method {normalize_method!r} is not 'sigmoid', 'clamp' or 'minmax'."
            )
        if not smooth > 0:
            raise PipelineError(f"smooth {smooth} must be above 0.")
        self.weight = float(weight)
        self.smooth = float(smooth)
        self.normalize_method = normalize_method

    def _normalized(self, values: Tensor) -> Tensor:
        if self.normalize_method == "sigmoid":
            return torch.sigmoid(values)
        if self.normalize_method == "clamp":
            return values.clamp(0.0, 1.0)
        low, high = values.min(), values.max()
        if low == high:
            return values * 0.0 + 0.5
        return (values - low) / (high - low + self.smooth)

    def forward(
        self, predictions: Tensor, targets: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of ``predictions`` (B, y, x, 1)."""
        need_shapes(self, predictions=predictions, targets=targets, valid=valid)
        values, truth = chosen_pixels(valid, predictions, targets)
        if not len(values):
            return {"loss": values.sum()}
        p, t = self._normalized(values), truth.to(values.dtype)
        both = (p * t).sum()
        either = p.sum() + t.sum() - both
        return {"loss": self.weight * (1.0 - (both + self.smooth) / (either + self.smooth))}


class DeepSVDDSoftBoundaryLoss(LossNode):
    """Soft-boundary Deep SVDD: ``weight (R^2 + mean(max(0, |z - c|^2 - R^2)) / nu)``.

    The radius ``R = log(1 + exp(10 r)) / 10`` is trained through its parameter ``r``
    (``r_unconstrained``), which starts at 0 (Ruff et al. 2018, eq. 3).

    Parameters
    ----------
    nu : float
        Above 0, at most 1: about the share of pixels that may lie outside of the sphere.
    weight : float
        Factor of the loss.

    Examples
    --------
    >>> loss = DeepSVDDSoftBoundaryLoss(nu=0.5)
    >>> loss(embeddings=torch.ones(1, 1, 1, 2), center=torch.zeros(2))["loss"]
    tensor(3.9952, grad_fn=<MulBackward0>)
    """

    INPUT_SPECS = {
        "embeddings": PortSpec(torch.float32, (-1, -1, -1, -1), "z of every pixel"),
        "center": PortSpec(torch.float32, (-1,), "c"),
        "valid": VALID,
    }

    def __init__(self, nu: float = 0.05, weight: float = 1.0, name: str | None = None) -> None:
        super().__init__(name, nu=nu, weight=weight)
        if not 0.0 < nu <= 1.0:
            raise PipelineError(f"nu {nu} is not above 0 and at most 1.")
        self.nu = float(nu)
        self.weight = float(weight)
        self.r_unconstrained = nn.Parameter(torch.tensor(0.0))

    @property
    def radius(self) -> Tensor:
        """R, in units of the embedding."""
        return nn.functional.softplus(self.r_unconstrained, beta=10.0)

    def forward(
        self, embeddings: Tensor, center: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of ``embeddings`` (B, y, x, D) around ``center`` (D,)."""
        need_shapes(self, embeddings=embeddings, center=center, valid=valid)
        if embeddings.shape[-1] != center.shape[0]:
            raise PipelineError(
                f"{self.name}.embeddings has {embeddings.shape[-1]} channels,"
                f" {self.name}.center has {center.shape[0]}; they must be the same."
            )
        (z,) = chosen_pixels(valid, embeddings)
        if not len(z):
            return {"loss": z.sum()}
        squared = self.radius.square()
        outside = torch.relu((z - center).square().sum(dim=-1) - squared)
        return {"loss": self.weight * (squared + outside.mean() / self.nu)}
