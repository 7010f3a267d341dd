"""k-means over all pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.stepped import SAMPLE, SteppedNode
from hsi_batch.statistics.clusters import (
    ClusterMeasure,
    ClusterSums,
    nearest_centre,
    plus_plus,
)
from hsi_batch.statistics.sample import SpectraSample

__all__ = ["KMeansClusterer"]

Values = NDArray[np.float64]
#: Relative move of centres that is rounding.
_ROUNDING = 1e-12


class KMeansClusterer(SteppedNode):
    """Clusters of least squared distance, and how far each pixel is from the nearest centre.

    The first pass draws a sample of different spectra by their hashes, so that it depends on
    nothing but the data. Centres are found in the sample by k-means++ and Lloyd's algorithm, the
    best of ``n_init`` starts; then every pass is one exact step of Lloyd's algorithm over all
    pixels, until the centres rest or ``max_passes`` are through. Clusters are numbered by their
    first channel. A centre that loses all its pixels stays where it is.

    A connected ``mask`` restricts the fit, not what is labelled. cuvis-ai takes ``max_fit_pixels``
    random pixels of it.

    Source: S. P. Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28 (1982)
    129-137.

    Parameters
    ----------
    n_clusters : int
        Centres.
    init : {"k-means++", "random"}
        How starts are drawn from the sample.
    n_init : int
        Starts.
    max_iter : int
        Steps in the sample at most.
    random_state : int
        Seed of the starts.
    max_fit_pixels : int
        Different spectra of the sample at most; 0 for 20 000.
    fit_seed : int
        Seed of the sample.
    max_passes : int
        Steps over all pixels at most; 0 to keep the centres of the sample.
    tol : float
        Centres rest when the sum of their squared moves is no larger than this times the mean
        variance of the channels of the sample.

    Attributes
    ----------
    centroids : torch.Tensor of float32, shape (K, C)
        Means of the clusters.

    Examples
    --------
    >>> pixels = np.array([[0, 0], [0, 2], [9, 9], [9, 7]], dtype=np.float32)
    >>> node = KMeansClusterer(2, max_passes=0)
    >>> node.fit(SpectraSample.of(pixels, 100))
    >>> node(cube=torch.from_numpy(pixels)[None, None])["class_mask"]
    tensor([[[0, 0, 1, 1]]], dtype=torch.int32)
    """

    INPUT_SPECS = {
        "cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube"),
        "mask": PortSpec(
            torch.int32, (-1, -1, -1), "fits count pixels above 0 alone", optional=True
        ),
    }
    FIT_INPUTS = frozenset({"mask"})
    OUTPUT_SPECS = {
        "class_mask": PortSpec(torch.int32, (-1, -1, -1), "cluster from 0; -1 where not finite"),
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "distance to the nearest centre"),
    }
    MOVING = "the centres still move"
    centroids: Tensor
    _initialized: Tensor

    def __init__(
        self,
        n_clusters: int = 8,
        init: Literal["k-means++", "random"] = "k-means++",
        n_init: int = 10,
        max_iter: int = 300,
        random_state: int = 0,
        max_fit_pixels: int = SAMPLE,
        fit_seed: int = 0,
        max_passes: int = 10,
        tol: float = 1e-4,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            n_clusters=n_clusters,
            init=init,
            n_init=n_init,
            max_iter=max_iter,
            random_state=random_state,
            max_fit_pixels=max_fit_pixels,
            fit_seed=fit_seed,
            max_passes=max_passes,
            tol=tol,
        )
        for key, value in {
            "n_clusters": n_clusters,
            "n_init": n_init,
            "max_iter": max_iter,
        }.items():
            if value < 1:
                raise PipelineError(f"{key} {value} must be at least 1.")
        need_non_negative(tol=tol, max_passes=max_passes, max_fit_pixels=max_fit_pixels)
        if init not in ("k-means++", "random"):
            raise PipelineError(f"init {init!r} is not 'k-means++' or 'random'.")
        self.register_buffer("centroids", torch.zeros(0, 0))
        self.register_buffer("_initialized", torch.zeros(1, dtype=torch.bool))

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """One distance."""
        return {"scores": ChannelAxis(1)}

    def _measure(self, place: tuple[Values, float]) -> ClusterMeasure:
        return ClusterMeasure(place[0])

    def _step(
        self, statistic: ClusterSums, place: tuple[Values, float]
    ) -> tuple[tuple[Values, float], bool]:
        old, rest = place
        centres = statistic.centres(old)
        return (centres, rest), float(((centres - old) ** 2).sum()) <= rest

    def _settle(self, place: tuple[Values, float], statistic: SpectraSample | ClusterSums) -> None:
        known = {}
        if isinstance(statistic, ClusterSums):
            known = {"counts": statistic.counts, "inertia": np.array(statistic.inertia)}
        self._keep(place[0], **known)

    def _keep(self, centres: Values, **known: NDArray[Any]) -> None:
        order = np.lexsort(centres.T[::-1])
        known = {k: v[order] if v.ndim else v for k, v in known.items()}
        self.set_state(
            {"centroids": centres[order], **known},
            centroids=centres[order],
            _initialized=np.array([True]),
        )

    def _start(self, sample: SpectraSample) -> tuple[Values, float]:
        """The best centres of the sample, and what moves of all count as rest."""
        clusters = int(self.hparams["n_clusters"])
        found = len(sample.spectra)
        if found < clusters:
            raise DataError(
                f"{self.name}: {clusters} clusters are asked for, but there are {found} different"
                " spectra.",
                hint="Lower n_clusters, or select more pixels.",
            )
        spectra, weights = sample.spectra.astype(np.float64), sample.counts.astype(np.float64)
        mean = np.average(spectra, axis=0, weights=weights)
        spread = float(np.average((spectra - mean) ** 2, axis=0, weights=weights).mean())
        random = np.random.default_rng(int(self.hparams["random_state"]))
        tries = []
        for _ in range(int(self.hparams["n_init"])):
            if self.hparams["init"] == "random":
                start = spectra[random.choice(found, clusters, replace=False)]
            else:
                start = plus_plus(spectra, weights, clusters, random)
            tries.append(self._lloyd(spectra, weights, start, float(self.hparams["tol"]) * spread))
        centres = min(tries, key=lambda each: each[1])[0]
        # Centres are sums about the old ones: their last bits never come to rest.
        least = centres.size * (_ROUNDING * float(np.abs(centres).max())) ** 2
        return centres, max(float(self.hparams["tol"]) * spread, least)

    def _lloyd(
        self, spectra: Values, weights: Values, centres: Values, rest: float
    ) -> tuple[Values, float]:
        inertia = np.inf
        for _ in range(int(self.hparams["max_iter"])):
            index, squared = nearest_centre(spectra, centres)
            inertia = float(squared @ weights)
            total = np.bincount(index, weights=weights, minlength=len(centres))
            sums = np.zeros_like(centres)
            np.add.at(sums, index, (spectra - centres[index]) * weights[:, None])
            moved = sums / np.where(total > 0, total, 1.0)[:, None]
            centres = centres + moved
            if float((moved**2).sum()) <= rest:
                break
        return centres, inertia

    def forward(
        self,
        cube: Tensor,
        mask: Tensor | None = None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Label ``cube`` (B, y, x, C), within the mask and outside of it."""
        self._need_fit()
        state = self.exact_state()
        centres = (
            self.centroids.detach().double().cpu().numpy() if state is None else state["centroids"]
        )
        pixels = cube.detach().cpu().numpy().reshape(-1, cube.shape[-1])
        finite = np.isfinite(pixels).all(axis=1)
        index, squared = nearest_centre(np.where(finite[:, None], pixels, 0.0), centres)
        labels = np.where(finite, index, -1).astype(np.int32).reshape(cube.shape[:-1])
        distance = np.where(finite, np.sqrt(squared), np.nan).astype(np.float32)
        return {
            "class_mask": torch.from_numpy(labels).to(cube.device),
            "scores": torch.from_numpy(distance.reshape(*cube.shape[:-1], 1)).to(cube.device),
        }
