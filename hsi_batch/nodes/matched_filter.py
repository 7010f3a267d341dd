"""Detectors of known spectra in a Gaussian background."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError
from hsi_batch.nodes.gaussian import background, whitening
from hsi_batch.nodes.node import Request, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.targets import TargetNode, Targets
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.packed import pack

__all__ = ["ACE", "CEM", "MatchedFilter"]

#: Pixels scored at once by ``forward``.
_GROUP = 65536


class _Whitened(TargetNode):
    """Mean and whitening factor of the background, from moments."""

    mu: Tensor
    cov: Tensor

    def __init__(
        self,
        targets: Targets | None = None,
        library: str | None = None,
        names: list[str] | None = None,
        wavelengths: list[float] | None = None,
        eps: float = 0.0,
        loading: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(targets, library, names, wavelengths, name, eps=eps, loading=loading)
        need_non_negative(eps=eps, loading=loading)
        self.eps = float(eps)
        self.loading = float(loading)
        self.register_buffer("mu", torch.zeros(0))
        self.register_buffer("cov", torch.zeros(0, 0))

    def request(self) -> Request:
        """Moments of the data."""
        return Request("data", "moments")

    def fit(self, statistic: Moments) -> None:
        """Take mean and covariance and factorise."""
        fitted = background(
            self._centred(statistic),
            eps=self.eps,
            loading=self.loading,
            axis=self.axes.get("data"),
            name=self.name,
        )
        away = (self.spectra() - fitted.mean) @ fitted.factor.T
        for index in np.flatnonzero(~np.any(away, axis=1)):
            raise DataError(
                f"{self.name}: target {index} is the mean of the background, so nothing tells them"
                " apart.",
                hint="Check that its values are in the units of the node's input.",
            )
        self.set_state(
            {
                **self._kept(),
                "count": np.array(fitted.count),
                "mean": fitted.mean,
                "covariance": fitted.covariance,
                "factor": fitted.factor,
                "rank": np.array(fitted.rank),
                "condition": np.array(fitted.condition),
            },
            mu=fitted.mean,
            cov=fitted.covariance,
        )

    def _centred(self, statistic: Moments) -> Moments:
        return statistic

    def _background(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and whitening factor."""
        self._need_fit()
        state = self.exact_state()
        if state is not None:
            return state["mean"], state["factor"]
        factor = whitening(np.asarray(self.cov.detach().double().cpu().numpy()))
        if factor is None:
            raise DataError(
                f"{self.name}: the covariance that was assigned is not positive definite.",
                hint="Assign another one, or fit the node.",
            )
        return np.asarray(self.mu.detach().double().cpu().numpy()), factor


