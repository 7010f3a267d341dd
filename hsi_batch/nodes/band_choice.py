"""How channels are chosen by labels: scored apart, then taken with little redundancy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.color_selectors import Range, checked_range
from hsi_batch.nodes.false_color import CUBE_IN, FalseColor, nearest
from hsi_batch.nodes.node import Request
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.wavelengths import known_wavelengths
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.classes import ClassMeasure, ClassStatistics
from hsi_batch.statistics.separability import (
    absolute_correlation,
    channel_auc,
    fisher_ratio,
    mutual_information,
    need_both,
)

__all__ = ["Supervised", "Values", "Weights", "Windowed", "standardised", "worth_of"]

Values = NDArray[np.float64]
Weights = tuple[float, float, float]


class Supervised(FalseColor):
    """A picture of the three channels that tell labelled classes apart best."""

    INPUT_SPECS = {
        "cube": PortSpec(torch.float32, (-1, -1, -1, "num_spectral_bands"), "cube"),
        "wavelengths": CUBE_IN["wavelengths"],
        "mask": PortSpec(torch.bool, (-1, -1, -1, 1), "True where anomalous", optional=True),
    }
    FIT_INPUTS = frozenset({"mask"})
    CHANNEL_ARGUMENT = "num_spectral_bands"
    selected_indices: Tensor
    band_scores: Tensor
    fisher_scores: Tensor
    auc_scores: Tensor
    mi_scores: Tensor

    def __init__(
        self,
        name: str | None,
        *,
        score_weights: Weights,
        lambda_penalty: float,
        num_spectral_bands: int | None,
        **display: Any,
    ) -> None:
        if len(score_weights) != 3:
            raise PipelineError(
                f"score_weights {list(score_weights)} must be three: Fisher ratio, AUC, mutual"
                " information."
            )
        super().__init__(
            name,
            score_weights=list(score_weights),
            lambda_penalty=lambda_penalty,
            num_spectral_bands=num_spectral_bands,
            **display,
        )
        self.score_weights = tuple(float(weight) for weight in score_weights)
        self.lambda_penalty = float(lambda_penalty)
        self.num_spectral_bands = num_spectral_bands
        size = num_spectral_bands or 0
        self.register_buffer("selected_indices", torch.zeros(3, dtype=torch.int64))
        for buffer in ("band_scores", "fisher_scores", "auc_scores", "mi_scores"):
            self.register_buffer(buffer, torch.zeros(size))

    @property
    def requires_initial_fit(self) -> bool:
        """Always: the channels are chosen in a fit."""
        return True

    @property
    def mixes_channels(self) -> bool:
        """Channels are picked."""
        return False

    def requests(self) -> tuple[Request, ...]:
        """Statistics of both classes."""
        return (Request("cube", ClassMeasure()),)

    @abstractmethod
    def _choose(self, scores: Values, correlation: Values, wavelengths: Values) -> list[int]:
        """Indices of three channels."""

    def fit(self, statistic: ClassStatistics) -> None:  # type: ignore[override]
        """Score the channels and choose three."""
        classes = need_both(statistic)
        both = classes.normal.merge(classes.anomalous)
        scores = {
            "fisher_scores": fisher_ratio(classes.normal, classes.anomalous),
            "auc_scores": channel_auc(classes),
            "mi_scores": mutual_information(classes),
        }
        combined = sum(
            (w * standardised(s) for w, s in zip(self.score_weights, scores.values(), strict=True)),
            np.zeros(classes.channels),
        )
        wavelengths = known_wavelengths(self.axes["cube"], self.name)
        chosen = np.array(self._choose(combined, absolute_correlation(both), wavelengths))
        values = classes.normal_values.merge(classes.anomalous_values)
        low, high = values.quantile([0.005, 0.995])[:, chosen]
        bounds = {"low": low, "high": high} if self.norm_mode == "statistical" else {}
        self.set_state(
            {"selected": chosen, "band_scores": combined, **scores, **bounds},
            selected_indices=chosen,
            band_scores=combined,
            **scores,
            **({"running_min": low, "running_max": high} if bounds else {}),
        )

    def _chosen(self) -> list[int]:
        self._need_fit()
        return [int(index) for index in self.selected_indices]

    def channel_axis(self, axes: Any) -> dict[str, ChannelAxis]:
        """The chosen channels once they are known."""
        axis = axes["cube"]
        wavelengths = known_wavelengths(axis, self.name)
        if axis.size < 3:
            raise PipelineError(
                f"{self.name} chooses 3 channels; {axis.size} reach it.",
                hint="Choose it behind fewer selections, or on another recording.",
            )
        if not self._fitted:
            return {"rgb_image": ChannelAxis(3)}
        chosen = self._chosen()
        return {"rgb_image": ChannelAxis(3, wavelengths[chosen])}

    def compose(self, axis: ChannelAxis) -> Affine:
        """Selection of the chosen channels."""
        return Affine.selection(self._chosen(), axis.size)

    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """The chosen channels and what they were chosen by."""
        chosen = self._chosen()
        return {
            "band_indices": chosen,
            "band_wavelengths_nm": known_wavelengths(axis, self.name)[chosen].tolist(),
            "score_weights": list(self.score_weights),
            "lambda_penalty": self.lambda_penalty,
        }

    def forward(
        self,
        cube: Tensor,
        wavelengths: Any = None,
        mask: Tensor | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Compose a picture of ``cube`` (B, y, x, C)."""
        return super().forward(cube, wavelengths)


class Windowed(Supervised):
    """One channel in each of three windows of wavelengths."""

    def __init__(self, name: str | None, *, windows: Sequence[Range], **others: Any) -> None:
        checked = tuple(checked_range("windows", window) for window in windows)
        if len(checked) != 3:
            raise PipelineError(f"{len(checked)} windows were given; 3 are needed.")
        super().__init__(name, windows=[list(window) for window in checked], **others)
        self.windows = checked

    def _choose(self, scores: Values, correlation: Values, wavelengths: Values) -> list[int]:
        chosen: list[int] = []
        for low, high in self.windows:
            inside = np.flatnonzero((wavelengths >= low) & (wavelengths <= high))
            if inside.size:
                worth = worth_of(scores, correlation, chosen, self.lambda_penalty)
                chosen.append(int(inside[np.argmax(worth[inside])]))
            else:
                chosen.append(nearest(wavelengths, (low + high) / 2))
        return chosen

    def info(self, axis: ChannelAxis) -> dict[str, Any]:
        """As without windows, and these."""
        return {**super().info(axis), "windows_nm": [list(window) for window in self.windows]}


def standardised(scores: Values) -> Values:
    """Scores minus their mean, divided by their population standard deviation if they differ.

    Examples
    --------
    >>> standardised(np.array([1.0, 3.0])), standardised(np.array([2.0, 2.0]))
    (array([-1.,  1.]), array([0., 0.]))
    """
    centred = scores - scores.mean()
    spread = float(scores.std())
    return np.asarray(centred / spread if spread > 1e-10 else centred)


def worth_of(scores: Values, correlation: Values, chosen: list[int], penalty: float) -> Values:
    """``score - penalty max |corr|`` of each channel against those that are chosen."""
    if not chosen:
        return scores.copy()
    return np.asarray(scores - penalty * correlation[:, chosen].max(axis=1))
