"""Metrics of what was fitted or trained: components of projections, weights of selectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.nodes.metrics import Context, MetricNode
from hsi_batch.nodes.node import need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.values import need_shapes

__all__ = [
    "ComponentOrthogonalityMetric",
    "ExplainedVarianceMetric",
    "ParameterMetric",
    "SelectorDiversityMetric",
    "SelectorEntropyMetric",
]

_WEIGHTS = PortSpec(torch.float32, (-1,), "weight per channel")


class ParameterMetric(MetricNode):
    """Base of the metrics of parameters: they give those of the last batch.

    All batches of a stage see the same parameters, so there is nothing to pool.
    """

    def reset(self) -> None:
        """Forget the last values."""
        self._values: dict[str, float] = {}

    def compute(self) -> dict[str, float]:
        """Values of the last batch."""
        return dict(self._values)


def _float64(parameter: Tensor) -> NDArray[np.float64]:
    return np.asarray(parameter.detach().cpu().to(torch.float64).numpy())


class ExplainedVarianceMetric(ParameterMetric):
    """Shares of the variance that the components of a PCA keep.

    ``explained_variance_pc1`` ... of each component, ``cumulative_variance_pc1`` ... of it and
    those before it, ``total_explained_variance`` of all.

    Examples
    --------
    >>> metric = ExplainedVarianceMetric()
    >>> _ = metric(explained_variance_ratio=torch.tensor([0.5, 0.25]))
    >>> metric.compute()["total_explained_variance"]
    0.75
    """

    INPUT_SPECS = {
        "explained_variance_ratio": PortSpec(torch.float32, (-1,), "share per component")
    }

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def forward(
        self, explained_variance_ratio: Tensor, context: Context | None = None
    ) -> dict[str, Any]:
        """Take ``explained_variance_ratio`` (K,)."""
        need_shapes(self, explained_variance_ratio=explained_variance_ratio)
        shares = _float64(explained_variance_ratio)
        each = {f"explained_variance_pc{i}": float(v) for i, v in enumerate(shares, 1)}
        upto = {f"cumulative_variance_pc{i}": float(v) for i, v in enumerate(shares.cumsum(), 1)}
        self._values = {**each, "total_explained_variance": float(shares.sum()), **upto}
        return self.so_far(context)


class ComponentOrthogonalityMetric(ParameterMetric):
    """How far components are from orthonormal, by ``G = W W^T``.

    ``orthogonality_error`` is ``|G - I|_F``, ``avg_off_diagonal`` the mean of ``|G - I|`` over all
    entries (also those on the diagonal, as cuvis-ai has it), ``diagonal_mean`` and
    ``diagonal_std`` (of a sample, from two components on) are of the squared norms.

    Examples
    --------
    >>> metric = ComponentOrthogonalityMetric()
    >>> _ = metric(components=torch.eye(2, 4))
    >>> metric.compute()["orthogonality_error"]
    0.0
    """

    INPUT_SPECS = {"components": PortSpec(torch.float32, (-1, -1), "components as rows")}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def forward(self, components: Tensor, context: Context | None = None) -> dict[str, Any]:
        """Take ``components`` (K, C)."""
        need_shapes(self, components=components)
        w = _float64(components)
        gram = w @ w.T
        away = gram - np.eye(len(gram))
        self._values = {
            "orthogonality_error": float(np.linalg.norm(away)),
            "avg_off_diagonal": float(np.abs(away).mean()),
            "diagonal_mean": float(gram.diagonal().mean()),
        }
        if len(gram) > 1:
            self._values["diagonal_std"] = float(gram.diagonal().std(ddof=1))
        return self.so_far(context)


class SelectorEntropyMetric(ParameterMetric):
    """Entropy of the weights of a selector in nats, ``selector/entropy``.

    ``-sum p log(p + eps)`` with ``p = w / (sum w + eps)``: 0 if one channel has all the weight, the
    logarithm of their number if they are equal.

    Parameters
    ----------
    eps : float
        Added to the sum and inside of the logarithm.

    Examples
    --------
    >>> metric = SelectorEntropyMetric(eps=0.0)
    >>> _ = metric(weights=torch.ones(4))
    >>> round(metric.compute()["selector/entropy"], 4)  # log 4
    1.3863
    """

    INPUT_SPECS = {"weights": _WEIGHTS}

    def __init__(self, eps: float = 1e-6, name: str | None = None) -> None:
        super().__init__(name, eps=eps)
        need_non_negative(eps=eps)
        self.eps = float(eps)

    def forward(self, weights: Tensor, context: Context | None = None) -> dict[str, Any]:
        """Take ``weights`` (C,)."""
        need_shapes(self, weights=weights)
        w = _float64(weights)
        total = float(w.sum()) + self.eps
        p = w / total if total else w
        # 0 log 0 is 0, also without eps.
        logarithms = np.log(np.where(p == 0, 1.0, p + self.eps))
        self._values = {"selector/entropy": float(-(p * logarithms).sum())}
        return self.so_far(context)


class SelectorDiversityMetric(ParameterMetric):
    """How evenly a selector weights channels.

    ``weight_variance`` is the population variance of the weights, ``gini_coefficient``
    ``2 sum_i i w_(i) / (n sum w) - (n + 1) / n`` over the ascending weights: 0 if they are equal
    (or all 0), ``1 - 1/n`` if one channel has all.

    Examples
    --------
    >>> metric = SelectorDiversityMetric()
    >>> _ = metric(weights=torch.tensor([0.0, 0.0, 0.0, 1.0]))
    >>> metric.compute()
    {'weight_variance': 0.1875, 'gini_coefficient': 0.75}
    """

    INPUT_SPECS = {"weights": _WEIGHTS}

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def forward(self, weights: Tensor, context: Context | None = None) -> dict[str, Any]:
        """Take ``weights`` (C,)."""
        need_shapes(self, weights=weights)
        w = np.sort(_float64(weights))
        count, total = w.size, float(w.sum())
        ranked = float(np.arange(1, count + 1) @ w)
        gini = 2.0 * ranked / (count * total) - (count + 1) / count if total else 0.0
        self._values = {"weight_variance": float(w.var()), "gini_coefficient": gini}
        return self.so_far(context)
