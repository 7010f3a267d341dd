"""Normalised differences of two channels."""

from __future__ import annotations

import torch
from torch import Tensor

from hsi_batch.nodes.spectral_index import SpectralIndex

__all__ = ["GNDVISelector", "NBRSelector", "NDRESelector", "NDVISelector", "NDWISelector"]


class _Difference(SpectralIndex):
    """``(a - b) / (a + b)``; 0 where the sum is no larger than ``eps`` in magnitude."""

    def index(self, *bands: Tensor) -> Tensor:
        """The normalised difference of two channels."""
        first, second = bands
        total = first + second
        small = total.abs() <= self.eps
        return torch.where(small, 0.0, (first - second) / torch.where(small, 1.0, total))


class NDVISelector(_Difference):
    """Normalised difference vegetation index: ``(nir - red) / (nir + red)``.

    Source: J. W. Rouse et al., Monitoring vegetation systems in the Great Plains with ERTS, NASA
    SP-351 (1974) 309-317.

    Parameters
    ----------
    nir_nm, red_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        The index is 0 where the sum is no larger than this in magnitude.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([668, 827], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(NDVISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.6667
    """

    STRATEGY = "ndvi"

    def __init__(
        self,
        nir_nm: float = 827.0,
        red_nm: float = 668.0,
        colormap_min: float = -0.7,
        colormap_max: float = 0.5,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            nir_nm=nir_nm,
            red_nm=red_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )


class NDWISelector(_Difference):
    """Normalised difference water index: ``(green - nir) / (green + nir)``.

    Source: S. K. McFeeters, Int. J. Remote Sensing 17 (1996) 1425-1432.

    Parameters
    ----------
    green_nm, nir_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        The index is 0 where the sum is no larger than this in magnitude.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([560, 860], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(NDWISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    -0.6667
    """

    STRATEGY = "ndwi"

    def __init__(
        self,
        green_nm: float = 560.0,
        nir_nm: float = 860.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            green_nm=green_nm,
            nir_nm=nir_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )


class NBRSelector(_Difference):
    """Normalised burn ratio: ``(nir - swir) / (nir + swir)``.

    Source: C. H. Key, N. C. Benson, Landscape Assessment, USDA RMRS-GTR-164 (2006).

    Parameters
    ----------
    nir_nm, swir_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        The index is 0 where the sum is no larger than this in magnitude.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([850, 2200], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(NBRSelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    -0.6667
    """

    STRATEGY = "nbr"

    def __init__(
        self,
        nir_nm: float = 850.0,
        swir_nm: float = 2200.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            nir_nm=nir_nm,
            swir_nm=swir_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )


class GNDVISelector(_Difference):
    """Green normalised difference vegetation index: ``(nir - green) / (nir + green)``.

    Source: A. A. Gitelson et al., Remote Sensing of Environment 58 (1996) 289-298.

    Parameters
    ----------
    nir_nm, green_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        The index is 0 where the sum is no larger than this in magnitude.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([550, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(GNDVISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.6667
    """

    STRATEGY = "gndvi"

    def __init__(
        self,
        nir_nm: float = 800.0,
        green_nm: float = 550.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            nir_nm=nir_nm,
            green_nm=green_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )


class NDRESelector(_Difference):
    """Normalised difference red edge: ``(nir - red_edge) / (nir + red_edge)``.

    Source: E. M. Barnes et al., Proc. 5th Int. Conf. Precision Agriculture (2000).

    Parameters
    ----------
    nir_nm, red_edge_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        The index is 0 where the sum is no larger than this in magnitude.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([720, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(NDRESelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.6667
    """

    STRATEGY = "ndre"

    def __init__(
        self,
        nir_nm: float = 800.0,
        red_edge_nm: float = 720.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            nir_nm=nir_nm,
            red_edge_nm=red_edge_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )
