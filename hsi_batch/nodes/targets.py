"""What detectors of known spectra share: where the spectra come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Scope
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.nodes.spectral_library import SpectralLibrary

__all__ = ["TargetNode", "Targets"]

Targets = dict[str, list[float]] | list[list[float]]


class TargetNode(Node):
    """Base of nodes that look for known spectra.

    A library is read when the channels of the data are known and interpolated to their wavelengths;
    from then on the spectra travel with the weights, so workers need no file.

    Attributes
    ----------
    targets : torch.Tensor of float32, shape (K, C)
        The spectra, undesired ones last; a tensor that is assigned is used instead.
    """

    INPUT_SPECS = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
    PATH_ARGUMENTS: ClassVar[tuple[str, ...]] = ("library",)
    targets: Tensor
    #: What the spectra of a library are, if it says it: ``reflectance``, ``radiance``.
    target_quantity: str | None = None

    def __init__(
        self,
        targets: Targets | None,
        library: str | None,
        names: list[str] | None,
        wavelengths: list[float] | None,
        name: str | None,
        undesired: list[str] | None = None,
        **hparams: Any,
    ) -> None:
        own = {
            "targets": _plain(targets),
            "library": library,
            "names": names,
            "wavelengths": wavelengths,
        }
        super().__init__(name, **own, **hparams)
        self._library = library
        self._names = names
        self._undesired = list(undesired or ())
        if (targets is None) == (library is None):
            raise PipelineError("targets or library must be given, and not both.")
        self._given = None
        if targets is not None:
            self._given = self._picked(SpectralLibrary.of(targets, wavelengths))
        elif wavelengths is not None:
            raise PipelineError("wavelengths belong to targets; a library holds its own.")
        self.register_buffer("targets", torch.zeros(0, 0))

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    @property
    def n_targets(self) -> int | None:
        """Number of spectra that are looked for, if it is known yet."""
        if self._given is not None:
            return len(self._given.names) - len(self._undesired)
        if len(self.targets):
            return len(self.targets) - len(self._undesired)
        return None if self._names is None else len(self._names)

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per target; reads the library if that has not been done."""
        axis = axes["data"]
        grid = np.zeros(0) if axis.wavelength is None else axis.wavelength
        state = self.exact_state()
        known = self.targets.shape[1] == axis.size and (
            state is None or np.array_equal(state["grid"], grid)
        )
        if not known:
            spectra = self._read().on(axis).spectra
            self.targets = torch.from_numpy(spectra).to(torch.float32)
            self.mark_fitted(False)
            self.restore_state({"targets": spectra, "grid": grid})
        return {"scores": ChannelAxis(len(self.targets) - len(self._undesired))}

    def _picked(self, library: SpectralLibrary) -> SpectralLibrary:
        """Those that are looked for, then the undesired ones."""
        wanted = self._names
        if wanted is None:
            wanted = [name for name in library.names if name not in self._undesired]
        return library.pick([*wanted, *self._undesired])

    def _read(self) -> SpectralLibrary:
        try:
            if self._given is not None:
                return self._given
            assert self._library is not None
            library = SpectralLibrary.read(self._library)
            self.target_quantity = library.quantity
            return self._picked(library)
        except PipelineError as error:
            raise PipelineError(f"{self.name}: {error.message}", hint=error.hint) from None

    def spectra(self) -> NDArray[np.float64]:
        """The targets in float64, ``(K, C)``."""
        if not self.targets.numel() and self._given is not None:
            return self._given.spectra
        state = self.exact_state()
        if state is not None:
            return state["targets"]
        return np.asarray(self.targets.detach().double().cpu().numpy())

    def _kept(self) -> dict[str, NDArray[Any]]:
        """The part of the state that a fit must keep."""
        state = self.exact_state()
        grid = np.zeros(0) if state is None else state["grid"]
        return {"targets": self.spectra(), "grid": grid}


def _plain(targets: Targets | None) -> Targets | None:
    """As YAML knows it, also where arrays were given."""
    if isinstance(targets, dict):
        return {str(name): np.asarray(values).tolist() for name, values in targets.items()}
    return None if targets is None else [np.asarray(values).tolist() for values in targets]
