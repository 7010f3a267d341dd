"""ENVI: a text header beside a file of raw pixels in BIL, BIP or BSQ order.

One recording is one frame of ``lines``; any range of lines is read on its own. Memory is the
result and a scratch of about 4 MB, whatever the size of the file, because lines are read by
position and transposed piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch._version import __version__
from hsi_batch.errors import SourceError
from hsi_batch.files import Closing
from hsi_batch.readers.envi_fields import foreign_format, read_fields
from hsi_batch.readers.envi_header import EnviHeader, read_header
from hsi_batch.readers.geometry_names import geometry_reason
from hsi_batch.readers.protocol import FrameInfo, SourceInfo, refuse_mode
from hsi_batch.readers.raw import RawFile, bytes_of, check_lines, native, reading
from hsi_batch.readers.reference_names import reference_reason
from hsi_batch.scratch import scratch

__all__ = ["EnviFrame", "EnviReader", "EnviSource", "find_data_file"]

#: Suffixes of the data file that are tried beside a header, lower case and upper case.
DATA_SUFFIXES = (".dat", ".raw", ".img", ".bin", ".bil", ".bip", ".bsq", ".hyspex")

_SCRATCH = 4 << 20  # bytes gathered from all over a BSQ file at a time
_CACHE = 1 << 20  # bytes of a BIL file transposed at a time; they stay in the processor's cache
# Bytes of one pixel that are written at a time when bands are gathered: whole cache lines, so that
# the result is not fetched from memory over and over.
_SEGMENT = 256
_CACHE_LINE = 64


class EnviReader:
    r"""Reader of ENVI cubes, named by their ``.hdr`` file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "scene.raw").write_bytes(bytes(range(24)))
    >>> _ = (folder / "scene.hdr").write_text(
    ...     "ENVI\nsamples = 4\nlines = 3\nbands = 2\ndata type = 1\ninterleave = bip\n")
    >>> with EnviReader().open(str(folder / "scene.hdr")) as source:
    ...     source.info.shape, source.frame(0).read(1, 2)[0, 0].tolist()
    ((3, 4, 2), [8, 9])
    """

    name = "envi"
    suffixes: tuple[str, ...] = (".hdr",)

    def skip_reason(self, path: str) -> str | None:
        """Why ``path`` is not a recording: another format, a library, a reference; else None.

        A header that is merely broken is not skipped: :meth:`open` says what is wrong with it.
        """
        try:
            with Path(path).open("rb") as file:
                foreign = foreign_format(file.read(512))
            if foreign is not None:
                return f"not an ENVI header: {foreign[0]}"
            kind = read_fields(path).text("file type") or ""
        except (SourceError, OSError):
            kind = ""
        if "library" in kind.casefold() or "classification" in kind.casefold():
            return f"an {kind}" if kind.upper().startswith("ENVI") else f"its file type is {kind}"
        stem = Path(path).stem
        return reference_reason(stem) or geometry_reason(stem)

    def open(self, path: str, *, mode: str | None = None) -> EnviSource:
        """Open a cube; see :meth:`hsi_batch.readers.protocol.Reader.open`.

        Raises
        ------
        hsi_batch.errors.SourceError
            The header is malformed, or the data file is missing or does not have the size that
            the header describes.
        hsi_batch.errors.ConfigError
            If ``mode`` is given: ENVI files have no processing modes.
        """
        refuse_mode(path, mode, "ENVI")
        return EnviSource(path)


class EnviSource(Closing):
    """An opened ENVI cube; holds the data file open until closed. Safe to share by threads.

    Parameters
    ----------
    path : str
        The header.

    Attributes
    ----------
    info : SourceInfo
        Access is ``"lines"``; one frame.
    """

    def __init__(self, path: str) -> None:
        self._header = header = read_header(path)
        data = find_data_file(path)
        self._interleave = header.interleave or _interleave_of(data, path)
        self._file = RawFile(data)
        if self._file.size != header.nbytes:
            self._file.close()
            raise _sizes_disagree(path, data, header, self._file.size)
        self.info = SourceInfo(
            path=path,
            files=(path, data),
            pixels=data,
            frames=1,
            shape=(header.lines, header.samples, header.bands),
            dtype=header.dtype.newbyteorder("="),
            wavelength=header.wavelength,
            fwhm=header.fwhm,
            good_band=header.good_band,
            quantity=header.quantity,
            units=header.units,
            saturation=header.saturation,
            scale=header.scale,
            offset=header.zero,
            nodata=header.nodata,
            geography=None if header.geography is None else header.geography.to_attrs(),
            sensor=header.sensor,
            access="lines",
            reader=EnviReader.name,
            reader_version=__version__,
            metadata=header.metadata,
            notes=header.notes,
        )

    def frame(self, index: int) -> EnviFrame:
        """The only frame, 0."""
        if index != 0:
            raise SourceError(
                "there is no such frame; an ENVI file holds frame 0 only.",
                path=self.info.path,
                frame=index,
                hint="Ask for frame 0.",
            )
        fill = {"bip": _fill_bip, "bil": _fill_bil, "bsq": _fill_bsq}[self._interleave]
        return EnviFrame(self._file, self._header, fill)

    def close(self) -> None:
        """Close the data file."""
        self._file.close()


class EnviFrame:
    """The frame of an ENVI cube."""

    def __init__(
        self,
        file: RawFile,
        header: EnviHeader,
        fill: Callable[[RawFile, EnviHeader, int, NDArray[Any]], None],
    ) -> None:
        self.info = FrameInfo(
            time_ms=header.time_ms, integration_time_ms=header.integration_time_ms
        )
        self._file = file
        self._header = header
        self._fill = fill

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Lines ``start:stop`` as a new C-contiguous array ``(lines, x, channel)``, native order.

        Raises
        ------
        IndexError
            If the frame does not have these lines.
        hsi_batch.errors.SourceError
            If the file became shorter since it was opened, or the system cannot read it.
        """
        header = self._header
        count = check_lines(start, stop, header.lines)
        shape = (count, header.samples, header.bands)
        out = scratch.lines(shape, header.dtype.newbyteorder("="))
        if count:
            with reading(self._file.path, 0, start, stop):
                self._fill(self._file, header, start, out)
        return out


