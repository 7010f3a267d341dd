"""npz: cubes as NumPy saves them, the exchange format that needs no vendor's library.

Keys: ``cube`` (y, x, channel) or (frame, y, x, channel); optional ``wavelengths`` (or
``wavelength``), nanometres per channel, empty if unknown; ``meta``, a JSON text, whose entry
``sensor`` names the camera (a pickled object is ignored); ``source``, a text. ``mask`` and
``class_mask`` are labels, see :mod:`hsi_batch.readers.annotations`.

How the cube was saved decides how it can be read:

==============================  =============  ==================================================
``numpy.savez``                 ``lines``      any range, in place; zip checksums are not verified
``numpy.savez_compressed``      ``sequential`` decompressed from front to back, checksum verified
Fortran order, either of them   ``frame``      the lines lie scattered, a frame is gathered whole
==============================  =============  ==================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch._version import __version__
from hsi_batch.errors import SourceError
from hsi_batch.files import Closing
from hsi_batch.readers.npz_file import Member, MemberStream, NpzFile
from hsi_batch.readers.protocol import Access, FrameInfo, SourceInfo, refuse_mode
from hsi_batch.readers.raw import RawFile, bytes_of, check_lines, native, reading
from hsi_batch.scratch import scratch

__all__ = ["NpzFrame", "NpzReader", "NpzSource"]

_SCRATCH = 4 << 20  # bytes of a Fortran-ordered cube held at a time


class NpzReader:
    """Reader of ``.npz`` files.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/scene.npz"
    >>> np.savez(path, cube=np.arange(24, dtype="u2").reshape(3, 4, 2), wavelengths=[500, 600])
    >>> with NpzReader().open(path) as source:
    ...     source.info.access, source.info.wavelength.tolist(), source.frame(0).read(1, 2)[0, 0]
    ('lines', [500.0, 600.0], array([8, 9], dtype=uint16))
    """

    name = "npz"
    suffixes: tuple[str, ...] = (".npz",)

    def skip_reason(self, path: str) -> str | None:
        """Why ``path`` is not a recording: a sound file without an array ``cube``; else None."""
        try:
            with NpzFile(path) as file:
                names = file.names
        except SourceError:
            return None
        return None if "cube" in names else f"no array 'cube' in it, only {_listed(names)}"

    def open(self, path: str, *, mode: str | None = None) -> NpzSource:
        """Open a file; see :meth:`hsi_batch.readers.protocol.Reader.open`.

        Raises
        ------
        hsi_batch.errors.SourceError
            Not an npz file, truncated, without ``cube``, or with a cube that has other than 3 or
            4 axes or holds no real numbers.
        hsi_batch.errors.ConfigError
            If ``mode`` is given: npz files have no processing modes.
        """
        refuse_mode(path, mode, "npz")
        return NpzSource(path)


class NpzSource(Closing):
    """An opened ``.npz`` file. Threads may share it if its access is ``"lines"``.

    Parameters
    ----------
    path : str
        The file.
    """

    def __init__(self, path: str) -> None:
        self._raw: RawFile | None = None
        self._stream: MemberStream | None = None
        self._next = 0  # the line of the file, frames counted through, that the stream is at
        self._npz = NpzFile(path)
        try:
            self._cube = cube = _checked(self._npz)
            self.info = _info(self._npz, cube)
            if self.info.access == "lines":
                self._raw = RawFile(path)
                self._npz.close()  # the bytes are read in place, one open file is enough
        except BaseException:
            self.close()
            raise

    def frame(self, index: int) -> NpzFrame:
        """Open a frame.

        With sequential access this costs nothing; reading from it decompresses all frames before
        it, unless the previous frame has just been read to its end.
        """
        info = self.info
        if not 0 <= index < info.frames:
            raise SourceError(
                f"there is no such frame; the file holds frames 0 to {info.frames - 1}.",
                path=info.path,
                frame=index,
                hint="Ask for one of these.",
            )
        if info.access == "frame":
            with reading(info.path, index, 0, info.shape[0]):
                whole = self._gathered(index)
            return NpzFrame(info, index, lambda start, stop: whole[start:stop].copy())
        if info.access == "lines":
            return NpzFrame(info, index, lambda a, b: self._in_place(index, a, b))
        return NpzFrame(info, index, lambda a, b: self._streamed(index, a, b), ordered=True)

    def close(self) -> None:
        """Close the file."""
        self._rewind()
        if self._raw is not None:
            self._raw.close()
        self._npz.close()

    def _in_place(self, index: int, start: int, stop: int) -> NDArray[Any]:
        y, x, channel = self.info.shape
        assert self._raw is not None
        assert self._cube.offset is not None
        line = x * channel * self._cube.dtype.itemsize
        offset = self._cube.offset + (index * y + start) * line
        return self._raw.read_array(offset, (stop - start, x, channel), self._cube.dtype)

    def _streamed(self, index: int, start: int, stop: int) -> NDArray[Any]:
        y, x, channel = self.info.shape
        out = scratch.lines((stop - start, x, channel), self._cube.dtype)
        wanted = index * y + start
        if self._stream is None or self._next > wanted:
            self._rewind()
            self._stream = self._npz.stream(self._cube.name)
        try:
            self._stream.skip((wanted - self._next) * x * channel * self._cube.dtype.itemsize)
            self._stream.read_into(bytes_of(out))
            self._next = index * y + stop
        except BaseException:
            self._rewind()  # where the stream stands is not known any more
            raise
        return native(out)

    def _rewind(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._next = None, 0

    def _gathered(self, index: int) -> NDArray[Any]:
        y, x, channel = self.info.shape
        frames = self.info.frames
        out = np.empty((y, x, channel), self._cube.dtype.newbyteorder("="))
        # In the file the axes stand in the opposite order: (channel, x, y, frame).
        row = y * frames
        step = max(1, min(x, _SCRATCH // (row * self._cube.dtype.itemsize)))
        part = np.empty((step, y, frames), self._cube.dtype)
        with closing(self._npz.stream(self._cube.name)) as stream:
            for c in range(channel):
                for first in range(0, x, step):
                    block = part[: min(step, x - first)]
                    stream.read_into(bytes_of(block))
                    out[:, first : first + len(block), c] = block[:, :, index].T
        return out


class NpzFrame:
    """One frame of an ``.npz`` file."""

    def __init__(
        self,
        info: SourceInfo,
        index: int,
        load: Callable[[int, int], NDArray[Any]],
        *,
        ordered: bool = False,
    ) -> None:
        self.info = FrameInfo()
        self._source = info
        self._index = index
        self._load = load
        self._ordered = ordered
        self._next = 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Lines ``start:stop`` as a new C-contiguous array ``(lines, x, channel)``, native order.

        Raises
        ------
        IndexError
            If the frame does not have these lines.
        ValueError
            If the cube is compressed and ``start`` lies before lines already read.
        hsi_batch.errors.SourceError
            If the file is damaged or truncated.
        """
        check_lines(start, stop, self._source.shape[0])
        if self._ordered and start < self._next:
            raise ValueError(
                f"lines {start}:{stop} asked for after line {self._next - 1}; a compressed cube is "
                "read in order. Open the frame again to begin anew."
            )
        with reading(self._source.path, self._index, start, stop):
            lines = self._load(start, stop)
        self._next = stop
        return lines


