"""A mixture of Gaussians over all pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.kmeans import KMeansClusterer
from hsi_batch.nodes.node import need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.stepped import SAMPLE, SteppedNode
from hsi_batch.statistics.clusters import nearest_centre
from hsi_batch.statistics.mixtures import Mixture, MixtureMeasure, MixtureSums
from hsi_batch.statistics.sample import SpectraSample

__all__ = ["GaussianMixtureClusterer"]

Values = NDArray[np.float64]
#: Pixels that are scored at once.
_GROUP = 4096


class GaussianMixtureClusterer(SteppedNode):
    """Components of a mixture of Gaussians, and how likely each pixel is under it.

    ``p(x) = sum_k w_k N(x; mean_k, cov_k)``. The first pass draws a sample of different spectra by
    their hashes, as :class:`.KMeansClusterer` does; in it, expectation maximisation starts from the
    clusters of k-means, the best of ``n_init`` starts. Then every pass is one exact step over all
    pixels, until the mean log-likelihood rests or ``max_passes`` are through. Components are
    numbered by the first channel of their means.

    A connected ``mask`` restricts the fit, not what is labelled. cuvis-ai takes ``max_fit_pixels``
    random pixels of it.

    Source: A. P. Dempster, N. M. Laird, D. B. Rubin, Maximum likelihood from incomplete data via
    the EM algorithm, J. Royal Statistical Society B 39 (1977) 1-38.

    Parameters
    ----------
    n_components : int
        Components.
    covariance_type : {"full"}
        Each component has a covariance of its own.
    reg_covar : float
        Added to all variances, in squared units of the input.
    max_iter : int
        Steps in the sample at most.
    n_init : int
        Starts.
    random_state : int
        Seed of the starts.
    max_fit_pixels : int
        Different spectra of the sample at most; 0 for 20 000.
    fit_seed : int
        Seed of the sample.
    max_passes : int
        Steps over all pixels at most; 0 to keep the mixture of the sample.
    tol : float
        The fit rests when a step changes the mean log-likelihood by less than this.

    Attributes
    ----------
    means : torch.Tensor of float32, shape (K, C)
        Means of the components.
    precisions_chol : torch.Tensor of float32, shape (K, C, C)
        Upper triangular ``F`` with ``F F^T`` the inverse of the covariance.
    weights : torch.Tensor of float32, shape (K,)
        Shares of the components.

    Examples
    --------
    >>> from hsi_batch.statistics.sample import SpectraSample
    >>> pixels = np.array([[0, 0], [0, 1], [1, 0], [9, 9], [9, 8], [8, 9]], dtype=np.float32)
    >>> node = GaussianMixtureClusterer(2, reg_covar=0.1, max_passes=0)
    >>> node.fit(SpectraSample.of(pixels, 100))
    >>> node(cube=torch.from_numpy(pixels)[None, None])["class_mask"]
    tensor([[[0, 0, 0, 1, 1, 1]]], dtype=torch.int32)
    """

    INPUT_SPECS = {
        "cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "mask": PortSpec(
            torch.int32, (-1, -1, -1), "fits count pixels above 0 alone", optional=True
        ),
    }
    FIT_INPUTS = frozenset({"mask"})
    OUTPUT_SPECS = {
        "class_mask": PortSpec(torch.int32, (-1, -1, -1), "component from 0; -1 if not finite"),
        "abundances": PortSpec(torch.float32, (-1, -1, -1, -1), "probability of each component"),
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "log-likelihood"),
    }
    MOVING = "the likelihood still moves"
    means: Tensor
    precisions_chol: Tensor
    weights: Tensor
    _initialized: Tensor

    def __init__(
        self,
        n_components: int = 3,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        random_state: int = 0,
        max_fit_pixels: int = SAMPLE,
        fit_seed: int = 0,
        max_passes: int = 10,
        tol: float = 1e-3,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            n_components=n_components,
            covariance_type=covariance_type,
            reg_covar=reg_covar,
            max_iter=max_iter,
            n_init=n_init,
            random_state=random_state,
            max_fit_pixels=max_fit_pixels,
            fit_seed=fit_seed,
            max_passes=max_passes,
            tol=tol,
        )
        counts = {"n_components": n_components, "max_iter": max_iter, "n_init": n_init}
        for key, value in counts.items():
            if value < 1:
                raise PipelineError(f"{key} {value} must be at least 1.")
        if covariance_type != "full":
            raise PipelineError(f"covariance_type {covariance_type!r} is not 'full'.")
        need_non_negative(
            reg_covar=reg_covar, tol=tol, max_passes=max_passes, max_fit_pixels=max_fit_pixels
        )
        self.register_buffer("means", torch.zeros(0, 0))
        self.register_buffer("precisions_chol", torch.zeros(0, 0, 0))
        self.register_buffer("weights", torch.zeros(0))
        self.register_buffer("_initialized", torch.zeros(1, dtype=torch.bool))

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """One probability per component, one likelihood."""
        return {
            "abundances": ChannelAxis(int(self.hparams["n_components"])),
            "scores": ChannelAxis(1),
        }

    def _measure(self, place: tuple[Mixture, float]) -> MixtureMeasure:
        return MixtureMeasure(place[0])

    def _step(
        self, statistic: MixtureSums, place: tuple[Mixture, float]
    ) -> tuple[tuple[Mixture, float], bool]:
        old, before = place
        likelihood = statistic.likelihood / statistic.count
        rests = abs(likelihood - before) < float(self.hparams["tol"])
        return (self._next(statistic, old), likelihood), rests

    def _settle(
        self,
        place: tuple[Mixture, float],
        statistic: SpectraSample | MixtureSums,  # noqa: ARG002
    ) -> None:
        self._keep(*place)

    def _next(self, sums: MixtureSums, old: Mixture) -> Mixture:
        try:
            return sums.mixture(old, float(self.hparams["reg_covar"]))
        except np.linalg.LinAlgError:
            raise DataError(
                f"{self.name}: the covariance of a component is singular.",
                hint="Raise reg_covar, which is in squared units of the input, or ask for fewer"
                " components.",
            ) from None

    def _start(self, sample: SpectraSample) -> tuple[Mixture, float]:
        """The best mixture of the sample; the likelihood of all pixels is not known yet."""
        seed = int(self.hparams["random_state"])
        tries = [self._try(sample, seed + i) for i in range(int(self.hparams["n_init"]))]
        return max(tries, key=lambda each: each[1])[0], -np.inf

    def _try(self, sample: SpectraSample, seed: int) -> tuple[Mixture, float]:
        count = int(self.hparams["n_components"])
        clusters = KMeansClusterer(count, n_init=1, random_state=seed, max_passes=0, name=self.name)
        clusters.fit(sample)
        spectra, weights = sample.spectra.astype(np.float64), sample.counts.astype(np.float64)
        mixture = self._of_clusters(spectra, weights, clusters.state["centroids"])
        before = -np.inf
        for _ in range(int(self.hparams["max_iter"])):
            sums = MixtureSums.of(spectra, mixture, weights)
            mixture = self._next(sums, mixture)
            likelihood = sums.likelihood / sums.count
            if abs(likelihood - before) < float(self.hparams["tol"]):
                break
            before = likelihood
        return mixture, likelihood

    def _of_clusters(self, spectra: Values, weights: Values, centres: Values) -> Mixture:
        """Each cluster as a component, its pixels wholly in it."""
        index, _ = nearest_centre(spectra, centres)
        totals = np.bincount(index, weights=weights, minlength=len(centres)).astype(np.float64)
        sums, squares = np.zeros_like(centres), np.zeros((*centres.shape, centres.shape[1]))
        for k, centre in enumerate(centres):
            apart, heavy = spectra[index == k] - centre, weights[index == k, None]
            sums[k] = (apart * heavy).sum(axis=0)
            squares[k] = apart.T @ (apart * heavy)
        unknown = Mixture(np.full(len(centres), np.nan), centres, squares)
        return self._next(MixtureSums(weights.sum(), 0.0, totals, sums, squares), unknown)

    def _keep(self, mixture: Mixture, likelihood: float) -> None:
        order = np.lexsort(mixture.means.T[::-1])
        buffers = {
            "means": mixture.means[order],
            "precisions_chol": mixture.factors[order],
            "weights": mixture.weights[order],
        }
        known = {} if np.isneginf(likelihood) else {"likelihood": np.array(likelihood)}
        self.set_state({**buffers, **known}, **buffers, _initialized=np.array([True]))

    def _mixture(self) -> Mixture:
        state = self.exact_state()
        if state is not None:
            return Mixture(state["weights"], state["means"], state["precisions_chol"])
        held = (self.weights, self.means, self.precisions_chol)
        return Mixture(*(each.detach().double().cpu().numpy() for each in held))

    def forward(
        self,
        cube: Tensor,
        mask: Tensor | None = None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Label ``cube`` (B, y, x, C), within the mask and outside of it."""
        self._need_fit()
        mixture = self._mixture()
        pixels = cube.detach().cpu().numpy().reshape(-1, cube.shape[-1])
        shares = np.full((len(pixels), len(mixture.weights)), np.nan)
        likelihood = np.full(len(pixels), np.nan)
        labels = np.full(len(pixels), -1, dtype=np.int32)
        finite = np.flatnonzero(np.isfinite(pixels).all(axis=1))
        for start in range(0, finite.size, _GROUP):
            chosen = finite[start : start + _GROUP]
            shares[chosen], likelihood[chosen] = mixture.shares(pixels[chosen])
            labels[chosen] = shares[chosen].argmax(axis=1)
        shape = tuple(cube.shape[:-1])
        outputs = {
            "class_mask": labels.reshape(shape),
            "abundances": shares.astype(np.float32).reshape(*shape, -1),
            "scores": likelihood.astype(np.float32).reshape(*shape, 1),
        }
        return {port: torch.from_numpy(value).to(cube.device) for port, value in outputs.items()}
