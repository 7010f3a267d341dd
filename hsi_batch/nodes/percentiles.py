"""Scaling between percentiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.stretch import FrameStretch, Stretch, StretchNode, Values
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.histogram import Histogram, counted_quantile

__all__ = ["PercentileNormalizer"]


class PercentileNormalizer(StretchNode):
    """Scale between a low and a high bound per channel: ``(x - low) / max(high - low, eps)``.

    * ``per_frame``: bounds are minimum and maximum of each frame, or its quantiles. Nothing is
      fitted.
    * ``statistical``: bounds are the quantiles of all pixels of the fit, from a histogram: exact
      for 8 and 16-bit integers and up to 2**20 different floats, so they depend neither on how
      frames are batched nor on their order.
    * ``running``: each frame widens the bounds by its own quantiles until
      ``freeze_running_bounds_after_frames`` frames were seen; the first ``running_warmup_frames``
      are scaled by their own. What comes out depends on the order of frames, so an archive is
      refused until the bounds are frozen: by that many frames, or :meth:`freeze_bounds`.

    Quantiles are interpolated linearly, over pixels whose channels are all finite.

    Parameters
    ----------
    n_channels : int, optional
        Channels of the input; taken from the data if not given.
    norm_mode : {"running", "per_frame", "statistical"}
        Where the bounds come from, as above.
    freeze_running_bounds_after_frames : int, optional
        ``running`` only: frames that may widen the bounds; None for all.
    running_warmup_frames : int
        ``running`` only: frames that are scaled by their own quantiles.
    quantile_low, quantile_high : float
        Levels, ``0 <= low < high <= 1``.
    eps : float
        Smallest range that is divided by, in units of the data.
    per_frame_quantiles : bool
        ``per_frame`` only: quantiles instead of minimum and maximum.
    joint_channels : bool
        ``per_frame`` only: one pair of bounds for all channels.
    quantize_levels : int, optional
        Cut the result down to steps: ``floor(y levels) / levels``.
    statistical_fit, fit_subsample, max_fit_values, seed
        Kept for pipelines that name them, whose fits approximate: quantiles are those of all
        pixels, neither the widest of the batches nor of a sample.
    clamp : {"both", "floor", "none"}
        ``statistical`` only: clamp to [0, 1], at 0 only, or not at all. Not clamped (and not cut
        into steps) the node is affine, so fits behind it read no pixels.
    invert : bool
        ``statistical`` only: scale ``-x``, by its quantiles.

    Attributes
    ----------
    running_min, running_max : torch.Tensor of float32, shape (C,)
        Bounds; NaN before there are any.

    Examples
    --------
    >>> node = PercentileNormalizer(norm_mode="per_frame")
    >>> node(data=torch.tensor([[[[10.0], [20.0], [30.0]]]]))["normalized"].ravel()
    tensor([0.0000, 0.5000, 1.0000])
    """

    running_min: Tensor
    running_max: Tensor
    _norm_frame_count: Tensor

    def __init__(
        self,
        n_channels: int | None = None,
        norm_mode: Literal["running", "per_frame", "statistical"] = "running",
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        quantile_low: float = 0.005,
        quantile_high: float = 0.995,
        eps: float = 1e-8,
        per_frame_quantiles: bool = False,
        joint_channels: bool = False,
        quantize_levels: int | None = None,
        statistical_fit: Literal["batch_bounds", "pooled"] = "batch_bounds",
        fit_subsample: int = 4,
        max_fit_values: int = 4_000_000,
        seed: int = 0,
        clamp: Literal["both", "floor", "none"] = "both",
        invert: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            n_channels=n_channels,
            norm_mode=norm_mode,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            quantile_low=quantile_low,
            quantile_high=quantile_high,
            eps=eps,
            per_frame_quantiles=per_frame_quantiles,
            joint_channels=joint_channels,
            quantize_levels=quantize_levels,
            statistical_fit=statistical_fit,
            fit_subsample=fit_subsample,
            max_fit_values=max_fit_values,
            seed=seed,
            clamp=clamp,
            invert=invert,
        )
        _check(self.hparams)
        self.norm_mode = norm_mode
        self.freeze_after = freeze_running_bounds_after_frames
        self.warmup = int(running_warmup_frames)
        self.levels = (float(quantile_low), float(quantile_high))
        self.eps = float(eps)
        self.per_frame_quantiles = bool(per_frame_quantiles)
        self.joint_channels = bool(joint_channels)
        self.quantize_levels = quantize_levels
        self.clamp = clamp
        self.invert = bool(invert)
        if norm_mode == "statistical" and clamp == "none" and quantize_levels is None:
            self.AFFINE = ("data", "normalized")  # type: ignore[misc]
        self.register_buffer("running_min", torch.empty(0))
        self.register_buffer("running_max", torch.empty(0))
        self.register_buffer("_norm_frame_count", torch.tensor(0))
        self.n_channels = n_channels

    @property
    def n_channels(self) -> int | None:
        """Channels, once they are known."""
        return self._channels

    @n_channels.setter
    def n_channels(self, value: int | None) -> None:
        self._channels = value
        # As cuvis-ai has them before there are bounds.
        if value is not None and not self.has_bounds:
            self.running_min = torch.full((value,), torch.nan)
            self.running_max = torch.full((value,), torch.nan)

    @property
    def has_bounds(self) -> bool:
        """Whether there are bounds for all channels."""
        return self.running_min.numel() > 0 and bool(torch.isfinite(self.running_min).all())

    @property
    def frozen(self) -> bool:
        """Whether no frame will change the bounds of ``running`` any more."""
        if self.freeze_after is None or not self.has_bounds:
            return False
        return int(self._norm_frame_count) >= max(self.freeze_after, self.warmup)

    @property
    def scope(self) -> Scope:
        """Pixel with fixed bounds, frame with bounds per frame, sequence while they move."""
        if self.norm_mode == "per_frame":
            return Scope.FRAME
        return Scope.PIXEL if self.norm_mode == "statistical" or self.frozen else Scope.SEQUENCE

    @property
    def fits_each_frame(self) -> bool:
        """Whether bounds are those of each frame."""
        return self.norm_mode == "per_frame"

    def request(self) -> Request | None:
        """Extrema of a frame, or a histogram."""
        if self.norm_mode == "running":
            return None
        plain = self.norm_mode == "per_frame" and not self.per_frame_quantiles
        return Request("data", "extrema" if plain else "histogram")

    def fit(self, statistic: Histogram) -> None:
        """Take the quantiles of all pixels."""
        low, high = self.levels
        if self.invert:
            low, high = -statistic.quantile([1.0 - low, 1.0 - high])
        else:
            low, high = statistic.quantile([low, high])
        self._stretch(low, high)
        self.set_state({"low": low, "high": high}, running_min=low, running_max=high)

    def frame_fit(self, statistic: Histogram | Extrema) -> Node:
        """Scaling by this frame's bounds."""
        if isinstance(statistic, Extrema):
            low, high = (np.asarray(b, np.float64) for b in (statistic.minimum, statistic.maximum))
            if self.joint_channels:
                low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        elif self.joint_channels:
            low, high = np.repeat(_pooled(statistic, self.levels), statistic.channels, axis=1)
        else:
            low, high = statistic.quantile(self.levels)
        return FrameStretch(self._stretch(low, high), self.name)

    def _stretch(self, low: Values, high: Values) -> Stretch:
        if self.eps == 0 and (low == high).any():
            raise DataError(
                f"{self.name}: the low and the high bound of channels"
                f" {np.flatnonzero(low == high).tolist()} are equal, and eps is 0, so there is no"
                " range to divide by.",
                hint="Set `eps` (for example 1e-8), or exclude the channels.",
            )
        return Stretch(low, high, self.eps, levels=self.quantize_levels)

    def _fixed(self) -> Stretch:
        """By the bounds that the node holds."""
        self._need_fit()
        state = self.exact_state()
        low, high = (
            (_double(self.running_min), _double(self.running_max))
            if state is None
            else (state["low"], state["high"])
        )
        plain = self._stretch(low, high)
        return plain._replace(clamp=self.clamp, sign=-1.0 if self.invert else 1.0)

    def affine(self) -> Affine:
        """The scaling by fixed bounds, where nothing is clamped or cut into steps."""
        if self.AFFINE is None:
            return super().affine()
        return self._fixed().affine()

    def freeze_bounds(self) -> None:
        """Let no further frame change the bounds of ``running``; archives can then be scored.

        Raises
        ------
        hsi_batch.errors.DataError
            No frame was seen yet.
        """
        if not self.has_bounds:
            raise DataError(
                f"{self.name}: there are no bounds to freeze yet.",
                hint="Run frames through the pipeline first, or use norm_mode 'statistical'.",
            )
        seen = int(self._norm_frame_count)
        self.freeze_after = max(min(self.freeze_after or seen, seen), 1)
        self.hparams["freeze_running_bounds_after_frames"] = self.freeze_after
        self._norm_frame_count = torch.tensor(max(seen, self.warmup, 1))

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Scale ``data`` (B, y, x, C), in float64, rounded once."""
        if self.scope is Scope.PIXEL:
            return {"normalized": self._fixed()(data)}
        step = self._own if self.norm_mode == "per_frame" else self._next
        return {"normalized": torch.stack([step(image) for image in data])}

    def _own(self, image: Tensor) -> Tensor:
        """Scale an image by its own bounds."""
        pixels = _finite(image)
        if not len(pixels):
            return torch.full_like(image, torch.nan)
        levels = self.levels if self.per_frame_quantiles else (0.0, 1.0)
        low, high = np.quantile(pixels, levels, axis=None if self.joint_channels else 0)
        size = image.shape[-1]
        return self._stretch(np.broadcast_to(low, size), np.broadcast_to(high, size))(image)

    def _next(self, image: Tensor) -> Tensor:
        """Count an image, let it widen the bounds, and scale it."""
        pixels = _finite(image)
        if not len(pixels):
            return torch.full_like(image, torch.nan)
        self._norm_frame_count = self._norm_frame_count + 1
        count = int(self._norm_frame_count)
        low, high = np.quantile(pixels, self.levels, axis=0)
        if self.freeze_after is None or count <= self.freeze_after:
            seen = [torch.from_numpy(b).to(self.running_min) for b in (low, high)]
            if self.has_bounds:
                seen[0] = torch.minimum(self.running_min, seen[0])
                seen[1] = torch.maximum(self.running_max, seen[1])
            self.running_min, self.running_max = seen
        if count > self.warmup:
            low, high = _double(self.running_min), _double(self.running_max)
        return self._stretch(low, high)(image)


def _check(given: Mapping[str, Any]) -> None:
    """Refuse arguments that make no sense, alone or in their mode."""
    choices = {
        "norm_mode": ("running", "per_frame", "statistical"),
        "statistical_fit": ("batch_bounds", "pooled"),
        "clamp": ("both", "floor", "none"),
    }
    for name, allowed in choices.items():
        if given[name] not in allowed:
            raise PipelineError(f"{name} {given[name]!r} is not one of {', '.join(allowed)}.")
    mode = given["norm_mode"]
    for name, default, needed in (
        ("statistical_fit", "batch_bounds", "statistical"),
        ("clamp", "both", "statistical"),
        ("invert", False, "statistical"),
        ("per_frame_quantiles", False, "per_frame"),
        ("joint_channels", False, "per_frame"),
    ):
        if given[name] != default and mode != needed:
            raise PipelineError(
                f"{name} applies to norm_mode {needed!r} only, not to {mode!r}.",
                hint="Leave it out, or set norm_mode.",
            )
    need_non_negative(eps=given["eps"], running_warmup_frames=float(given["running_warmup_frames"]))
    if not 0.0 <= given["quantile_low"] < given["quantile_high"] <= 1.0:
        raise PipelineError(
            f"quantile_low {given['quantile_low']} and quantile_high {given['quantile_high']} must"
            " be 0 <= low < high <= 1."
        )
    for name in ("quantize_levels", "freeze_running_bounds_after_frames"):
        if given[name] is not None and given[name] < 1:
            raise PipelineError(f"{name} {given[name]} must be at least 1.")


def _pooled(histogram: Histogram, levels: tuple[float, float]) -> Values:
    """Quantiles over all channels together, ``(2, 1)``."""
    bins = [histogram.bins(channel) for channel in range(histogram.channels)]
    values, counts = (np.concatenate(part) for part in zip(*bins, strict=True))
    order = np.argsort(values, kind="stable")
    return counted_quantile(np.asarray(levels), values[order], counts[order])[:, None]


def _finite(image: Tensor) -> Values:
    """Pixels ``(n, C)`` whose channels are all finite."""
    pixels = image.detach()[torch.isfinite(image).all(dim=-1)]
    return np.asarray(pixels.double().cpu().numpy())


def _double(tensor: Tensor) -> Values:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
