"""Vegetation indices that correct for soil and air."""

from __future__ import annotations

import torch
from torch import Tensor

from hsi_batch.nodes.spectral_index import SpectralIndex

__all__ = ["EVI2Selector", "EVISelector", "MSAVISelector", "SAVISelector"]


class EVISelector(SpectralIndex):
    """Enhanced vegetation index: ``2.5 (nir - red) / (nir + 6 red - 7.5 blue + 1)``.

    For reflectances between 0 and 1.

    Source: A. Huete et al., Remote Sensing of Environment 83 (2002) 195-213.

    Parameters
    ----------
    blue_nm, red_nm, nir_nm : float
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
    >>> nm = np.array([460, 660, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.2, 0.5]]]])
    >>> round(EVISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.3846
    """

    STRATEGY = "evi"

    def __init__(
        self,
        blue_nm: float = 460.0,
        red_nm: float = 660.0,
        nir_nm: float = 800.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            blue_nm=blue_nm,
            red_nm=red_nm,
            nir_nm=nir_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )

    def index(self, *bands: Tensor) -> Tensor:
        """The index of blue, red, nir."""
        blue, red, nir = bands
        return 2.5 * (nir - red) / self._guarded(nir + 6.0 * red - 7.5 * blue + 1.0)


class EVI2Selector(SpectralIndex):
    """Enhanced vegetation index without blue: ``2.5 (nir - red) / (nir + 2.4 red + 1)``.

    For reflectances between 0 and 1.

    Source: Z. Jiang et al., Remote Sensing of Environment 112 (2008) 3833-3845.

    Parameters
    ----------
    red_nm, nir_nm : float
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
    >>> nm = np.array([660, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(EVI2Selector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.5747
    """

    STRATEGY = "evi2"

    def __init__(
        self,
        red_nm: float = 660.0,
        nir_nm: float = 800.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            red_nm=red_nm,
            nir_nm=nir_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )

    def index(self, *bands: Tensor) -> Tensor:
        """The index of red, nir."""
        red, nir = bands
        return 2.5 * (nir - red) / self._guarded(nir + 2.4 * red + 1.0)


class SAVISelector(SpectralIndex):
    """Soil adjusted vegetation index: ``(1 + L) (nir - red) / (nir + red + L)``.

    For reflectances between 0 and 1.

    Source: A. Huete, Remote Sensing of Environment 25 (1988) 295-309.

    Parameters
    ----------
    red_nm, nir_nm : float
        The nearest channels are taken, nm.
    soil_factor : float
        L, the brightness of the soil.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        Denominators no larger than this in magnitude count as this.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([660, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(SAVISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.5455
    """

    STRATEGY = "savi"

    def __init__(
        self,
        red_nm: float = 660.0,
        nir_nm: float = 800.0,
        soil_factor: float = 0.5,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            red_nm=red_nm,
            nir_nm=nir_nm,
            others={"soil_factor": soil_factor},
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )
        self.soil_factor = float(soil_factor)

    def index(self, *bands: Tensor) -> Tensor:
        """The index of red, nir."""
        red, nir = bands
        soil = self.soil_factor
        return (1.0 + soil) * (nir - red) / self._guarded(nir + red + soil)


class MSAVISelector(SpectralIndex):
    """Modified soil adjusted vegetation index.

    ``n - sqrt(n^2 - 2 (nir - red))`` with ``n = nir + 1/2``.

    A negative radicand counts as 0. For reflectances between 0 and 1.

    Source: J. Qi et al., Remote Sensing of Environment 48 (1994) 119-126.

    Parameters
    ----------
    red_nm, nir_nm : float
        The nearest channels are taken, nm.
    colormap_min, colormap_max : float
        Index at both ends of the colours.
    eps : float
        Kept for pipelines that name it; there is no denominator.
    band_tolerance_nm : float
        Distance of a channel that is warned about, nm; 0 for none.

    Examples
    --------
    >>> import numpy as np
    >>> nm = np.array([660, 800], dtype=np.int32)
    >>> cube = torch.tensor([[[[0.1, 0.5]]]])
    >>> round(MSAVISelector()(cube=cube, wavelengths=nm)["index_image"].item(), 4)
    0.5528
    """

    STRATEGY = "msavi"

    def __init__(
        self,
        red_nm: float = 660.0,
        nir_nm: float = 800.0,
        colormap_min: float = -1.0,
        colormap_max: float = 1.0,
        eps: float = 1e-6,
        band_tolerance_nm: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name,
            red_nm=red_nm,
            nir_nm=nir_nm,
            colormap_min=colormap_min,
            colormap_max=colormap_max,
            eps=eps,
            band_tolerance_nm=band_tolerance_nm,
        )

    def index(self, *bands: Tensor) -> Tensor:
        """The index of red, nir."""
        red, nir = bands
        term = 2.0 * nir + 1.0
        root = torch.sqrt(torch.clamp(term**2 - 8.0 * (nir - red), min=0.0))
        return 0.5 * (term - root)
