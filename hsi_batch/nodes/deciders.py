"""From scores to decisions, by thresholds that are given or those of each frame."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.calibration import Cut, best_cut, labelled, need_both, quantiles_to_try
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec

__all__ = [
    "BinaryDecider",
    "MultiRangeSlicer",
    "QuantileBinaryDecider",
    "ScoreThreshold",
    "threshold_of",
]

_DECISIONS = {"decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True where flagged")}
_SCORES = PortSpec(torch.float32, (-1, -1, -1, 1), "scores")


class BinaryDecider(Node):
    """Flag pixels with ``sigmoid(logit) >= threshold``, in float64.

    In float32, as in cuvis-ai, the sigmoid of all logits above 17 is 1, so that thresholds near 1
    would tell nothing apart. NaN is never flagged.

    Parameters
    ----------
    threshold : float
        Between 0 and 1.

    Examples
    --------
    >>> BinaryDecider(0.5)(logits=torch.tensor([[[[-1.0], [0.0]]]]))["decisions"].flatten()
    tensor([False,  True])
    """

    INPUT_SPECS = {"logits": PortSpec(torch.float32, (-1, -1, -1, 1), "logits")}
    OUTPUT_SPECS = _DECISIONS

    def __init__(self, threshold: float = 0.5, name: str | None = None) -> None:
        super().__init__(name, threshold=threshold)
        if not 0.0 <= threshold <= 1.0:
            raise PipelineError(f"threshold {threshold} is not a probability; give 0..1.")
        self.threshold = float(threshold)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Decide ``logits`` (B, y, x, 1)."""
        return {"decisions": torch.sigmoid(logits.double()) >= self.threshold}

    def calibrate(self, scores: Tensor, targets: Tensor) -> Cut:
        """Set the threshold to that of the largest F1 score against labels.

        Parameters
        ----------
        scores : torch.Tensor
            Logits, (B, y, x, 1).
        targets : torch.Tensor
            The same shape; above 0 where anomalous.
        """
        logits, wanted = labelled(scores, targets, self.name)
        # In float64, as decisions are made.
        chances = torch.sigmoid(torch.from_numpy(logits).double()).numpy()
        cut = best_cut(chances.ravel(), wanted.ravel(), self.name)
        self.hparams["threshold"] = self.threshold = cut.threshold
        return cut


