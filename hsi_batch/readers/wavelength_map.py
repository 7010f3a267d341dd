"""Wavelengths of every column of a line scanner, whose optics bend the spectrum (smile)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.files import read_npz
from hsi_batch.readers.envi import EnviSource
from hsi_batch.readers.protocol import SourceInfo

__all__ = ["read_wavelength_map"]

_HINT = (
    "Give a table with a row for each column of the recording and an entry for each band, in nm:"
    " .csv, .txt, .npy, .npz (one array), or an ENVI file of one line."
)
#: Spacings of channels by which a column may be away from what the recording states.
_FAR = 4.0


def read_wavelength_map(
    path: str, info: SourceInfo, columns: slice = slice(None)
) -> NDArray[np.float64]:
    """Wavelengths in nm, ``(x, channel)``.

    Parameters
    ----------
    path : str
    info : SourceInfo
        Of the recording; its width is that before it was cropped if ``columns`` is given.
    columns : slice
        Columns that are left of it.

    Raises
    ------
    hsi_batch.errors.SourceError
        It is of another size, or holds no wavelengths that are near those of the recording.
    """
    found = _values(path)[columns]
    width, channels = info.shape[1:]
    if found.shape != (width, channels):
        raise SourceError(
            f"it holds {' x '.join(map(str, found.shape))} values; the recording has {width}"
            f" columns x {channels} bands.",
            path=path,
            hint=_HINT,
        )
    if not (np.isfinite(found) & (found > 0)).all():
        raise SourceError("it holds values that are no wavelengths.", path=path, hint=_HINT)
    if info.wavelength is not None and channels > 1:
        apart = float(np.abs(found - info.wavelength).max())
        spacing = float(np.median(np.abs(np.diff(info.wavelength))))
        if apart > _FAR * spacing:
            raise SourceError(
                f"it is up to {apart:.3g} nm away from the wavelengths of the recording, whose"
                f" channels are {spacing:.3g} nm apart.",
                path=path,
                hint="Give the map of this camera, in nm.",
            )
    return found


def _values(path: str) -> NDArray[np.float64]:
    suffix = Path(path).suffix.lower()
    values: Any
    try:
        if suffix == ".hdr":
            with EnviSource(path) as source:
                values = source.frame(0).read(0, source.info.shape[0])
            values = values[0] if len(values) == 1 else values[..., 0]
        elif suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif suffix == ".npz":
            values = next(iter(read_npz(Path(path)).values()))
        else:
            first = Path(path).read_text(encoding="utf-8").lstrip().partition("\n")[0]
            comma = next((c for c in (",", ";") if c in first), None)
            values = np.loadtxt(path, delimiter=comma, ndmin=2)
        return np.asarray(values, dtype=np.float64)
    except (OSError, ValueError, StopIteration) as error:
        raise SourceError(f"it is no table of numbers: {error}.", path=path, hint=_HINT) from None
