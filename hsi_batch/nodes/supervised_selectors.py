"""Channels chosen by how well they tell labelled anomalies from the background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hsi_batch.nodes.band_choice import Supervised, Values, Weights, Windowed, worth_of
from hsi_batch.nodes.color_selectors import Range
from hsi_batch.nodes.false_color import NormMode

__all__ = [
    "SupervisedCIRSelector",
    "SupervisedFullSpectrumSelector",
    "SupervisedWindowedSelector",
]


class SupervisedCIRSelector(Windowed):
    """Colour infrared of the best channel each of near infrared, red and green.

    Each channel is scored over all labelled pixels by its Fisher ratio, the area under its ROC
    curve and its mutual information with the class, each standardised over the channels, then
    summed with ``score_weights``. Channels are taken one after the other, each with the largest
    ``score - lambda_penalty max |corr|`` against those taken before (minimum redundancy, maximum
    relevance). The labels are those of the archive, as the data node sorts them; the input
    ``mask`` may be connected, as cuvis-ai asks for it, and is not looked at.

    Source: C. Ding, H. Peng, Minimum redundancy feature selection from microarray gene expression
    data, J. Bioinform. Comput. Biol. 3 (2005) 185-205.

    Parameters
    ----------
    windows : three of (float, float)
        Ends, inclusive, nm; of a window without channels the one nearest to its middle is taken.
    score_weights : (float, float, float)
        Weights of Fisher ratio, AUC and mutual information.
    lambda_penalty : float
        Price of correlation with the channels that are chosen already.
    num_spectral_bands : int, optional
        Channels of the input; taken from the data if not given.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`.FixedWavelengthSelector`; ``statistical`` bounds are those of the labelled
        pixels, so they cost no further pass.
    normalize_output : bool
        Scale to [0, 1].

    Attributes
    ----------
    selected_indices : torch.Tensor of int64, shape (3,)
        The chosen channels.
    band_scores, fisher_scores, auc_scores, mi_scores : torch.Tensor of float32, shape (C,)
        Weighted sum, and the three measures that it is made of.

    Examples
    --------
    >>> node = SupervisedCIRSelector(norm_mode="statistical")
    >>> node.requires_initial_fit, node.selected_indices.shape
    (True, torch.Size([3]))
    """

    STRATEGY = "supervised_cir"

    def __init__(
        self,
        windows: Sequence[Range] = ((840.0, 910.0), (650.0, 720.0), (500.0, 570.0)),
        score_weights: Weights = (1.0, 1.0, 1.0),
        lambda_penalty: float = 0.5,
        num_spectral_bands: int | None = None,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            windows=windows,
            score_weights=score_weights,
            lambda_penalty=lambda_penalty,
            num_spectral_bands=num_spectral_bands,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )


class SupervisedWindowedSelector(Windowed):
    """A picture of the best channel of each of three windows of wavelengths.

    Each channel is scored over all labelled pixels by its Fisher ratio, the area under its ROC
    curve and its mutual information with the class, each standardised over the channels, then
    summed with ``score_weights``. Channels are taken one after the other, each with the largest
    ``score - lambda_penalty max |corr|`` against those taken before (minimum redundancy, maximum
    relevance). The labels are those of the archive, as the data node sorts them; the input
    ``mask`` may be connected, as cuvis-ai asks for it, and is not looked at.

    Source: C. Ding, H. Peng, Minimum redundancy feature selection from microarray gene expression
    data, J. Bioinform. Comput. Biol. 3 (2005) 185-205.

    Parameters
    ----------
    windows : three of (float, float)
        Ends, inclusive, nm; of a window without channels the one nearest to its middle is taken.
    score_weights : (float, float, float)
        Weights of Fisher ratio, AUC and mutual information.
    lambda_penalty : float
        Price of correlation with the channels that are chosen already.
    num_spectral_bands : int, optional
        Channels of the input; taken from the data if not given.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`.FixedWavelengthSelector`; ``statistical`` bounds are those of the labelled
        pixels, so they cost no further pass.
    normalize_output : bool
        Scale to [0, 1].

    Attributes
    ----------
    selected_indices : torch.Tensor of int64, shape (3,)
        The chosen channels.
    band_scores, fisher_scores, auc_scores, mi_scores : torch.Tensor of float32, shape (C,)
        Weighted sum, and the three measures that it is made of.

    Examples
    --------
    >>> node = SupervisedWindowedSelector(norm_mode="statistical")
    >>> node.requires_initial_fit, node.selected_indices.shape
    (True, torch.Size([3]))
    """

    STRATEGY = "supervised_windowed_false_rgb"

    def __init__(
        self,
        windows: Sequence[Range] = ((440.0, 500.0), (500.0, 580.0), (610.0, 700.0)),
        score_weights: Weights = (1.0, 1.0, 1.0),
        lambda_penalty: float = 0.5,
        num_spectral_bands: int | None = None,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            windows=windows,
            score_weights=score_weights,
            lambda_penalty=lambda_penalty,
            num_spectral_bands=num_spectral_bands,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )


class SupervisedFullSpectrumSelector(Supervised):
    """A picture of the best three channels of the whole spectrum.

    Each channel is scored over all labelled pixels by its Fisher ratio, the area under its ROC
    curve and its mutual information with the class, each standardised over the channels, then
    summed with ``score_weights``. Channels are taken one after the other, each with the largest
    ``score - lambda_penalty max |corr|`` against those taken before (minimum redundancy, maximum
    relevance). The labels are those of the archive, as the data node sorts them; the input
    ``mask`` may be connected, as cuvis-ai asks for it, and is not looked at.

    Source: C. Ding, H. Peng, Minimum redundancy feature selection from microarray gene expression
    data, J. Bioinform. Comput. Biol. 3 (2005) 185-205.

    Parameters
    ----------
    score_weights : (float, float, float)
        Weights of Fisher ratio, AUC and mutual information.
    lambda_penalty : float
        Price of correlation with the channels that are chosen already.
    num_spectral_bands : int, optional
        Channels of the input; taken from the data if not given.
    norm_mode, apply_gamma, freeze_running_bounds_after_frames, running_warmup_frames
        As for :class:`.FixedWavelengthSelector`; ``statistical`` bounds are those of the labelled
        pixels, so they cost no further pass.
    normalize_output : bool
        Scale to [0, 1].

    Attributes
    ----------
    selected_indices : torch.Tensor of int64, shape (3,)
        The chosen channels.
    band_scores, fisher_scores, auc_scores, mi_scores : torch.Tensor of float32, shape (C,)
        Weighted sum, and the three measures that it is made of.

    Examples
    --------
    >>> node = SupervisedFullSpectrumSelector(norm_mode="statistical")
    >>> node.requires_initial_fit, node.selected_indices.shape
    (True, torch.Size([3]))
    """

    STRATEGY = "supervised_full_spectrum"

    def __init__(
        self,
        score_weights: Weights = (1.0, 1.0, 1.0),
        lambda_penalty: float = 0.5,
        num_spectral_bands: int | None = None,
        norm_mode: NormMode = "running",
        apply_gamma: bool = True,
        freeze_running_bounds_after_frames: int | None = 20,
        running_warmup_frames: int = 10,
        normalize_output: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            score_weights=score_weights,
            lambda_penalty=lambda_penalty,
            num_spectral_bands=num_spectral_bands,
            norm_mode=norm_mode,
            apply_gamma=apply_gamma,
            freeze_running_bounds_after_frames=freeze_running_bounds_after_frames,
            running_warmup_frames=running_warmup_frames,
            normalize_output=normalize_output,
        )

    def _choose(
        self,
        scores: Values,
        correlation: Values,
        wavelengths: Values,  # noqa: ARG002
    ) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < 3:
            worth = worth_of(scores, correlation, chosen, self.lambda_penalty)
            worth[chosen] = -np.inf
            chosen.append(int(np.argmax(worth)))
        return chosen
