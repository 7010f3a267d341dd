"""The Reed-Xiaoli detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.gaussian import (
    Background,
    background,
    single_thread,
    square_root,
    whitening,
)
from hsi_batch.nodes.node import Node, Quadratic, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.trained_background import TrainedBackground
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.fourth_powers import (
    FourthPowers,
    SquaredNorms,
    ledoit_wolf,
    oracle_approximating,
)
from hsi_batch.statistics.moments import Moments

__all__ = ["RXGlobal", "RXPerBatch"]

_SCORES = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1), "squared Mahalanobis distance")}
#: Pixels scored at once by ``forward``.
_GROUP = 65536
_BUFFERS = ("mu", "cov", "cov_inv")


class RXGlobal(Node):
    """Score pixels by their squared Mahalanobis distance from the background of the fit.

    ``score(x) = (x - mu)^T (S + r I)^-1 (x - mu)`` with the sample mean ``mu`` and the sample
    covariance ``S`` (n - 1) of all valid pixels, and the ridge
    ``r = eps + loading * trace(S) / C``. Over the pixels of the fit the mean score is
    ``C (n - 1) / n`` without ridge. Reed and Yu, IEEE TASSP 38 (1990).

    Parameters
    ----------
    num_channels : int, optional
        Channels of the input; taken from the data if not given.
    eps : float
        Absolute ridge. After scaling to [0, 1] the default 1e-6 is strong shrinkage: it changes
        the ranking of pixels. It is the default for compatibility; prefer ``eps=0``.
    cache_inverse : bool
        Kept for pipelines that name it; both values give the same scores here.
    loading : float
        Ridge relative to the mean variance of the channels.
    inverse : {"cholesky64", "pinv32"}
        Exact float64 factor, or the float32 pseudo-inverse with its cut-off as cuvis-ai has it,
        which drops the directions of small variance.
    shrinkage : {None, "ledoit-wolf", "oas"}
        Replace ``S``, divided by ``n`` then, by ``(1 - s) S + s trace(S) / C I`` with the share
        ``s`` that is best for any distribution (Ledoit and Wolf 2004; a pass over the pixels for
        their fourth powers), or for Gaussian pixels (Chen et al. 2010; no pass). For few pixels.

    Attributes
    ----------
    mu, cov, cov_inv : torch.Tensor of float32, shapes (C,), (C, C), (C, C)
        What cuvis-ai stores; ``cov`` includes the ridge. One that is assigned is used instead of
        what was fitted; of ``cov`` and ``cov_inv`` the one that was.
    sigma : torch.Tensor
        Another name of ``cov``.
    trained : TrainedBackground or None
        The parameters while the node is not frozen. ``mu``, ``cov`` and ``cov_inv`` follow them;
        assign to those before :meth:`unfreeze`.

    Examples
    --------
    >>> pixels = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    >>> node = RXGlobal(2, eps=0.0)
    >>> node.fit(Moments.empty(2, "float32").update(pixels))
    >>> node(data=torch.tensor([[[[0.0, 0.0], [2.0, 0.0]]]]))["scores"].ravel()
    tensor([0., 6.])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, "num_channels"), "cube")}
    OUTPUT_SPECS = _SCORES
    QUADRATIC = ("data", "scores")
    TRAINABLE_BUFFERS = _BUFFERS
    CHANNEL_ARGUMENT = "num_channels"
    mu: Tensor
    cov: Tensor
    cov_inv: Tensor

    def __init__(
        self,
        num_channels: int | None = None,
        eps: float = 1e-6,
        cache_inverse: bool = True,
        loading: float = 0.0,
        inverse: Literal["cholesky64", "pinv32"] = "cholesky64",
        shrinkage: Literal["ledoit-wolf", "oas"] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            num_channels=num_channels,
            eps=eps,
            cache_inverse=cache_inverse,
            loading=loading,
            inverse=inverse,
            shrinkage=shrinkage,
        )
        need_non_negative(eps=eps, loading=loading)
        if inverse not in ("cholesky64", "pinv32"):
            raise PipelineError(f"inverse {inverse!r} is not one of 'cholesky64', 'pinv32'.")
        if shrinkage not in (None, "ledoit-wolf", "oas"):
            raise PipelineError(f"shrinkage {shrinkage!r} is not one of 'ledoit-wolf', 'oas'.")
        self.num_channels = num_channels
        self.eps = float(eps)
        self.loading = float(loading)
        self.inverse = inverse
        self.shrinkage = shrinkage
        size = num_channels or 0
        self.register_buffer("mu", torch.zeros(size))
        self.register_buffer("cov", torch.zeros(size, size))
        self.register_buffer("cov_inv", torch.zeros(size, size))
        self.trained: TrainedBackground | None = None
        self._followed = ""

    def __getattr__(self, name: str) -> Any:
        if name in _BUFFERS and self.__dict__.get("_modules", {}).get("trained") is not None:
            self._follow()
        return super().__getattr__(name)

    @property
    def sigma(self) -> Tensor:
        """``cov``, under the name of the seed pages."""
        return self.cov

    @sigma.setter
    def sigma(self, value: Tensor) -> None:
        self.cov = value

    def request(self) -> Request:
        """Moments of the data."""
        return Request("data", "moments")

    def requests(self) -> tuple[Request, ...]:
        """Moments, and fourth powers for the shrinkage that needs them."""
        own = (self.request(),)
        return (*own, Request("data", FourthPowers())) if self.shrinkage == "ledoit-wolf" else own

    def fit(self, statistic: Moments, norms: SquaredNorms | None = None) -> None:
        """Take mean and covariance, shrink it if asked to, and factorise."""
        share = None
        if norms is not None:
            share = ledoit_wolf(statistic.covariance(ddof=0), statistic.count, norms.fourth)
        elif self.shrinkage == "oas":
            share = oracle_approximating(statistic.covariance(ddof=0), statistic.count)
        fitted = background(
            statistic,
            eps=self.eps,
            loading=self.loading,
            axis=self.axes.get("data"),
            name=self.name,
            shrinkage=share,
        )
        self._set(fitted, **({} if share is None else {"shrinkage": np.array(share)}))

    def _set(self, fitted: Background, **more: NDArray[Any]) -> None:
        if self.inverse == "pinv32":
            with single_thread():
                ridge = self.eps * torch.eye(len(fitted.mean))
                raw = torch.from_numpy(fitted.covariance - self.eps * np.eye(len(fitted.mean)))
                inverse = torch.linalg.pinv(raw.to(torch.float32) + ridge).double().numpy()
            factor = square_root(inverse)
        else:
            factor = fitted.factor
            with single_thread():
                exact = torch.from_numpy(factor)
                inverse = (exact.T @ exact).numpy()
        self.set_state(
            {
                "count": np.array(fitted.count),
                "mean": fitted.mean,
                "covariance": fitted.covariance,
                "factor": factor,
                "rank": np.array(fitted.rank),
                "condition": np.array(fitted.condition),
                **more,
            },
            mu=fitted.mean,
            cov=fitted.covariance,
            cov_inv=inverse,
        )
        self._begin()

    def foreign_notice(self) -> str | None:
        """What to tell who loads weights that cuvis-ai fitted: its inverse may leave out much."""
        size = len(self.mu)
        if self.inverse != "cholesky64" or not self.cov_inv.any():
            return None
        # trace(S^+ S) counts the directions, and is not led astray by their rounding to float32.
        kept = round(float((self.cov_inv.detach().double() * self.cov.detach().double()).sum()))
        if kept >= size or whitening(_double(self.cov)) is None:
            return None
        return (
            f"{self.name}: the inverse in these weights keeps {kept} of {size} directions, those of"
            " large variance; scores here use all. Set inverse: pinv32 to score as cuvis-ai does."
        )

    def quadratic(self) -> Quadratic:
        """``|factor (x - mean)|^2``."""
        self._need_fit()
        factor, mean = self._factor_and_mean()
        return Quadratic(factor, -factor @ mean)

    def _factor_and_mean(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assigned = self.assigned()
        mean = _double(self.mu) if "mu" in assigned else self.state["mean"]
        fresh = assigned & {"cov", "cov_inv"}
        return self._factor_of_buffers(fresh) if fresh else self.state["factor"], mean

    # -- training ----------------------------------------------------------------------------

    def unfreeze(self) -> None:
        """Let a gradient stage train mean and covariance; see :class:`.TrainedBackground`."""
        self._frozen = False
        if self.trained is None or self.assigned():
            self._begin()

    def freeze(self) -> None:
        """Undo :meth:`unfreeze`; values stay."""
        self._follow()
        self.trained = None
        self._frozen = True

    def mark_fitted(self, fitted: bool) -> None:
        """Say whether the buffers hold fitted values."""
        super().mark_fitted(fitted)
        self._begin()

    def restore_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take a float64 state that was saved together with the present buffers."""
        self.trained = None
        super().restore_state(state)
        self._begin()

    def _begin(self) -> None:
        """Start to train from what is fitted, if the node is not frozen."""
        self.trained = None
        if not self.frozen and self._fitted:
            self.trained = TrainedBackground(*self._factor_and_mean())
            self._followed = self.trained.digest()

    def _follow(self) -> None:
        """Bring buffers and state to what the parameters have become."""
        trained = self.trained
        if trained is None or self._followed == trained.digest():
            return
        # First, because what follows looks at the buffers.
        self._followed = trained.digest()
        now = trained.values()
        values = {"mean": now.mean, "covariance": now.covariance, "factor": now.factor}
        self.set_state(
            {**self.state, **values, "condition": np.array(now.condition)},
            mu=now.mean,
            cov=now.covariance,
            cov_inv=now.inverse,
        )

    def _save_to_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._follow()
        super()._save_to_state_dict(*arguments, **named)

    def _factor_of_buffers(self, assigned: set[str]) -> NDArray[np.float64]:
        # Without a state both count as assigned, as in files of cuvis-ai: each follows the other.
        if "cov" in assigned and self.inverse == "cholesky64":
            factor = whitening(_double(self.cov))
            if factor is not None:
                return factor
        if "cov_inv" in assigned and bool(self.cov_inv.any()):
            return square_root(_double(self.cov_inv))
        if self.inverse == "pinv32":
            with single_thread():
                return square_root(_double(torch.linalg.pinv(self.cov.detach())))
        raise DataError(
            f"{self.name}: the covariance that was assigned is not positive definite, and no"
            " inverse was assigned.",
            hint="Assign cov_inv too, or fit the node.",
        )

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, 1)."""
        flat = data.reshape(-1, data.shape[-1])
        if self.trained is not None and self.training and torch.is_grad_enabled():
            found = torch.cat([self.trained(group) for group in torch.split(flat, _GROUP)])
            return {"scores": found.to(torch.float32).reshape(*data.shape[:-1], 1)}
        form = self.quadratic()
        factor = torch.from_numpy(np.ascontiguousarray(form.factor)).to(data.device)
        offset = torch.from_numpy(form.offset).to(data.device)
        scores = [
            (group.double() @ factor.T + offset).square().sum(dim=-1)
            for group in torch.split(flat, _GROUP)
        ]
        return {"scores": torch.cat(scores).to(torch.float32).reshape(*data.shape[:-1], 1)}


class RXPerBatch(Node):
    """Score every frame against its own mean and covariance.

    As :class:`RXGlobal`, with the background of the one frame; nothing is fitted beforehand.

    Parameters
    ----------
    eps : float
        Absolute ridge.
    loading : float
        Ridge relative to the mean variance of the channels.

    Examples
    --------
    >>> data = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]]])
    >>> RXPerBatch(eps=0.0)(data=data)["scores"].ravel()
    tensor([1.5000, 1.5000, 1.5000, 1.5000])
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    OUTPUT_SPECS = _SCORES
    QUADRATIC = ("data", "scores")

    def __init__(self, eps: float = 1e-6, loading: float = 0.0, name: str | None = None) -> None:
        super().__init__(name, eps=eps, loading=loading)
        need_non_negative(eps=eps, loading=loading)
        self.eps = float(eps)
        self.loading = float(loading)

    @property
    def scope(self) -> Scope:
        """A frame at once."""
        return Scope.FRAME

    def request(self) -> Request:
        """Moments of the frame."""
        return Request("data", "moments")

    def frame_fit(self, statistic: Moments) -> Node:
        """The detector of this frame."""
        node = RXGlobal(statistic.channels, self.eps, loading=self.loading, name=self.name)
        node.axes = dict(self.axes)
        node.fit(statistic)
        return node

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Score each image of ``data`` (B, y, x, C) against its own pixels that are finite."""
        images = []
        for image in data:
            pixels = image.reshape(-1, image.shape[-1]).cpu().numpy()
            pixels = pixels[np.isfinite(pixels).all(axis=1)]
            moments = FloatMoments.zero(pixels.shape[1]).update(pixels)
            images.append(self.frame_fit(moments)(data=image[None])["scores"])
        return {"scores": torch.cat(images)}


def _double(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy())
