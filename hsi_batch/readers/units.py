"""Units of the spectral axis, converted to nanometres; unknown units are never guessed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["to_nanometres"]

_LIGHT = 299_792_458.0  # speed of light, m/s

# Nanometres in one unit of length.
_LENGTH = {
    1e-1: ("angstrom", "angstroms", "\N{LATIN SMALL LETTER A WITH RING ABOVE}"),
    1.0: ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    1e3: ("um", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"),
    1e6: ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    1e7: ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    1e9: ("m", "meter", "meters", "metre", "metres"),
}
# Wavelength in nanometres = constant / value.
_RECIPROCAL = {
    1e7: ("1/cm", "cm-1", "cm^-1", "wavenumber", "wavenumbers"),
    _LIGHT * 1e9: ("hz", "hertz"),
    _LIGHT * 1e3: ("mhz", "megahertz"),
    _LIGHT: ("ghz", "gigahertz"),
    _LIGHT * 1e-3: ("thz", "terahertz"),
}
_FACTOR = {name: factor for factor, names in _LENGTH.items() for name in names}
_CONSTANT = {name: constant for constant, names in _RECIPROCAL.items() for name in names}


def to_nanometres(
    wavelength: NDArray[np.float64],
    fwhm: NDArray[np.float64] | None,
    units: str | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None] | None:
    """Convert channel centres and widths to nanometres.

    Parameters
    ----------
    wavelength : numpy.ndarray of float64, shape (channel,)
        Centres in ``units``, all greater than zero.
    fwhm : numpy.ndarray of float64, shape (channel,), optional
        Full widths at half maximum in the same units. Where the units are a frequency or a
        wavenumber ``k``, the width becomes ``wavelength * fwhm / k``, exact for narrow channels.
    units : str, optional
        As written in the file: ``Nanometers``, ``um``, ``1/cm``, ``GHz``, ...

    Returns
    -------
    tuple of (wavelength, fwhm) or None
        Nanometres, or None if the units are missing, ``Unknown``, ``Index`` or not known here.

    Examples
    --------
    >>> to_nanometres(np.array([0.4, 1.0]), None, "Micrometers")[0].tolist()
    [400.0, 1000.0]
    >>> to_nanometres(np.array([10000.0]), np.array([10.0]), "Wavenumber")
    (array([1000.]), array([1.]))
    >>> to_nanometres(np.array([1.0, 2.0]), None, "Index") is None
    True
    """
    name = "" if units is None else units.strip().casefold()
    # Case folding turns the micro sign into the Greek letter.
    name = name.replace("\N{GREEK SMALL LETTER MU}", "u")
    if name in _FACTOR:
        factor = _FACTOR[name]
        return wavelength * factor, None if fwhm is None else fwhm * factor
    if name in _CONSTANT:
        centre = _CONSTANT[name] / wavelength
        return centre, None if fwhm is None else centre * fwhm / wavelength
    return None
