"""xarray engines: recordings as lazy datasets, without converting them first.

``xr.open_dataset("lentils_000.cu3s", engine="cu3s")``, ``engine="envi_hsi"`` and
``engine="npz_hsi"`` give ``cube (frame, y, x, channel)``, read when it is used and no more of it
than is used. With ``chunks={}`` the chunks are whole lines of 8 to 16 MB, or whole frames where
the format delivers nothing less.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from hsi_batch.errors import ConfigError
from hsi_batch.readers.handles import SourceHandle
from hsi_batch.readers.protocol import SourceInfo

__all__ = ["Cu3sBackend", "EnviBackend", "LazyCube", "NpzBackend"]

_BLOCK = 16 << 20  # bytes
_DIMS = ("frame", "y", "x", "channel")


class LazyCube(BackendArray):
    """``(frame, y, x, channel)`` of a recording; indexing reads the lines it needs.

    Parameters
    ----------
    handle : SourceHandle
        The recording.
    info : SourceInfo
        What it says of itself.
    """

    def __init__(self, handle: SourceHandle, info: SourceInfo) -> None:
        self.handle = handle
        self.shape = (info.frames, *info.shape)
        self.dtype = info.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Outer indexing by whole numbers, slices and 1-d arrays."""
        single = tuple(axis for axis, k in enumerate(key) if not isinstance(k, slice | np.ndarray))
        frame_key, line_key, x_key, channel_key = (
            slice(int(k) % size, int(k) % size + 1) if axis in single else k
            for axis, (k, size) in enumerate(zip(key, self.shape, strict=True))
        )
        frames = np.arange(self.shape[0])[frame_key]
        lines = np.arange(self.shape[1])[line_key]
        whole = _count(x_key, self.shape[2]), _count(channel_key, self.shape[3])
        runs = list(self._runs(lines))
        if len(frames) == 1 and whole == self.shape[2:] and _ascending(x_key, channel_key, lines):
            # Neighbouring lines of one frame in full need no copy.
            return self._one_piece(int(frames[0]), lines).squeeze(single)
        out = np.empty((len(frames), len(lines), *whole), self.dtype)
        for i, frame in enumerate(frames):
            for places, start, stop in runs:
                read = self.handle.read(int(frame), start, stop)
                if len(places) != stop - start:  # some line more than once
                    read = read[lines[places] - start]
                out[i, _compact(places)] = read[:, x_key][:, :, channel_key]
        return out.squeeze(single)

    def _one_piece(self, frame: int, lines: NDArray[Any]) -> NDArray[Any]:
        start = int(lines[0]) if len(lines) else 0
        return self.handle.read(frame, start, start + len(lines))[None]

    def _runs(self, lines: NDArray[Any]) -> Iterator[tuple[NDArray[Any], int, int]]:
        """Stretches of neighbouring lines, at most a block each: places in ``lines``, start, stop.

        They ascend, whatever the order of ``lines``, so that sequential formats need not go back.
        """
        most = max(1, _BLOCK // (self.shape[2] * self.shape[3] * self.dtype.itemsize))
        order = np.argsort(lines, kind="stable")
        ordered = lines[order]
        first = 0
        while first < len(ordered):
            start = ordered[first]
            last = first
            while (
                last + 1 < len(ordered)
                and ordered[last + 1] <= ordered[last] + 1
                and ordered[last + 1] < start + most
            ):
                last += 1
            yield order[first : last + 1], int(start), int(ordered[last]) + 1
            first = last + 1


def _count(key: Any, size: int) -> int:
    return len(range(*key.indices(size))) if isinstance(key, slice) else len(key)


def _ascending(*keys: Any) -> bool:
    """Whether slices and arrays go up by one."""
    return all(
        key.step in (None, 1) if isinstance(key, slice) else bool((np.diff(key) == 1).all())
        for key in keys
    )


def _compact(places: NDArray[Any]) -> Any:
    """A slice in place of an array where both mean the same: it copies faster."""
    if len(places) and _ascending(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


class _Backend(BackendEntrypoint):
    """What the engines share."""

    suffix: ClassVar[str]

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the suffix is this engine's."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        return Path(filename_or_obj).suffix.lower() == self.suffix

    def _open(
        self, filename: Any, drop_variables: str | Iterable[str] | None, mode: str | None
    ) -> xr.Dataset:
        if not isinstance(filename, str | os.PathLike):
            raise ConfigError(
                f"the engine opens files by name; it was given a {type(filename).__name__}.",
                hint="Pass the path of the file.",
            )
        path = os.fspath(filename)
        if Path(path).suffix.lower() != self.suffix:
            raise ConfigError(
                f"the engine opens {self.suffix} files; this is {Path(path).suffix or 'none'!r}.",
                path=path,
                hint="Name the file that ends so (for ENVI the header), or another engine.",
            )
        handle = SourceHandle(path, mode)
        info = handle.info
        dataset = xr.Dataset(
            {"cube": _cube(handle, info)}, coords=_coordinates(info), attrs=_attributes(info)
        )
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        dataset = dataset.drop_vars([name for name in dropped if name in dataset.variables])
        dataset.set_close(handle.close)
        return dataset


class Cu3sBackend(_Backend):
    """Engine ``cu3s``: Cubert sessions, read through the vendor's SDK."""

    description = "Cubert .cu3s sessions through the Cuvis SDK (hsi_batch)"
    suffix = ".cu3s"

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mode: str | None = None,
    ) -> xr.Dataset:
        """Open a session.

        Parameters
        ----------
        filename_or_obj : str or path-like
            A ``.cu3s`` file.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        mode : str, optional
            Processing mode, such as ``"Reflectance"``; the cubes as stored if None.
        """
        return self._open(filename_or_obj, drop_variables, mode)


class EnviBackend(_Backend):
    """Engine ``envi_hsi``: ENVI cubes, named by their header.

    Examples
    --------
    >>> import tempfile, xarray
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "scene.raw").write_bytes(bytes(range(24)))
    >>> header = "ENVI|samples = 4|lines = 3|bands = 2|data type = 1|interleave = bip|"
    >>> _ = (folder / "scene.hdr").write_text(header.replace("|", chr(10)))
    >>> with xarray.open_dataset(folder / "scene.hdr", engine="envi_hsi") as dataset:
    ...     dataset.cube.sizes["y"], dataset.cube[0, 1, 0].values.tolist()
    (3, [8, 9])
    """

    description = "ENVI .hdr cubes in BIL, BIP or BSQ order (hsi_batch)"
    suffix = ".hdr"

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is a ``.hdr`` file that begins with ``ENVI``; other formats use the suffix."""
        if not super().guess_can_open(filename_or_obj):
            return False
        try:
            with Path(filename_or_obj).open("rb") as file:
                return file.read(16).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"ENVI")
        except OSError:
            return False

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """Open a cube by its header; ``drop_variables`` leaves variables out."""
        return self._open(filename_or_obj, drop_variables, None)


class NpzBackend(_Backend):
    """Engine ``npz_hsi``: cubes saved with ``numpy.savez``."""

    description = "Hyperspectral cubes in .npz files (hsi_batch)"
    suffix = ".npz"

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """Open a file; ``drop_variables`` leaves variables out."""
        return self._open(filename_or_obj, drop_variables, None)


def _cube(handle: SourceHandle, info: SourceInfo) -> xr.Variable:
    y, x, channel = info.shape
    lines = y
    if info.access == "lines":
        # As many blocks as are needed to stay below the limit, all of about the same height.
        blocks = -(-info.frame_nbytes // _BLOCK)
        lines = max(1, min(-(-y // blocks), _BLOCK // (info.frame_nbytes // y)))
    return xr.Variable(
        _DIMS,
        indexing.LazilyIndexedArray(LazyCube(handle, info)),
        encoding={
            "preferred_chunks": dict(zip(_DIMS, (1, lines, x, channel), strict=True)),
            "source": info.path,
        },
    )


def _coordinates(info: SourceInfo) -> dict[str, xr.Variable]:
    coordinates = {}
    if info.wavelength is not None:
        attrs = {"units": "nm", "standard_name": "radiation_wavelength"}
        coordinates["wavelength"] = xr.Variable("channel", info.wavelength, attrs)
    if info.fwhm is not None:
        attrs = {"units": "nm", "long_name": "full width at half maximum"}
        coordinates["fwhm"] = xr.Variable("channel", info.fwhm, attrs)
    if info.good_band is not None:
        coordinates["good_band"] = xr.Variable("channel", info.good_band)
    return coordinates


def _attributes(info: SourceInfo) -> dict[str, Any]:
    """JSON types only; what the source does not say is left out."""
    values = {
        "source": info.path,
        "reader": info.reader,
        "reader_version": info.reader_version,
        "sensor": info.sensor,
        "mode": info.mode,
        "quantity": info.quantity,
        "scale": float(info.scale),
        "offset": float(info.offset),
        "nodata": info.nodata,
        "saturation": info.saturation,
        "metadata": dict(info.metadata),
    }
    return {name: value for name, value in values.items() if value is not None}