def find_data_file(header_path: str) -> str:
    """The file of pixels that belongs to a header.

    ``x.raw.hdr`` names ``x.raw``; ``x.hdr`` belongs to the one of ``x``, ``x.dat``, ``x.raw``,
    ``x.img``, ``x.bin``, ``x.bil``, ``x.bip``, ``x.bsq`` and ``x.hyspex`` that exists and has no
    header of its own.

    Raises
    ------
    hsi_batch.errors.SourceError
        If there is none, or more than one.
    """
    base = Path(header_path).with_suffix("")
    if base.suffix.lower() in DATA_SUFFIXES and base.is_file():
        return str(base)
    spellings = [base.with_name(base.name + s) for t in DATA_SUFFIXES for s in (t, t.upper())]
    found: dict[tuple[int, int], Path] = {}
    for candidate in [base, *spellings]:
        own = candidate.with_name(candidate.name + ".hdr")
        if candidate.is_file() and (candidate == base or not own.is_file()):
            status = candidate.stat()
            # A file system that ignores case shows one file under both spellings.
            found.setdefault((status.st_dev, status.st_ino), candidate)
    if len(found) == 1:
        return str(next(iter(found.values())))
    tried = f"{base.name} and {base.name}[{' '.join(DATA_SUFFIXES)}]"
    if found:
        names = ", ".join(path.name for path in found.values())
        raise SourceError(
            f"several files could hold its pixels: {names} (tried {tried}).",
            path=header_path,
            hint="Keep one of them, or name the header after the data file, as in x.raw.hdr.",
        )
    raise SourceError(
        f"its data file was not found (tried {tried}).",
        path=header_path,
        hint="Put the data file beside the header, under the same name.",
    )


def _interleave_of(data: str, header_path: str) -> str:
    suffix = Path(data).suffix.lower().lstrip(".")
    if suffix in ("bil", "bip", "bsq"):
        return suffix
    raise SourceError(
        "the header has no 'interleave', and the name of the data file does not say it either.",
        path=header_path,
        hint="Add a line 'interleave = bil' (or bip, bsq).",
    )


def _sizes_disagree(path: str, data: str, header: EnviHeader, size: int) -> SourceError:
    verb, hint = (
        ("is truncated", "Copy the data file again, or correct the header.")
        if size < header.nbytes
        else ("is too large", "Correct lines, bands, data type or header offset in the header.")
    )
    return SourceError(
        f"sizes disagree, {Path(data).name} {verb}: it has {size:,} bytes, expected "
        f"{header.nbytes:,} ({header.lines} lines x {header.samples} samples x {header.bands} "
        f"bands of {header.dtype.name} behind an offset of {header.offset}).",
        path=path,
        hint=hint,
    )


def _fill_bip(file: RawFile, header: EnviHeader, start: int, out: NDArray[Any]) -> None:
    line = header.samples * header.bands * header.dtype.itemsize
    file.read_into([bytes_of(out)], header.offset + start * line)
    native(out.view(header.dtype))


def _fill_bil(file: RawFile, header: EnviHeader, start: int, out: NDArray[Any]) -> None:
    samples, bands = header.samples, header.bands
    line = samples * bands * header.dtype.itemsize
    step = max(1, min(len(out), _CACHE // line))
    scratch = _padded_rows(step * bands, samples, header.dtype)
    rows = [bytes_of(row) for row in scratch]
    for first in range(0, len(out), step):
        count = min(step, len(out) - first)
        file.read_into(rows[: count * bands], header.offset + (start + first) * line)
        block = native(scratch[: count * bands]).reshape(count, bands, samples)
        out[first : first + count] = block.transpose(0, 2, 1)


def _fill_bsq(file: RawFile, header: EnviHeader, start: int, out: NDArray[Any]) -> None:
    samples, bands, itemsize = header.samples, header.bands, header.dtype.itemsize
    line = samples * itemsize

    def offset(band: int, first: int) -> int:
        return header.offset + (band * header.lines + start + first) * line

    file.prefetch((offset(band, 0), len(out) * line) for band in range(bands))
    group = min(bands, _SEGMENT // itemsize)
    step = max(1, min(len(out), _SCRATCH // (group * line)))
    scratch = _padded_rows(group, step * samples, header.dtype)
    pixels = out.reshape(-1, bands)
    for first in range(0, len(out), step):
        count = min(step, len(out) - first) * samples
        target = pixels[first * samples :][:count]
        for band in range(0, bands, group):
            rows = scratch[: min(group, bands - band), :count]
            for i, row in enumerate(rows):
                file.read_into([bytes_of(row)], offset(band + i, first))
            target[:, band : band + len(rows)] = native(rows).T


def _padded_rows(rows: int, columns: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An empty ``(rows, columns)`` array whose rows lie an odd number of cache lines apart.

    With 512 or 1024 samples the rows of a plain array fall on the same few sets of the processor's
    cache, and the transposition takes four to six times as long.
    """
    lines = -(-columns * dtype.itemsize // _CACHE_LINE)
    stride = (lines + 1 - lines % 2) * _CACHE_LINE // dtype.itemsize
    return np.empty((rows, stride), dtype)[:, :columns]
