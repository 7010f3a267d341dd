"""What a reader is: metadata without pixels, then frames by index, lines by range.

A format is a :class:`Reader`. Opening a file with it gives a :class:`Source`, whose ``info`` needs
no pixels; ``source.frame(i)`` gives a :class:`Frame`, and ``frame.read(start, stop)`` its lines.
Other packages add formats through the entry-point group ``hsi_batch.readers``; each entry is a
:class:`Reader` instance or a class without constructor arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError

__all__ = [
    "Access",
    "Frame",
    "FrameInfo",
    "Quantity",
    "Reader",
    "Source",
    "SourceInfo",
    "refuse_mode",
]

Quantity = Literal["dn", "reflectance", "radiance"]
#: What can be fetched on its own: any range of lines, lines of a frame in order, or whole frames.
Access = Literal["lines", "sequential", "frame"]


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a recording before any pixel is read.

    Attributes
    ----------
    path : str
        The file that names the recording (for ENVI the header).
    files : tuple of str
        Every file whose size and modification time decide whether the recording changed.
    pixels : str
        The file that holds the pixels; its SHA-256 identifies the recording.
    frames : int
        Number of cubes.
    shape : tuple of int
        ``(y, x, channel)`` of the frames. A frame that differs is an error of that frame.
    dtype : numpy.dtype
        Native byte order; integers are never widened.
    wavelength, fwhm : numpy.ndarray of float64, shape (channel,), optional
        Nanometres. None if the file does not say, or says it in units that are not known.
    good_band : numpy.ndarray of bool, shape (channel,), optional
        False for channels that the file marks as bad.
    quantity : {"dn", "reflectance", "radiance"}, optional
        What the numbers are; None if the file does not say.
    units : str, optional
        Of the physical values, as the file states them; "1" for reflectance.
    scale, offset : float
        Physical value = stored value * scale + offset.
    nodata, saturation : float, optional
        Stored value that means "no data", and the one from which a detector is saturated.
    geography : mapping, optional
        ``transform`` and ``crs``, see :class:`hsi_batch.readers.geography.Geography`.
    sensor, mode : str, optional
        Camera name or serial, and the SDK's processing mode.
    access : {"lines", "sequential", "frame"}
        What can be fetched without reading the rest.
    reader, reader_version : str
        Which code read it.
    metadata : mapping
        The original metadata, JSON types only, verbatim where possible.
    notes : tuple of str
        What the recording says of its values that is not applied, as sentences; a conversion warns
        of it.
    """

    path: str
    files: tuple[str, ...]
    pixels: str
    frames: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    wavelength: NDArray[np.float64] | None = None
    fwhm: NDArray[np.float64] | None = None
    good_band: NDArray[np.bool_] | None = None
    quantity: Quantity | None = None
    units: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    saturation: float | None = None
    geography: Mapping[str, Any] | None = None
    sensor: str | None = None
    mode: str | None = None
    access: Access = "lines"
    reader: str = ""
    reader_version: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def frame_nbytes(self) -> int:
        """Bytes of one frame as stored in memory."""
        y, x, channel = self.shape
        return y * x * channel * self.dtype.itemsize


@dataclass(frozen=True)
class FrameInfo:
    """What one frame says of itself; each entry None if the source does not record it.

    Attributes
    ----------
    time_ms : int, optional
        Capture time, milliseconds since 1970-01-01 UTC.
    frame_id : int, optional
        The recording's own number of the frame (gaps in it are dropped frames).
    integration_time_ms : float, optional
        Exposure in milliseconds.
    """

    time_ms: int | None = None
    frame_id: int | None = None
    integration_time_ms: float | None = None


@runtime_checkable
class Frame(Protocol):
    """One cube of a source, read by lines.

    With access ``"lines"`` any range may be asked for in any order; with ``"sequential"`` the
    ranges must not go back; with ``"frame"`` the whole cube is in memory once the frame is open.
    """

    info: FrameInfo

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Lines ``start:stop`` as a new C-contiguous ``(lines, x, channel)`` array."""
        ...


class Source(Protocol):
    """An opened recording; a context manager."""

    info: SourceInfo

    def frame(self, index: int) -> Frame:
        """Open a frame; :class:`~hsi_batch.errors.SourceError` names path and frame if it fails."""
        ...

    def close(self) -> None:
        """Release files and handles."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Reader(Protocol):
    """A file format.

    Attributes
    ----------
    name : str
        Short name, used in provenance and as ``reader`` of :class:`SourceInfo`.
    suffixes : tuple of str
        Lower-case suffixes of the files that name a recording, with the dot.
    """

    name: str
    suffixes: tuple[str, ...]

    def skip_reason(self, path: str) -> str | None:
        """Why a file with the right suffix is not a recording, or None if it is one.

        White references, spectral libraries and classifications are none. Must not read pixels.
        """
        ...

    def open(self, path: str, *, mode: str | None = None) -> Source:
        """Open a recording.

        Parameters
        ----------
        path : str
            A file with one of ``suffixes``.
        mode : str, optional
            Processing mode of the vendor's SDK, such as ``"Reflectance"``. A reader whose format
            has no modes raises :class:`~hsi_batch.errors.ConfigError` if it is given.

        Raises
        ------
        hsi_batch.errors.SourceError
            Unreadable, truncated, empty, or not what its suffix says.
        """
        ...


def refuse_mode(path: str, mode: str | None, kind: str) -> None:
    """Raise :class:`~hsi_batch.errors.ConfigError` if a mode is given for a format without."""
    if mode is not None:
        raise ConfigError(
            f"{kind} files have no processing modes; {mode!r} was asked for.",
            path=path,
            hint="Leave the mode out for this source.",
        )
