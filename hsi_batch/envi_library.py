"""ENVI spectral libraries (``.sli`` and its header)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.envi_fields import read_fields
from hsi_batch.readers.envi_header import dtype_of, quantity_of, scaling_of
from hsi_batch.readers.units import to_nanometres

__all__ = ["EnviLibrary", "read_envi_library"]


class EnviLibrary(NamedTuple):
    """Spectra in physical values.

    Attributes
    ----------
    names : list of str
    spectra : numpy.ndarray of float64, shape (K, C)
    wavelength : numpy.ndarray of float64, shape (C,), optional
        Nanometres.
    quantity : str, optional
        What the values are, if the header says it.
    """

    names: list[str]
    spectra: NDArray[np.float64]
    wavelength: NDArray[np.float64] | None
    quantity: str | None


def read_envi_library(path: Path) -> EnviLibrary:
    """Read a library by its data file or its header.

    Raises
    ------
    hsi_batch.errors.SourceError
        No header or no data, not a library, sizes that disagree, or wavelengths in units that are
        not known.
    """
    header, data = _pair(path)
    fields = read_fields(str(header))
    if "library" not in (fields.text("file type") or "").casefold():
        raise fields.error(
            f"the file type is {fields.text('file type')!r}; expected 'ENVI Spectral Library'.",
            "file type",
            hint="Give a spectral library, or save the spectra as .csv.",
        )
    count, channels = fields.integer("lines", least=1), fields.integer("samples", least=1)
    dtype = dtype_of(fields)
    offset = fields.integer("header offset", default=0)
    expected = offset + count * channels * dtype.itemsize
    if data.stat().st_size != expected:
        raise SourceError(
            f"it has {data.stat().st_size:,} bytes; {expected:,} were expected ({count} spectra of"
            f" {channels} values of {dtype.name}).",
            path=str(data),
            hint="Copy the library again, or correct its header.",
        )
    stored = np.fromfile(data, dtype, offset=offset).reshape(count, channels).astype(np.float64)
    scale, zero, reflectance = scaling_of(fields, 1)
    wavelength = fields.numbers("wavelength", channels)
    if wavelength is not None:
        known = to_nanometres(wavelength, None, fields.text("wavelength units"))
        if known is None:
            raise fields.error(
                f"the wavelengths are in {fields.text('wavelength units') or 'no units'!r}, which"
                " is not known.",
                "wavelength units",
                hint="Add 'wavelength units = Nanometers' (or Micrometers, ...) to the header.",
            )
        wavelength = known[0]
    named = fields.values.get("spectra names")
    names = [str(name) for name in named] if isinstance(named, list) else []
    if len(names) != count or len(set(names)) < count:
        names = [f"{names[i] if len(names) == count else 'spectrum'} {i}" for i in range(count)]
    quantity, _ = quantity_of(fields, reflectance=reflectance)
    return EnviLibrary(names, stored * scale + zero, wavelength, quantity)


def _pair(path: Path) -> tuple[Path, Path]:
    if path.suffix.lower() == ".hdr":
        headers = [path]
        datas = [path.with_suffix(""), path.with_suffix(".sli"), path.with_suffix(".SLI")]
    else:
        headers = [path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")]
        datas = [path]
    header = next((p for p in headers if p.is_file()), None)
    data = next((p for p in datas if p.is_file()), None)
    if header is None or data is None:
        what = "header" if header is None else "data file (.sli)"
        raise SourceError(
            f"the {what} of the library was not found.",
            path=str(path),
            hint="Put both under the same name into one folder.",
        )
    return header, data
