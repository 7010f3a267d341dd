"""The region that holds most pixels, by support vectors."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import ConfigError, DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.stepped import SAMPLE, sample_request
from hsi_batch.statistics.sample import SpectraSample

__all__ = ["OneClassSVMDetector"]

Values = NDArray[np.float64]
#: Numbers of a kernel matrix; 16 MiB.
_KERNEL = 2**21


class OneClassSVMDetector(Node):
    """How far inside the region that holds most pixels a pixel is; negative outside.

    ``s(x) = sum_i c_i exp(-gamma |x - v_i|^2) - offset`` over support vectors ``v``. One pass draws
    a sample of different spectra by their hashes, as :class:`.KMeansClusterer` does; each counts as
    often as it occurs. The region is found in it by libsvm, through scikit-learn (extra
    ``sklearn``), which scoring does not need. Coefficients are those of weights with mean 1, so
    that scores do not grow with the archive. Float64.

    Every pixel is compared with every support vector, at least ``nu`` times the sample: for speed
    lower ``nu`` or ``max_fit_pixels``, or put the node behind a projection.

    Source: B. Schölkopf et al., Estimating the support of a high-dimensional distribution, Neural
    Computation 13 (2001) 1443-1471; C.-C. Chang, C.-J. Lin, LIBSVM: a library for support vector
    machines, ACM Trans. Intelligent Systems and Technology 2 (2011) 27.

    Parameters
    ----------
    kernel : {"rbf"}
        Gaussian.
    nu : float
        Share of the pixels that may lie outside at most, and that are support vectors at least; in
        (0, 1].
    gamma : {"scale", "auto"} or float
        Of the kernel, per squared unit of the input: ``1 / (C var)`` with the variance over all
        values of the sample, ``1 / C``, or a number above 0.
    chunk_size : int
        Pixels that are compared at once at most; fewer where there are many support vectors.
    max_fit_pixels : int
        Different spectra of the sample at most; 0 for 20 000.
    fit_seed : int
        Seed of the sample.

    Attributes
    ----------
    support_vectors : torch.Tensor of float32, shape (V, C)
        Pixels that hold the boundary.
    dual_coef : torch.Tensor of float32, shape (V,)
        Their weights.
    gamma_buf, offset_buf : torch.Tensor of float32, shape (1,)
        Gamma and offset of the formula.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).normal(0.0, 1.0, (200, 2)).astype(np.float32)
    >>> node = OneClassSVMDetector(nu=0.1)
    >>> node.fit(SpectraSample.of(pixels, 1000))
    >>> node(cube=torch.tensor([[[[0.0, 0.0], [9.0, 9.0]]]]))["decisions"].flatten()
    tensor([False,  True])
    """

    INPUT_SPECS = {"cube": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, 1), "above 0 inside, below 0 outside"),
        "decisions": PortSpec(torch.bool, (-1, -1, -1, 1), "True outside"),
    }
    support_vectors: Tensor
    dual_coef: Tensor
    gamma_buf: Tensor
    offset_buf: Tensor
    _initialized: Tensor

    def __init__(
        self,
        kernel: Literal["rbf"] = "rbf",
        nu: float = 0.5,
        gamma: float | Literal["scale", "auto"] = "scale",
        chunk_size: int = 65536,
        max_fit_pixels: int = SAMPLE,
        fit_seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            kernel=kernel,
            nu=nu,
            gamma=gamma,
            chunk_size=chunk_size,
            max_fit_pixels=max_fit_pixels,
            fit_seed=fit_seed,
        )
        if kernel != "rbf":
            raise PipelineError(f"kernel {kernel!r} is not 'rbf'.")
        if not 0 < nu <= 1:
            raise PipelineError(f"nu {nu} must be above 0, and 1 at most.")
        if gamma not in ("scale", "auto") and not (
            isinstance(gamma, (int, float)) and 0 < gamma < np.inf
        ):
            raise PipelineError(f"gamma {gamma!r} is not 'scale', 'auto' or a number above 0.")
        if chunk_size < 1:
            raise PipelineError(f"chunk_size {chunk_size} must be at least 1.")
        need_non_negative(max_fit_pixels=max_fit_pixels)
        self.nu, self.gamma, self.chunk_size = float(nu), gamma, int(chunk_size)
        self.register_buffer("support_vectors", torch.zeros(0, 0))
        self.register_buffer("dual_coef", torch.zeros(0))
        self.register_buffer("gamma_buf", torch.zeros(0))
        self.register_buffer("offset_buf", torch.zeros(0))
        self.register_buffer("_initialized", torch.zeros(1, dtype=torch.bool))

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def begin_fit(self) -> None:
        """Say before any reading if scikit-learn is missing."""
        if find_spec("sklearn") is None:
            raise ConfigError(
                f"{self.name}: fitting a OneClassSVMDetector needs the package scikit-learn, which"
                " is not installed.",
                hint="Install it (pip install 'hsi-batch[sklearn]'), or load fitted weights.",
            )

    def request(self) -> Request:
        """A sample of the pixels."""
        return sample_request(self)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:  # noqa: ARG002
        """One score, one decision."""
        return {"scores": ChannelAxis(1), "decisions": ChannelAxis(1)}

    def fit(self, sample: SpectraSample) -> None:
        """Find the support vectors of a sample."""
        if len(sample.spectra) < 2:
            raise DataError(
                f"{self.name}: the pixels are all alike, or there are none.",
                hint="Select more pixels.",
            )
        self.begin_fit()
        from sklearn.svm import OneClassSVM

        spectra = sample.spectra.astype(np.float64)
        weights = sample.counts / sample.counts.mean()
        gamma = self._gamma(spectra, weights)
        model = OneClassSVM(kernel="rbf", nu=self.nu, gamma=gamma).fit(
            spectra, sample_weight=weights
        )
        state: dict[str, NDArray[Any]] = {
            "support_vectors": np.asarray(model.support_vectors_, dtype=np.float64),
            "dual_coef": np.asarray(model.dual_coef_, dtype=np.float64).ravel(),
            "gamma": np.array([gamma]),
            "offset": np.asarray(model.offset_, dtype=np.float64).reshape(1),
        }
        self.set_state(
            state,
            support_vectors=state["support_vectors"],
            dual_coef=state["dual_coef"],
            gamma_buf=state["gamma"],
            offset_buf=state["offset"],
            _initialized=np.array([True]),
        )

    def _gamma(self, spectra: Values, weights: Values) -> float:
        channels = spectra.shape[1]
        if self.gamma == "auto":
            return 1.0 / float(channels)
        if self.gamma != "scale":
            return float(self.gamma)
        mean = float(np.average(spectra, axis=0, weights=weights).mean())
        variance = float(np.average((spectra - mean) ** 2, axis=0, weights=weights).mean())
        return 1.0 / (float(channels) * variance)

    def _held(self) -> dict[str, Values]:
        state = self.exact_state()
        if state is not None:
            return dict(state)
        buffers = {
            "support_vectors": self.support_vectors,
            "dual_coef": self.dual_coef,
            "gamma": self.gamma_buf,
            "offset": self.offset_buf,
        }
        return {key: value.detach().double().cpu().numpy() for key, value in buffers.items()}

    def forward(self, cube: Tensor) -> dict[str, Tensor]:
        """Score ``cube`` (B, y, x, C)."""
        self._need_fit()
        held = self._held()
        vectors = held["support_vectors"]
        if vectors.shape[1] != cube.shape[-1]:
            raise PipelineError(
                f"{self.name}: support vectors have {vectors.shape[1]} channels, its input"
                f" {cube.shape[-1]}.",
                hint="Connect what it was fitted on, or fit again.",
            )
        pixels = cube.detach().double().cpu().numpy().reshape(-1, cube.shape[-1])
        scores = _decide(pixels, held, self.chunk_size).reshape(*cube.shape[:-1], 1)
        return {
            "scores": torch.from_numpy(scores.astype(np.float32)).to(cube.device),
            "decisions": torch.from_numpy(scores < 0).to(cube.device),
        }


def _decide(pixels: Values, held: Mapping[str, Values], chunk: int) -> Values:
    """Signed scores of ``(n, C)`` pixels; NaN where one is not finite."""
    vectors, coefficients = held["support_vectors"], held["dual_coef"]
    gamma, offset = float(held["gamma"][0]), float(held["offset"][0])
    # Around the middle of the vectors the products are small, so little is lost by cancellation.
    middle = vectors.mean(axis=0)
    v = vectors - middle
    lengths = np.einsum("vc,vc->v", v, v)
    step = max(1, min(chunk, _KERNEL // len(v)))
    scores = np.full(len(pixels), np.nan)
    finite = np.flatnonzero(np.isfinite(pixels).all(axis=1))
    for start in range(0, finite.size, step):
        chosen = finite[start : start + step]
        x = pixels[chosen] - middle
        squared = lengths + np.einsum("nc,nc->n", x, x)[:, None] - 2.0 * (x @ v.T)
        scores[chosen] = np.exp(-gamma * np.maximum(squared, 0.0)) @ coefficients - offset
    return scores
