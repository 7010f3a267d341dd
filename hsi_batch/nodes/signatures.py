"""Spectra of objects: one per frame, label or box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_batch.errors import PipelineError
from hsi_batch.nodes.node import Node, need_non_negative
from hsi_batch.nodes.ports import PortSpec

__all__ = [
    "BBoxSpectralExtractor",
    "MaskedMeanSpectrum",
    "SignaturesToReferences",
    "SpectralSignatureExtractor",
]

Values = NDArray[np.float64]
#: Shorter spectra have no direction.
_ZERO = 1e-8
_CUBE = PortSpec(torch.float32, (-1, -1, -1, -1), "cube")


def _trimmed(
    pixels: NDArray[Any],
    *,
    fewest: int,
    shortest: float,
    trim: float,
    centre: Callable[..., Any] = np.mean,
) -> tuple[Values, Values]:
    """Centre and deviation ``(C,)`` of ``(n, C)`` pixels, channel by channel.

    Pixels that are not finite or shorter than ``shortest`` are left out; of the rest
    ``floor(trim n)`` values are cut from both ends. With fewer than ``fewest`` both are 0.
    """
    values = pixels.astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    values = np.sort(values[np.linalg.norm(values, axis=1) >= shortest], axis=0)
    if len(values) < fewest:
        return np.zeros(pixels.shape[1]), np.zeros(pixels.shape[1])
    cut = int(len(values) * trim)
    kept = values[cut : len(values) - cut]
    return centre(kept, axis=0), kept.std(axis=0)


def _need_trim(trim_fraction: float, **counts: int) -> None:
    if not 0.0 <= trim_fraction < 0.5:
        raise PipelineError(f"trim_fraction {trim_fraction} must be at least 0 and below 0.5.")
    for name, value in counts.items():
        if value < 1:
            raise PipelineError(f"{name} {value} must be at least 1.")


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()


class MaskedMeanSpectrum(Node):
    """Mean spectrum of each frame over the pixels whose ``mask`` is above 0.

    Pixels with a channel that is not finite are left out. Without any, the spectrum is 0 and
    ``valid`` says so.

    Examples
    --------
    >>> cube = torch.tensor([[[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]]])
    >>> MaskedMeanSpectrum()(cube=cube, mask=torch.tensor([[[1, 2, 0]]]))["mean_spectrum"]
    tensor([[2., 4.]])
    """

    INPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.int32, (-1, -1, -1), "above 0 where the pixel counts"),
    }
    OUTPUT_SPECS = {
        "mean_spectrum": PortSpec(torch.float32, (-1, -1), "spectra (B, C)"),
        "valid": PortSpec(torch.int32, (-1,), "1 where the mask has pixels"),
    }

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)

    def forward(self, cube: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Mean of ``cube`` (B, y, x, C) over ``mask`` (B, y, x)."""
        counted = (mask > 0) & torch.isfinite(cube).all(dim=-1)
        counts = counted.sum(dim=(1, 2))
        sums = torch.where(counted[..., None], cube, 0.0).sum(dim=(1, 2), dtype=torch.float64)
        means = sums / torch.clamp(counts, min=1)[:, None]
        return {"mean_spectrum": means.to(torch.float32), "valid": (counts > 0).to(torch.int32)}