def _checked(file: NpzFile) -> Member:
    cube = file.member("cube")
    hint = "Save it as cube (y, x, channel) with numpy.savez."
    if cube is None:
        found = _listed(file.names)
        raise SourceError(f"no array 'cube' in it, only {found}.", path=file.path, hint=hint)
    if cube.dtype.kind not in "iuf" or cube.dtype.itemsize > 8:
        raise SourceError(
            f"the cube is {cube.dtype.name}; expected integers or real numbers of 16 to 64 bits "
            "(8 to 64 for integers).",
            path=file.path,
            hint="Convert it, for example to uint16 or float32, and save it again.",
        )
    if len(cube.shape) not in (3, 4):
        raise SourceError(
            f"the cube has {len(cube.shape)} axes, shape {cube.shape}; expected (y, x, channel) or "
            "(frame, y, x, channel).",
            path=file.path,
            hint=hint,
        )
    if math.prod(cube.shape) == 0:
        raise SourceError(f"the cube is empty, shape {cube.shape}.", path=file.path, hint=hint)
    return cube


def _info(file: NpzFile, cube: Member) -> SourceInfo:
    frames = 1 if len(cube.shape) == 3 else cube.shape[0]
    y, x, channel = cube.shape[-3:]
    access: Access = "lines" if cube.offset is not None else "sequential"
    meta = _meta(file)
    sensor = meta.get("sensor") if isinstance(meta, dict) else None
    texts = {"meta": meta, "source": file.text("source")}
    return SourceInfo(
        path=file.path,
        files=(file.path,),
        pixels=file.path,
        frames=frames,
        shape=(y, x, channel),
        dtype=cube.dtype.newbyteorder("="),
        wavelength=_wavelength(file, channel),
        sensor=sensor if isinstance(sensor, str) and sensor else None,
        access="frame" if cube.fortran else access,
        reader=NpzReader.name,
        reader_version=__version__,
        metadata={key: value for key, value in texts.items() if value is not None},
    )


def _meta(file: NpzFile) -> Any:
    """The parsed JSON of ``meta``; its text if it is not JSON."""
    text = file.text("meta")
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _wavelength(file: NpzFile, channels: int) -> NDArray[np.float64] | None:
    key = "wavelengths" if "wavelengths" in file.names else "wavelength"
    member = file.member(key)
    # Before it is read: a small file may hold gigabytes of zeros.
    found = file.array(key) if member and math.prod(member.shape) == channels else None
    if member is None or 0 in member.shape:
        return None
    if found is None:
        raise SourceError(
            f"{key!r} is {member.dtype.name} of shape {member.shape}; expected {channels} numbers, "
            "one for each channel.",
            path=file.path,
            hint=f"Correct {key!r}, or leave it out if the wavelengths are not known.",
        )
    if found.dtype.kind not in "iuf" or found.size != channels:
        raise SourceError(
            f"{key!r} is {found.dtype.name} of shape {found.shape}; expected {channels} numbers, "
            "one for each channel.",
            path=file.path,
            hint=f"Correct {key!r}, or leave it out if the wavelengths are not known.",
        )
    wavelength = found.reshape(-1).astype(np.float64)
    if not wavelength.any():
        return None  # zeros stand for "not known"
    if not (np.isfinite(wavelength).all() and (wavelength > 0).all()):
        raise SourceError(
            f"{key!r} holds values that are not positive; expected nanometres.",
            path=file.path,
            hint=f"Correct {key!r}, or leave it out if the wavelengths are not known.",
        )
    return wavelength


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(sorted(names)[:8]) or "nothing"
