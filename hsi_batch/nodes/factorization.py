"""Endmembers from the pixels themselves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, DataWarning, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.stepped import SAMPLE, SteppedNode
from hsi_batch.nodes.unmixing import SMALLEST_DIRECTION, unmixed
from hsi_batch.statistics.abundances import AbundanceMeasure, AbundanceSums
from hsi_batch.statistics.factors import first_factors, non_negative_factors
from hsi_batch.statistics.least_squares import smallest_direction
from hsi_batch.statistics.sample import SpectraSample

__all__ = ["NMFUnmixing"]

Values = NDArray[np.float64]
_INITS = ("nndsvda", "nndsvd", "nndsvdar", "random")
#: Of the squares of all pixels, what is rounding in the residual.
_ROUNDING = 1e-13
#: Projected gradient that ends the descent in the sample, as in scikit-learn.
_SAMPLE_TOL = 1e-4
#: Changes of the active set of a pixel at most, and error of an abundance.
_STEPS, _TOL = 2000, 1e-6


class _Place(NamedTuple):
    """Endmembers on their way, length of the pixels, and what they leave of all pixels."""

    endmembers: Values
    length: float
    residual: float | None = None


class NMFUnmixing(SteppedNode):
    """Endmembers learned from the pixels, and how much of each is in a pixel, none negative.

    Minimises ``sum |x - a E|^2`` over non-negative abundances ``a`` of all pixels ``x`` and
    endmembers ``E`` (K, C). The first pass draws a sample of different spectra by their hashes, as
    :class:`.KMeansClusterer` does, and factorises it by coordinate descent. Then every pass is an
    exact step of alternating least squares over all pixels: their abundances (as in
    :class:`.NNLSUnmixing`), then the best endmembers for these, until the residual rests or
    ``max_passes`` are through. Values below zero, which noise leaves, are fitted as they are.

    Only the product ``a E`` is determined: endmembers are scaled to the root mean square length of
    the pixels, so that abundances are of the order of 1, in whatever units the input is. cuvis-ai
    leaves them at a length that depends on the number of pixels.

    Source: D. D. Lee, H. S. Seung, Learning the parts of objects by non-negative matrix
    factorization, Nature 401 (1999) 788-791; H. Kim, H. Park, Nonnegative matrix factorization
    based on alternating nonnegativity constrained least squares, SIAM J. Matrix Anal. Appl. 30
    (2008) 713-730.

    Parameters
    ----------
    n_components : int
        Endmembers.
    init : {"nndsvda", "nndsvd", "nndsvdar", "random"}
        Where the descent in the sample starts; see :func:`.first_factors`.
    beta_loss : {"frobenius"}
        Squared differences.
    max_iter : int
        Steps in the sample at most.
    random_state : int
        Seed of random starts.
    max_fit_pixels : int
        Different spectra of the sample at most; 0 for 20 000.
    fit_seed : int
        Seed of the sample.
    max_passes : int
        Steps over all pixels at most; 0 to keep the endmembers of the sample.
    tol : float
        The fit rests when a step lowers the residual by no more than this times the sum of squares
        of all pixels.

    Attributes
    ----------
    endmembers_buf : torch.Tensor of float32, shape (K, C)
        Spectra that pixels are mixed of.

    Examples
    --------
    >>> pixels = np.array([[4, 0], [0, 2], [2, 1], [4, 2]], dtype=np.float32)
    >>> node = NMFUnmixing(2, max_passes=0)
    >>> node.fit(SpectraSample.of(pixels, 100))
    >>> node(cube=torch.from_numpy(pixels)[None, None])["scores"].flatten().round(decimals=2)
    tensor([0., 0., 0., 0.])
    """

    INPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = {
        "abundances": PortSpec(torch.float32, (-1, -1, -1, -1), "abundance of each endmember"),
        "endmembers": PortSpec(torch.float32, (-1, -1), "learned spectra (K, C)"),
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "length of what is left over"),
        "class_mask": PortSpec(
            torch.int32, (-1, -1, -1), "number of the most abundant endmember, from 1; 0 for none"
        ),
    }
    PARAMETER_PORTS = {"endmembers": "endmembers_buf"}
    TRAINABLE_BUFFERS = ("endmembers_buf",)
    MOVING = "the residual still falls"
    endmembers_buf: Tensor
    _initialized: Tensor

    def __init__(
        self,
        n_components: int = 3,
        init: str = "nndsvda",
        beta_loss: str = "frobenius",
        max_iter: int = 300,
        random_state: int = 0,
        max_fit_pixels: int = SAMPLE,
        fit_seed: int = 0,
        max_passes: int = 10,
        tol: float = 1e-5,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            n_components=n_components,
            init=init,
            beta_loss=beta_loss,
            max_iter=max_iter,
            random_state=random_state,
            max_fit_pixels=max_fit_pixels,
            fit_seed=fit_seed,
            max_passes=max_passes,
            tol=tol,
        )
        for key, value in {"n_components": n_components, "max_iter": max_iter}.items():
            if value < 1:
                raise PipelineError(f"{key} {value} must be at least 1.")
        need_non_negative(max_fit_pixels=max_fit_pixels, max_passes=max_passes, tol=tol)
        if init not in _INITS:
            raise PipelineError(f"init {init!r} is not one of {', '.join(map(repr, _INITS))}.")
        if beta_loss != "frobenius":
            raise PipelineError(
                f"beta_loss {beta_loss!r} is not 'frobenius', which alone has exact abundances."
            )
        self.register_buffer("endmembers_buf", torch.zeros(0, 0))
        self.register_buffer("_initialized", torch.zeros(1, dtype=torch.bool))

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per endmember."""
        count, channels = int(self.hparams["n_components"]), axes["cube"].size
        if count > channels:
            raise PipelineError(
                f"{self.name}: n_components {count} is more than the {channels} channels that"
                " reach it, so abundances are not determined.",
                hint="Lower n_components.",
            )
        return {"abundances": ChannelAxis(count), "scores": ChannelAxis(1)}

    def _measure(self, place: _Place) -> AbundanceMeasure:
        return AbundanceMeasure(place.endmembers)

    def _step(self, statistic: AbundanceSums, place: _Place) -> tuple[_Place, bool]:
        endmembers, gain = self._next(statistic, place.endmembers)
        length = float(np.sqrt(statistic.squares / statistic.count))
        rests = gain <= max(float(self.hparams["tol"]), _ROUNDING) * statistic.squares
        return _Place(endmembers, length, max(statistic.residual - gain, 0.0)), rests

    def _settle(
        self,
        place: _Place,
        statistic: SpectraSample | AbundanceSums,  # noqa: ARG002
    ) -> None:
        known = {} if place.residual is None else {"residual": np.array(place.residual)}
        lengths = np.linalg.norm(place.endmembers, axis=1)
        scaled = place.endmembers * (place.length / lengths)[:, None]
        self.set_state(
            {"endmembers": scaled, **known}, endmembers_buf=scaled, _initialized=np.array([True])
        )

    def _start(self, sample: SpectraSample) -> _Place:
        """Endmembers of the sample."""
        count = int(self.hparams["n_components"])
        if len(sample.spectra) < count:
            raise DataError(
                f"{self.name}: {count} endmembers are asked for, but there are"
                f" {len(sample.spectra)} different spectra.",
                hint="Lower n_components, or select more pixels.",
            )
        spectra, weights = sample.spectra.astype(np.float64), sample.counts.astype(np.float64)
        random = np.random.default_rng(int(self.hparams["random_state"]))
        start = first_factors(spectra, weights, count, str(self.hparams["init"]), random)
        steps = int(self.hparams["max_iter"])
        endmembers, settled = non_negative_factors(spectra, weights, start, steps, _SAMPLE_TOL)
        if not settled:
            warnings.warn(
                f"{self.name}: the factors of the sample still move after {steps} steps; raise"
                " max_iter.",
                DataWarning,
                stacklevel=3,
            )
        self._need_different(endmembers)
        squares = np.average((spectra**2).sum(axis=1), weights=weights)
        return _Place(endmembers, float(np.sqrt(squares)))

    def _next(self, sums: AbundanceSums, old: Values) -> tuple[Values, float]:
        try:
            endmembers, gain = sums.endmembers(old)
        except np.linalg.LinAlgError:
            raise self._too_many() from None
        self._need_different(endmembers)
        return endmembers, gain

    def _need_different(self, endmembers: Values) -> None:
        if not np.any(endmembers, axis=1).all() or (
            smallest_direction(endmembers) < SMALLEST_DIRECTION
        ):
            raise self._too_many()

    def _too_many(self) -> DataError:
        return DataError(
            f"{self.name}: {self.hparams['n_components']} endmembers are more than the pixels tell"
            " apart: one is zero, or a mixture of others.",
            hint="Lower n_components.",
        )

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Unmix ``cube`` (B, y, x, C) into (B, y, x, K)."""
        self._need_fit()
        state = self.exact_state()
        held = self.endmembers_buf
        endmembers = held.detach().double().cpu().numpy() if state is None else state["endmembers"]
        if endmembers.shape[1] != cube.shape[-1]:
            raise PipelineError(
                f"{self.name}: endmembers have {endmembers.shape[1]} channels, its input"
                f" {cube.shape[-1]}.",
                hint="Give endmembers of the same channels.",
            )
        found = {**unmixed(self, cube, endmembers, _STEPS, _TOL, 0.0), "endmembers": held}
        if held.requires_grad:
            # Abundances are best for these endmembers, so to first order they stay as they are.
            left = cube - found["abundances"] @ held
            found["scores"] = torch.linalg.vector_norm(left, dim=-1, keepdim=True)
        return found
