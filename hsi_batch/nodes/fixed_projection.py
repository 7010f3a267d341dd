"""A projection that was made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.files import read_npz
from hsi_batch.nodes.axis import ChannelAxis
from hsi_batch.nodes.node import Node, Request, Scope, need_non_negative
from hsi_batch.nodes.ports import PortSpec
from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.extrema import Extrema

__all__ = ["FixedPCAProjection"]

_IN = {"data": PortSpec(torch.float32, (-1, -1, -1, -1), "cube")}
_OUT = {"projected": PortSpec(torch.float32, (-1, -1, -1, -1), "projection")}


class _Projection(Node):
    """An affine map in float64, then a limit."""

    INPUT_SPECS = _IN
    OUTPUT_SPECS = _OUT

    def __init__(self, affine: Affine, *, clamp: bool, name: str) -> None:
        super().__init__(name)
        self._map = affine
        self._clamp = clamp

        if not clamp:
            self.AFFINE = ("data", "projected")  # type: ignore[misc]

    @property
    def scope(self) -> Scope:
        """A pixel at a time."""
        return Scope.PIXEL

    def affine(self) -> Affine:
        """The map, where nothing limits it."""
        return super().affine() if self.AFFINE is None else self._map

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Map ``data`` (B, y, x, C)."""
        flat = self._map(data.detach().reshape(-1, data.shape[-1]).cpu().numpy())
        if self._clamp:
            flat = np.clip(flat, 0.0, 1.0)
        found = torch.from_numpy(flat).to(torch.float32).reshape(*data.shape[:-1], -1)
        return {"projected": found.to(data.device)}