class SpectralSignatureExtractor(Node):
    """Trimmed mean spectrum of each object of a map of labels.

    Pixels that are not finite or shorter than ``zero_norm_threshold`` are left out; then, channel
    by channel, ``floor(trim_fraction n)`` values are cut from both ends, and mean and standard
    deviation (of the population) are those of the rest. An object of too few pixels has zeros.
    Frames come one at a time, since each has objects of its own.

    Parameters
    ----------
    trim_fraction : float
        Share of the values that is cut from each end, from 0 to below 0.5.
    min_mask_pixels : int
        Pixels that an object must have.
    zero_norm_threshold : float
        Shortest spectrum that counts, in units of the input.

    Examples
    --------
    >>> cube = torch.tensor([[[[1.0], [3.0], [9.0]]]])
    >>> SpectralSignatureExtractor(min_mask_pixels=1)(cube=cube, mask=torch.tensor([[[2, 2, 5]]]))[
    ...     "signatures"
    ... ].flatten()
    tensor([2., 9.])
    """

    INPUT_SPECS = {
        "cube": _CUBE,
        "mask": PortSpec(torch.int32, (1, -1, -1), "numbers of objects, 0 for none"),
        "object_ids": PortSpec(
            torch.int64, (1, -1), "objects that are wanted; all by default", optional=True
        ),
        "wavelengths": PortSpec(np.int32, (-1,), "not needed", optional=True),
    }
    OUTPUT_SPECS = {
        "signatures": PortSpec(torch.float32, (1, -1, -1), "spectra of objects (1, N, C)"),
        "signatures_std": PortSpec(
            torch.float32, (1, -1, -1), "deviations of the spectra of objects (1, N, C)"
        ),
    }

    def __init__(
        self,
        trim_fraction: float = 0.1,
        min_mask_pixels: int = 10,
        zero_norm_threshold: float = _ZERO,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            trim_fraction=trim_fraction,
            min_mask_pixels=min_mask_pixels,
            zero_norm_threshold=zero_norm_threshold,
        )
        _need_trim(trim_fraction, min_mask_pixels=min_mask_pixels)
        need_non_negative(zero_norm_threshold=zero_norm_threshold)
        self.trim = float(trim_fraction)
        self.fewest = int(min_mask_pixels)
        self.shortest = float(zero_norm_threshold)

    def forward(
        self,
        cube: Tensor,
        mask: Tensor,
        object_ids: Tensor | None = None,
        wavelengths: Any = None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Spectra of ``cube`` (1, y, x, C) by ``mask`` (1, y, x), in the order of the numbers."""
        if len(cube) != 1 or tuple(mask.shape) != tuple(cube.shape[:3]):
            raise PipelineError(
                f"{self.name} takes one frame at a time, with a mask of its size; found a cube"
                f" {tuple(cube.shape)} and a mask {tuple(mask.shape)}.",
                hint="Set batch_size to 1, and connect the mask of the frame.",
            )
        pixels, labels = _array(cube)[0], _array(mask)[0]
        wanted = np.unique(labels[labels != 0]) if object_ids is None else _array(object_ids)[0]
        found = np.zeros((2, 1, len(wanted), pixels.shape[-1]))
        for index, label in enumerate(wanted):
            found[:, 0, index] = _trimmed(
                pixels[labels == label], fewest=self.fewest, shortest=self.shortest, trim=self.trim
            )
        signatures, deviations = torch.from_numpy(found).to(cube.device, torch.float32)
        return {"signatures": signatures, "signatures_std": deviations}


class BBoxSpectralExtractor(Node):
    """Trimmed median (or mean) spectrum within the middle of each box.

    A box ``(x1, y1, x2, y2)`` is rounded, cut at the edges of the frame, and
    ``floor(w (1 - center_crop_scale) / 2)`` pixels are left out on each side, unless fewer than
    ``min_crop_pixels`` remained. Pixels count, and are trimmed, as in
    :class:`SpectralSignatureExtractor`. cuvis-ai takes the first frame of a batch alone, and of an
    even number of values the lower one of the middle for the median; here each frame counts, and
    the median is that of the textbooks.

    Parameters
    ----------
    center_crop_scale : float
        Share of the sides that is used, above 0 and at most 1.
    min_crop_pixels : int
        Pixels that a box must have.
    trim_fraction : float
        Share of the values that is cut from each end, from 0 to below 0.5.
    l2_normalize : bool
        Spectra of length 1; deviations stay in the units of the input.
    aggregation : {"median", "mean"}
        What is taken of the values of a channel.

    Examples
    --------
    >>> cube = torch.arange(16.0).reshape(1, 4, 4, 1)
    >>> node = BBoxSpectralExtractor(0.5, trim_fraction=0.0, l2_normalize=False)
    >>> node(cube=cube, bboxes=torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]))["spectral_signatures"]
    tensor([[[7.5000]]])
    """

    INPUT_SPECS = {
        "cube": _CUBE,
        "bboxes": PortSpec(torch.float32, (-1, -1, 4), "(B, N, 4), pixels"),
    }
    OUTPUT_SPECS = {
        "spectral_signatures": PortSpec(torch.float32, (-1, -1, -1), "spectra (B, N, C)"),
        "spectral_std": PortSpec(torch.float32, (-1, -1, -1), "deviations (B, N, C)"),
        "spectral_valid": PortSpec(torch.int32, (-1, -1), "1 where there is a spectrum"),
    }

    def __init__(
        self,
        center_crop_scale: float = 0.65,
        min_crop_pixels: int = 4,
        trim_fraction: float = 0.1,
        l2_normalize: bool = True,
        aggregation: Literal["median", "mean"] = "median",
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            center_crop_scale=center_crop_scale,
            min_crop_pixels=min_crop_pixels,
            trim_fraction=trim_fraction,
            l2_normalize=l2_normalize,
            aggregation=aggregation,
        )
        if not 0.0 < center_crop_scale <= 1.0:
            raise PipelineError(
                f"center_crop_scale {center_crop_scale} must be above 0 and at most 1."
            )
        _need_trim(trim_fraction, min_crop_pixels=min_crop_pixels)
        if aggregation not in ("median", "mean"):
            raise PipelineError(f"aggregation {aggregation!r} is not 'median' or 'mean'.")
        self.scale = float(center_crop_scale)
        self.fewest = int(min_crop_pixels)
        self.trim = float(trim_fraction)
        self.l2_normalize = bool(l2_normalize)
        self.centre = np.median if aggregation == "median" else np.mean

    def forward(self, cube: Tensor, bboxes: Tensor) -> dict[str, Tensor]:
        """Spectra of ``cube`` (B, y, x, C) in ``bboxes`` (B, N, 4)."""
        frames, boxes = _array(cube), np.rint(_array(bboxes)).astype(np.int64)
        spectra = np.zeros((*boxes.shape[:2], cube.shape[-1]))
        deviations = np.zeros_like(spectra)
        for at in np.ndindex(boxes.shape[:2]):
            frame = frames[at[0]]
            rows, columns = self._crop(boxes[at], *frame.shape[:2])
            spectra[at], deviations[at] = _trimmed(
                frame[rows, columns].reshape(-1, frame.shape[-1]),
                fewest=self.fewest,
                shortest=_ZERO,
                trim=self.trim,
                centre=self.centre,
            )
        length = np.linalg.norm(spectra, axis=-1, keepdims=True)
        valid = length[..., 0] >= _ZERO
        if self.l2_normalize:
            spectra = np.where(valid[..., None], spectra / np.maximum(length, _ZERO), spectra)
        outputs = {"spectral_signatures": spectra, "spectral_std": deviations}
        return {
            **{k: torch.from_numpy(v).to(cube.device, torch.float32) for k, v in outputs.items()},
            "spectral_valid": torch.from_numpy(valid.astype(np.int32)).to(cube.device),
        }

    def _crop(self, box: NDArray[np.int64], height: int, width: int) -> tuple[slice, slice]:
        low, high = np.clip(box.reshape(2, 2), 0, (width, height))
        margin = np.floor((high - low) * ((1.0 - self.scale) / 2.0)).astype(np.int64)
        inner = np.maximum(high - low - 2 * margin, 0)
        if inner.prod() >= self.fewest:
            low, high = low + margin, high - margin
        return slice(low[1], max(low[1], high[1])), slice(low[0], max(low[0], high[0]))


class SignaturesToReferences(Node):
    """Spectra of objects as references of :class:`.SpectralAngleMapper`, in their order.

    Parameters
    ----------
    normalize : {"unit_mean", "l2"}, optional
        Divide each by the size of its mean, or by its length; none by default. Spectra keep their
        direction, also those with a mean below 0, which cuvis-ai divides by ``1e-8``.

    Examples
    --------
    >>> node = SignaturesToReferences("unit_mean")
    >>> node(signatures=torch.tensor([[[1.0, 3.0]]]))["spectral_signature"]
    tensor([[[[0.5000, 1.5000]]]])
    """

    INPUT_SPECS = {
        "signatures": PortSpec(torch.float32, (1, -1, -1), "spectra of objects (1, N, C)")
    }
    OUTPUT_SPECS = {
        "spectral_signature": PortSpec(torch.float32, (-1, 1, 1, -1), "references (N, 1, 1, C)")
    }

    def __init__(
        self, normalize: Literal["unit_mean", "l2"] | None = None, name: str | None = None
    ) -> None:
        super().__init__(name, normalize=normalize)
        if normalize not in (None, "unit_mean", "l2"):
            raise PipelineError(f"normalize {normalize!r} is not 'unit_mean', 'l2' or null.")
        self.normalize = normalize

    def forward(self, signatures: Tensor) -> dict[str, Tensor]:
        """References from ``signatures`` (1, N, C)."""
        spectra = signatures[0].double()
        if self.normalize == "unit_mean":
            spectra = spectra / spectra.mean(dim=1, keepdim=True).abs().clamp(min=_ZERO)
        elif self.normalize == "l2":
            lengths = torch.linalg.vector_norm(spectra, dim=1, keepdim=True)
            spectra = spectra / lengths.clamp(min=_ZERO)
        return {"spectral_signature": spectra.to(torch.float32)[:, None, None]}
