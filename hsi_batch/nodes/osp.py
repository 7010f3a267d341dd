"""Orthogonal subspace projection."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.gaussian import eigh
from hsi_batch.nodes.node import Request
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.targets import TargetNode, Targets
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.moments import Moments

__all__ = ["OSP"]

#: Smallest share of a target outside the undesired subspace that is more than rounding.
_LEAST = 1e-10


class OSP(TargetNode):
    """How much of a known target is in a pixel, after what is not wanted was projected out.

    ``score_k(x) = t_k^T P x / (t_k^T P t_k)`` with ``P = I - U U^+``, the projection on what is
    orthogonal to the undesired spectra ``U``: 1 at the target, 0 at any mixture of them. ``U`` are
    the ``undesired`` spectra, the other targets, and the leading ``background_components``
    eigenvectors of the mean of ``x x^T`` over the pixels of the fit, about zero, where no spectra
    of the background are known. Harsanyi and Chang, IEEE Trans. Geoscience and Remote Sensing 32
    (1994) 779-785.

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
    undesired : list of str, optional
        Those of the spectra that are not looked for; they give no score.
    background_components : int
        Eigenvectors of the data that are projected out.

    Attributes
    ----------
    targets : torch.Tensor of float32, shape (K, C)
        All spectra, the undesired ones last.
    background : torch.Tensor of float32, shape (background_components, C)
        The eigenvectors.

    Examples
    --------
    >>> node = OSP({"paint": [1.0, 0.0], "grass": [0.0, 1.0]}, undesired=["grass"])
    >>> node(data=torch.tensor([[[[1.0, 9.0], [0.5, 0.0]]]]))["scores"].ravel()
    tensor([1.0000, 0.5000])
    """

    OUTPUT_SPECS = {
        "scores": PortSpec(torch.float32, (-1, -1, -1, "n_targets"), "share of each target")
    }
    AFFINE = ("data", "scores")
    background: Tensor

    def __init__(
        self,
        targets: Targets | None = None,
        library: str | None = None,
        names: list[str] | None = None,
        wavelengths: list[float] | None = None,
        undesired: list[str] | None = None,
        background_components: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            targets,
            library,
            names,
            wavelengths,
            name,
            undesired,
            background_components=background_components,
        )
        if background_components < 0:
            raise PipelineError(
                f"background_components {background_components} must not be negative."
            )
        self.hparams["undesired"] = undesired
        self.background_components = int(background_components)
        self.register_buffer("background", torch.zeros(0, 0))

    @property
    def mixes_channels(self) -> bool:
        """Every score sums all channels."""
        return True

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per target; the targets must not be mixtures of what is projected out."""
        found = super().channel_axis(axes)
        if self.background_components == 0:
            try:
                self._filters(np.zeros((0, axes["data"].size)))
            except DataError as error:
                raise PipelineError(error.message, hint=error.hint) from None
        elif self.background_components >= axes["data"].size:
            raise PipelineError(
                f"{self.name}: background_components {self.background_components} leaves nothing of"
                f" {axes['data'].size} channels.",
                hint="Lower background_components.",
            )
        return found

    def request(self) -> Request | None:
        """Moments of the data, if eigenvectors are asked for."""
        return Request("data", "moments") if self.background_components else None

    def fit(self, statistic: Moments) -> None:
        """Take the leading eigenvectors."""
        mean = statistic.mean
        _, vectors = eigh(statistic.covariance(ddof=0) + np.outer(mean, mean))
        background = vectors[: self.background_components]
        self._filters(background)
        self.set_state({**self._kept(), "background": background}, background=background)

    def _filters(self, background: NDArray[np.float64]) -> NDArray[np.float64]:
        spectra = self.spectra()
        rows = []
        for k in range(len(spectra) - len(self._undesired)):
            others = np.concatenate([np.delete(spectra, k, axis=0), background])
            rest = _outside(spectra[k], others)
            share = float(rest @ spectra[k])
            if not share > _LEAST * float(spectra[k] @ spectra[k]):
                raise DataError(
                    f"{self.name}: target {k} is a mixture of what is projected out, so nothing of"
                    " it is left.",
                    hint="Name fewer undesired spectra, or lower `background_components`.",
                )
            rows.append(rest / share)
        return np.array(rows)

    def affine(self) -> Affine:
        """The projections."""
        self._need_fit()
        state = self.exact_state()
        if state is not None and "background" in state:
            background = state["background"]
        else:
            background = np.asarray(self.background.detach().double().cpu().numpy())
        filters = self._filters(background.reshape(-1, self.spectra().shape[1]))
        return Affine(filters, np.zeros(len(filters)))

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Project ``data`` (B, y, x, C) in float64, rounded to float32 (B, y, x, K)."""
        matrix = torch.from_numpy(self.affine().matrix).to(data.device)
        return {"scores": (data.double() @ matrix.T).to(torch.float32)}


def _outside(target: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of a spectrum that is orthogonal to others."""
    if not len(others):
        return target
    _, values, basis = np.linalg.svd(others, full_matrices=False)
    kept = basis[values > values[0] * max(others.shape) * np.finfo(np.float64).eps]
    # Twice is enough for orthogonality to the last bit.
    for _ in range(2):
        target = target - kept.T @ (kept @ target)
    return target