class FixedPCAProjection(Node):
    """Project on components from a file: ``((x - mean) comps^T - lo) / (hi - lo)``.

    The file is a ``.npz`` with ``mean`` (C), ``comps`` (K, C), ``lo`` (K), ``hi`` (K) and, if it
    has them, the ratios ``explained`` (K). They are kept in the weights, so that the file is needed
    only once. Where ``hi`` equals ``lo`` nothing is divided. Float64, rounded once. Without
    ``clamp01`` and ``input_global_minmax`` the node is affine: fits behind it read nothing of
    their own; with ``input_global_minmax`` alone it is so within each frame.

    Parameters
    ----------
    projection_path : str
        The file.
    scale_to_unit : bool
        Apply ``lo`` and ``hi``.
    clamp01 : bool
        Limit the result to [0, 1].
    input_global_minmax : bool
        Scale every frame to [0, 1] first, by its smallest and largest value over all channels.
    num_channels, n_components : int, optional
        Kept for pipelines that name them; the file counts.
    whiten : bool
        Divide by ``sqrt(explained + eps)`` before ``lo`` and ``hi``.
    init_method : str
        Kept for pipelines that name it.
    eps : float
        See ``whiten``.

    Examples
    --------
    >>> FixedPCAProjection("bands.npz", input_global_minmax=False).hparams["projection_path"]
    'bands.npz'
    """

    INPUT_SPECS = _IN
    OUTPUT_SPECS = _OUT
    TRAINABLE_BUFFERS = ("_components",)
    _mean: Tensor
    _components: Tensor
    _explained_variance: Tensor
    _lo: Tensor
    _hi: Tensor

    def __init__(
        self,
        projection_path: str,
        scale_to_unit: bool = True,
        clamp01: bool = True,
        input_global_minmax: bool = True,
        num_channels: int | None = None,
        n_components: int | None = None,
        whiten: bool = False,
        init_method: str = "svd",
        eps: float = 1e-6,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            projection_path=str(projection_path),
            scale_to_unit=scale_to_unit,
            clamp01=clamp01,
            input_global_minmax=input_global_minmax,
            num_channels=num_channels,
            n_components=n_components,
            whiten=whiten,
            init_method=init_method,
            eps=eps,
        )
        need_non_negative(eps=eps)
        self.projection_path = str(projection_path)
        self.scale_to_unit = bool(scale_to_unit)
        self.clamp01 = bool(clamp01)
        self.input_global_minmax = bool(input_global_minmax)
        self.whiten = bool(whiten)
        self.eps = float(eps)
        if not (self.clamp01 or self.input_global_minmax):
            self.AFFINE = ("data", "projected")  # type: ignore[misc]
        self.register_buffer("_mean", torch.zeros(0))
        self.register_buffer("_explained_variance", torch.zeros(0))
        self.register_buffer("_components", torch.zeros(0, 0))
        self.register_buffer("_lo", torch.zeros(0))
        self.register_buffer("_hi", torch.zeros(0))
        # A worker has the weights, and may not have the file; who has neither is told in use.
        if Path(self.projection_path).exists():
            self._take(_read(self.projection_path))

    def _take(self, found: dict[str, NDArray[np.float64]]) -> None:
        self.set_state(
            found,
            _mean=found["mean"],
            _components=found["comps"],
            _explained_variance=found["explained"],
            _lo=found["lo"],
            _hi=found["hi"],
        )

    @property
    def scope(self) -> Scope:
        """A frame with ``input_global_minmax``, else a pixel."""
        return Scope.FRAME if self.input_global_minmax else Scope.PIXEL

    def request(self) -> Request | None:
        """Extrema of the frame with ``input_global_minmax``."""
        return Request("data", "extrema") if self.input_global_minmax else None

    def channel_axis(self, axes: Mapping[str, ChannelAxis]) -> dict[str, ChannelAxis]:
        """One channel per component, without wavelengths."""
        components, channels = self._parameter("comps").shape
        if channels != axes["data"].size:
            raise PipelineError(
                f"{self.name}: the projection {self.projection_path} takes {channels} channels,"
                f" {axes['data'].size} reach it.",
                hint="Project recordings of the same sensor, or resample them before.",
            )
        return {"projected": ChannelAxis(components)}

    def _parameter(self, key: str) -> NDArray[np.float64]:
        if not self._components.numel():
            raise PipelineError(
                f"{self.name}: there is no file {self.projection_path}, and no weights were"
                " loaded.",
                hint="Set projection_path to a .npz with mean, comps, lo and hi.",
            )
        state = self.exact_state()
        if state is not None:
            return state[key]
        buffers = {"mean": self._mean, "comps": self._components, "lo": self._lo, "hi": self._hi}
        tensor = buffers.get(key, self._explained_variance)
        return np.asarray(tensor.detach().double().cpu().numpy())

    def _map(self) -> Affine:
        matrix, mean = self._parameter("comps"), self._parameter("mean")
        if self.whiten:
            matrix = matrix / np.sqrt(self._parameter("explained") + self.eps)[:, None]
        projection = Affine(matrix, -matrix @ mean)
        if not self.scale_to_unit:
            return projection
        low = self._parameter("lo")
        span = self._parameter("hi") - low
        span = np.where(span == 0, 1.0, span)
        return Affine.scaling(1.0 / span, -low / span).after(projection)

    @property
    def mixes_channels(self) -> bool:
        """A component is made of all channels."""
        return True

    def affine(self) -> Affine:
        """The projection, where nothing limits it and frames are not scaled."""
        return super().affine() if self.AFFINE is None else self._map()

    def frame_fit(self, statistic: Extrema) -> Node:
        """The projection for the range of this frame."""
        return self._ranged(float(statistic.minimum.min()), float(statistic.maximum.max()))

    def _ranged(self, low: float, high: float) -> _Projection:
        projection = self._map()
        scale = 1.0 / max(high - low, 1e-6)
        size = projection.inputs
        ranged = Affine.scaling(np.full(size, scale), np.full(size, -low * scale))
        return _Projection(projection.after(ranged), clamp=self.clamp01, name=self.name)

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Project each image of ``data`` (B, y, x, C)."""
        if not self.input_global_minmax:
            return _Projection(self._map(), clamp=self.clamp01, name=self.name).forward(data)
        images = []
        for image in data:
            pixels = image.detach().reshape(-1, image.shape[-1])
            pixels = pixels[torch.isfinite(pixels).all(dim=-1)]
            low, high = (float(pixels.min()), float(pixels.max())) if len(pixels) else (0.0, 1.0)
            images.append(self._ranged(low, high).forward(image[None])["projected"])
        return {"projected": torch.cat(images)}


def _read(path: str) -> dict[str, NDArray[np.float64]]:
    try:
        arrays = read_npz(path)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"projection_path {path} is not a .npz file ({error}).",
            hint="Save it with numpy.savez.",
        ) from None
    missing = [key for key in ("mean", "comps", "lo", "hi") if key not in arrays]
    if missing:
        raise PipelineError(
            f"projection_path {path} lacks {', '.join(missing)}; it has"
            f" {', '.join(sorted(arrays)) or 'nothing'}.",
            hint="Save it with these names.",
        )
    try:
        found = {key: np.asarray(value, dtype=np.float64) for key, value in arrays.items()}
    except ValueError as error:
        raise PipelineError(
            f"projection_path {path} holds no numbers: {error}.", hint="Save arrays of numbers."
        ) from None
    comps = found["comps"]
    fits = comps.ndim == 2 and found["mean"].shape == comps.shape[1:]
    if not fits or any(found[key].shape != comps.shape[:1] for key in ("lo", "hi")):
        shapes = ", ".join(f"{key} {found[key].shape}" for key in ("mean", "comps", "lo", "hi"))
        raise PipelineError(
            f"projection_path {path} holds {shapes}; expected mean (C,), comps (K, C), lo and hi"
            " (K,)."
        )
    explained = found.get("explained")
    if explained is None or explained.shape != comps.shape[:1]:
        explained = np.zeros(len(comps))
    keys = ("mean", "comps", "lo", "hi")
    return {**{key: found[key] for key in keys}, "explained": explained}