class MatchedFilter(_Whitened):
    """How much of a known target is in a pixel, by the best linear filter.

    ``score_k(x) = (t_k - mu)^T S^-1 (x - mu) / ((t_k - mu)^T S^-1 (t_k - mu))`` with the mean and
    the sample covariance (n - 1) of the background and the ridge ``eps + loading trace(S) / C``: 0
    at the mean, 1 at the target, an estimate of the share of the pixel that it fills. It is affine,
    so scoring folds into what is in front. Manolakis and Shaw, IEEE Signal Processing Magazine 19
    (2002) 29-43.

    Parameters
    ----------
    targets : dict or list, optional
        Spectra by name, or in a list, in the units of the node's input.
    library : str, optional
        File with spectra instead; see :meth:`.SpectralLibrary.read`.
    names : list of str, optional
        Which of them; all by default.
    wavelengths : list of float, optional
        Nanometres of ``targets``.
    eps : float
        Absolute ridge.
    loading : float
        Ridge relative to the mean variance of the channels.

    Attributes
    ----------
    targets, mu, cov : torch.Tensor of float32, shapes (K, C), (C,), (C, C)
        Targets and background; ``cov`` includes the ridge.

    Examples
    --------
    >>> pixels = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    >>> node = MatchedFilter([[4.0, 0.0]])
    >>> node.fit(Moments.empty(2, "float32").update(pixels))
    >>> node(data=torch.tensor([[[[4.0, 0.0], [1.0, 7.0]]]]))["scores"].ravel()
    tensor([1.0000, 0.2500])
    """

    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, "n_targets"), "share of each target")
    }
    AFFINE = ("data", "scores")

    @property
    def mixes_channels(self) -> bool:
        """Every score sums all channels."""
        return True

    def affine(self) -> Affine:
        """The filters."""
        mean, factor = self._background()
        away = (self.spectra() - mean) @ factor.T
        filters = away @ factor / np.square(away).sum(axis=1, keepdims=True)
        return Affine(filters, -filters @ mean)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Filter ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, K)."""
        filters = self.affine()
        matrix = torch.from_numpy(np.ascontiguousarray(filters.matrix)).to(data.device)
        offset = torch.from_numpy(filters.offset).to(data.device)
        return {"scores": (data.double() @ matrix.T + offset).to(torch.float32)}


class CEM(MatchedFilter):
    """Constrained energy minimisation: the filter of least output that passes the target.

    ``score_k(x) = t_k^T R^-1 x / (t_k^T R^-1 t_k)`` with ``R`` the mean of ``x x^T`` over the
    pixels of the fit, about zero, and the ridge ``eps + loading trace(R) / C``: 1 at the target, 0
    at zero. Harsanyi, PhD thesis, University of Maryland (1993); Farrand and Harsanyi, Remote
    Sensing of Environment 59 (1997) 64-76.

    Parameters
    ----------
    targets, library, names, wavelengths, eps, loading
        As in :class:`MatchedFilter`.

    Attributes
    ----------
    targets, mu, cov : torch.Tensor of float32, shapes (K, C), (C,), (C, C)
        ``mu`` is zero, ``cov`` is ``R`` with the ridge.

    Examples
    --------
    >>> pixels = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    >>> node = CEM([[2.0, 0.0]])
    >>> node.fit(Moments.empty(2, "float32").update(pixels))
    >>> node(data=torch.tensor([[[[2.0, 0.0], [1.0, 7.0]]]]))["scores"].ravel()
    tensor([1.0000, 0.5000])
    """

    def _centred(self, statistic: Moments) -> Moments:
        # Moments with mean zero whose covariance, divided by n - 1, is R.
        count, mean = statistic.count, statistic.mean
        products = statistic.covariance(ddof=0) + np.outer(mean, mean)
        return FloatMoments(count, np.zeros_like(mean), pack(products) * (count - 1))


class ACE(_Whitened):
    """Adaptive coherence: the squared cosine between pixel and target in the whitened space.

    ``score_k(x) = ((t_k - mu)^T S^-1 (x - mu))^2 / (|t_k - mu|^2_S |x - mu|^2_S)`` with
    ``|v|^2_S = v^T S^-1 v``: from 0 to 1, whatever the brightness of the pixel; 0 at the mean.
    Kraut, Scharf and Butler, IEEE Trans. Signal Processing 53 (2005) 427-438.

    Parameters
    ----------
    targets, library, names, wavelengths, eps, loading
        As in :class:`MatchedFilter`.
    signed : bool
        Give the score the sign of the cosine, so that what is opposite to the target scores low.

    Attributes
    ----------
    targets, mu, cov : torch.Tensor of float32, shapes (K, C), (C,), (C, C)
        As in :class:`MatchedFilter`.

    Examples
    --------
    >>> pixels = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    >>> node = ACE([[3.0, 0.0]])
    >>> node.fit(Moments.empty(2, "float32").update(pixels))
    >>> node(data=torch.tensor([[[[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]]]]))["scores"].ravel()
    tensor([1.0000, 0.5000, 0.0000])
    """

    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, "n_targets"), "coherence with each target")
    }

    def __init__(
        self,
        targets: Targets | None = None,
        library: str | None = None,
        names: list[str] | None = None,
        wavelengths: list[float] | None = None,
        eps: float = 0.0,
        loading: float = 0.0,
        signed: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(targets, library, names, wavelengths, eps, loading, name)
        self.hparams["signed"] = signed
        self.signed = bool(signed)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, K)."""
        mean, factor = self._background()
        away = (self.spectra() - mean) @ factor.T
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        centre, white, unit = (
            torch.from_numpy(np.ascontiguousarray(a)).to(data.device) for a in (mean, factor, away)
        )
        flat = data.reshape(-1, data.shape[-1])
        scores = []
        for group in torch.split(flat, _GROUP):
            whitened = (group.double() - centre) @ white.T
            along = whitened @ unit.T
            length = whitened.square().sum(dim=1, keepdim=True)
            squared = torch.where(length == 0, 0.0, along.square() / length).clamp(max=1.0)
            scores.append(torch.sign(along) * squared if self.signed else squared)
        shape = (*data.shape[:-1], len(away))
        return {"scores": torch.cat(scores).to(torch.float32).reshape(shape)}