class QuantileBinaryDecider(Node):
    """Flag the pixels of each frame at or above a quantile of that frame's own scores.

    A fixed share of every frame is flagged, also of a clean one. The quantile is that of the valid
    (not NaN) values, linearly interpolated; NaN is never flagged.

    Parameters
    ----------
    quantile : float
        Between 0 and 1.
    reduce_dims : sequence of int, optional
        Axes of (B, y, x, 1) that a quantile is taken over; all of a frame by default. ``[2, 3]``
        takes one for every line.
    threshold : float
        Kept for pipelines that name it; it does nothing.

    Examples
    --------
    >>> scores = torch.arange(5.0).reshape(1, 5, 1, 1)
    >>> QuantileBinaryDecider(0.75)(logits=scores)["decisions"].flatten()
    tensor([False, False, False,  True,  True])
    """

    INPUT_SPECS = {"logits": PortSpec(torch.float32, (-1, -1, -1, 1), "scores or logits")}
    OUTPUT_SPECS = _DECISIONS

    def __init__(
        self,
        quantile: float = 0.995,
        reduce_dims: Sequence[int] | None = None,
        threshold: float = 0.5,
        name: str | None = None,
    ) -> None:
        super().__init__(name, quantile=quantile, reduce_dims=reduce_dims, threshold=threshold)
        if not 0.0 <= quantile <= 1.0:
            raise PipelineError(f"quantile {quantile} is not between 0 and 1.")
        self.quantile = float(quantile)
        self._axes = _image_axes(reduce_dims)

    @property
    def scope(self) -> Scope:
        """A frame at once."""
        return Scope.FRAME

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Decide each image of ``logits`` (B, y, x, 1)."""
        values = logits.detach().cpu().numpy()
        flagged = np.zeros(values.shape, dtype=bool)
        for image, out in zip(values, flagged, strict=True):
            if len(self._axes) == 3:
                valid = image[~np.isnan(image)].astype(np.float64)
                if valid.size:
                    out[...] = image >= np.quantile(valid, self.quantile, overwrite_input=True)
                continue
            with warnings.catch_warnings():
                # A line without valid pixels has no quantile: NaN, which nothing reaches.
                warnings.simplefilter("ignore", RuntimeWarning)
                least = np.nanquantile(
                    image.astype(np.float64), self.quantile, axis=self._axes, keepdims=True
                )
            out[...] = image >= least
        return {"decisions": torch.from_numpy(flagged).to(logits.device)}

    def calibrate(self, scores: Tensor, targets: Tensor) -> Cut:
        """Set the quantile to that of the largest F1 score, as :meth:`BinaryDecider.calibrate`.

        Of 257 quantiles, evenly on a logarithmic scale of the upper tail down to one pixel.
        """
        values, wanted = labelled(scores, targets, self.name)
        need_both(wanted[~np.isnan(values)], self.name)
        known = ~np.isnan(values)
        best = Cut(self.quantile, -1.0)
        for quantile in quantiles_to_try(int(np.prod(values.shape[1:]))):
            self.quantile = float(quantile)
            said = self(logits=torch.from_numpy(values))["decisions"].numpy()[known]
            true = np.count_nonzero(said & wanted[known])
            f1 = 2 * true / (np.count_nonzero(said) + np.count_nonzero(wanted[known]))
            if f1 >= best.f1:
                best = Cut(float(quantile), f1)
        self.hparams["quantile"] = self.quantile = best.threshold
        return best


def _image_axes(reduce_dims: Sequence[int] | None) -> tuple[int, ...]:
    """Axes of one image (y, x, 1); that of the single channel is always one of them."""
    if reduce_dims is None:
        return (0, 1, 2)
    if any(not -4 <= int(d) < 4 for d in reduce_dims) or any(int(d) % 4 == 0 for d in reduce_dims):
        raise PipelineError(
            f"reduce_dims {list(reduce_dims)} must be axes of (B, y, x, 1) other than the first:"
            " 1, 2, 3."
        )
    return tuple(sorted({int(d) % 4 - 1 for d in reduce_dims} | {2}))


class ScoreThreshold(Node):
    """Flag scores at most (``keep="below"``) or above (``keep="above"``) a threshold.

    NaN is never flagged.

    Parameters
    ----------
    threshold : float
        In units of the score. The port ``threshold``, where it is fed, counts instead.
    keep : {"below", "above"}
        Flag ``score <= threshold`` or ``score > threshold``.

    Examples
    --------
    >>> scores = torch.tensor([[[[0.2], [0.5], [0.7]]]])
    >>> ScoreThreshold(0.5)(scores=scores)["decisions"].flatten()
    tensor([ True,  True, False])
    """

    INPUT_SPECS = {
        "scores": _SCORES,
        "threshold": PortSpec(torch.float32, (1,), "threshold", optional=True),
    }
    OUTPUT_SPECS = _DECISIONS

    def __init__(
        self,
        threshold: float = 0.5,
        keep: Literal["below", "above"] = "below",
        name: str | None = None,
    ) -> None:
        super().__init__(name, threshold=threshold, keep=keep)
        if keep not in ("below", "above"):
            raise PipelineError(f"keep {keep!r} is not 'below' or 'above'.")
        if not np.isfinite(threshold):
            raise PipelineError(f"threshold {threshold} must be a finite number.")
        self.threshold = float(threshold)
        self.keep = keep

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def forward(self, scores: Tensor, threshold: Tensor | None = None) -> dict[str, Tensor]:
        """Decide ``scores`` (B, y, x, 1)."""
        limit = threshold_of(self, "threshold", threshold, self.threshold)
        assert limit is not None
        exact = scores.double()
        return {"decisions": exact <= limit if self.keep == "below" else exact > limit}


def threshold_of(
    node: Node, port: str, given: Tensor | None, otherwise: float | None
) -> float | None:
    """The value on a threshold port, or what the node holds.

    Raises
    ------
    hsi_batch.errors.PipelineError
        The value on the port is not one finite number.
    """
    if given is None:
        return otherwise
    if given.numel() != 1 or not bool(torch.isfinite(given).all()):
        raise PipelineError(
            f"{node.name}.{port} got {given.tolist()}; it takes one finite number, shape (1,).",
            hint="Connect one that gives a threshold.",
        )
    return float(given)


class MultiRangeSlicer(Node):
    """Number the range a score lies in: 0 below the first edge, ``len(edges)`` above the last.

    Class ``i`` is ``edges[i-1] < score <= edges[i]``, or ``edges[i-1] <= score < edges[i]`` with
    ``right``. NaN is -1.

    Parameters
    ----------
    edges : sequence of float, optional
        Ascending; 0.25, 0.5, 0.75 by default.
    right : bool
        Whether an edge belongs to the range above it.

    Examples
    --------
    >>> MultiRangeSlicer([1.0, 2.0])(scores=torch.tensor([[[[0.5], [1.0], [9.0]]]]))["class_mask"]
    tensor([[[0, 0, 2]]], dtype=torch.int32)
    """

    INPUT_SPECS = {"scores": _SCORES}
    OUTPUT_SPECS = {"class_mask": PortSpec(torch.int32, (-1, -1, -1), "number of the range")}

    def __init__(
        self,
        edges: Sequence[float] | None = None,
        right: bool = False,
        name: str | None = None,
    ) -> None:
        found = [0.25, 0.5, 0.75] if edges is None else [float(edge) for edge in edges]
        super().__init__(name, edges=found, right=right)
        if not found or not np.isfinite(found).all() or np.any(np.diff(found) <= 0):
            raise PipelineError(f"edges {found} must be finite and ascending, at least one.")
        self.edges = found
        self.right = bool(right)

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """Class numbers have no channels."""
        return {}

    def forward(self, scores: Tensor) -> dict[str, Tensor]:
        """Slice ``scores`` (B, y, x, 1) into classes (B, y, x)."""
        exact = scores[..., 0].double().contiguous()
        edges = torch.tensor(self.edges, dtype=torch.float64, device=scores.device)
        classes = torch.bucketize(exact, edges, right=self.right, out_int32=True)
        return {"class_mask": torch.where(torch.isnan(exact), -1, classes).to(torch.int32)}
