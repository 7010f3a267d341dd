"""Indices of chlorophyll and of what protects it."""

from __future__ import annotations

from torch import Tensor

from hsi_batch.nodes.spectral_index import SpectralIndex

__all__ = ["CIRedEdgeSelector", "MCARISelector", "PRISelector"]


class CIRedEdgeSelector(SpectralIndex):
    """Red edge chlorophyll index: ``nir / red_edge - 1``.

    Source: A. A. Gitelson et al., J. Plant Physiology 160 (2003) 271-282.

    Parameters
    ----------
    red_edge_nm, nir_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        Denominators no larger than this in magnitude count as this.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> nm = np.array([720, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(CIRedEdgeSelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    4.0
    """

    STRATEGY = "ci_red_edge"

    def __init__(
        self,
        red_edge_nm: float = 720.0,
        nir_nm: float = 800.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            red_edge_nm=red_edge_nm,
            nir_nm=nir_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )

    def index(self, *bands: Tensor) -> Tensor:
        """The index of red edge, nir."""
        edge, nir = bands
        return nir / self._guarded(edge) - 1.0


class MCARISelector(SpectralIndex):
    """Modified chlorophyll absorption ratio index.

    ``((red_edge - red) - 0.2 (red_edge - green)) red_edge / red``.

    Source: C. S. T. Daughtry et al., Remote Sensing of Environment 74 (2000) 229-239.

    Parameters
    ----------
    green_nm, red_nm, red_edge_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        Denominators no larger than this in magnitude count as this.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> nm = np.array([550, 670, 700], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.2, 0.5]]]])
    >>> round(MCARISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.55
    """

    STRATEGY = "mcari"

    def __init__(
        self,
        green_nm: float = 550.0,
        red_nm: float = 670.0,
        red_edge_nm: float = 700.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            green_nm=green_nm,
            red_nm=red_nm,
            red_edge_nm=red_edge_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )

    def index(self, *bands: Tensor) -> Tensor:
        """The index of green, red, red edge."""
        green, red, edge = bands
        return ((edge - red) - 0.2 * (edge - green)) * (edge / self._guarded(red))


class PRISelector(SpectralIndex):
    """Photochemical reflectance index: ``(band1 - band2) / (band1 + band2)``.

    Source: J. A. Gamon et al., Remote Sensing of Environment 41 (1992) 35-44.

    Parameters
    ----------
    band1_nm, band2_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        Denominators no larger than this in magnitude count as this.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> nm = np.array([531, 570], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(PRISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    -0.6667
    """

    STRATEGY = "pri"

    def __init__(
        self,
        band1_nm: float = 531.0,
        band2_nm: float = 570.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            band1_nm=band1_nm,
            band2_nm=band2_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )

    def index(self, *bands: Tensor) -> Tensor:
        """The index of band1, band2."""
        first, second = bands
        return (first - second) / self._guarded(first + second)
