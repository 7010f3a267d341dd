"""Bytes at known offsets of a file, read straight into arrays.

Reading goes by position (``preadv``), so threads share one open file, and never through a memory
map, because mapped pages count as memory of the worker.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.scratch import scratch

__all__ = ["RawFile", "bytes_of", "check_lines", "native", "reading"]

# The most pieces of memory that one preadv call may fill (IOV_MAX of Linux and macOS).
_MAX_PIECES = 1024


def check_lines(start: int, stop: int, lines: int) -> int:
    """Return the number of lines in ``start:stop`` of a frame that has ``lines``.

    Raises
    ------
    IndexError
        Unless ``0 <= start <= stop <= lines``.

    Examples
    --------
    >>> check_lines(2, 5, lines=10)
    3
    """
    if not 0 <= start <= stop <= lines:
        raise IndexError(f"lines {start}:{stop} asked for; the frame has lines 0:{lines}")
    return stop - start


@contextmanager
def reading(path: str, frame: int, start: int, stop: int) -> Iterator[None]:
    """Turn what can go wrong while lines are read into one :class:`SourceError` with the place."""
    try:
        yield
    except EOFError as error:
        raise SourceError(
            f"the file ended while lines {start}:{stop} were read ({error}); "
            "it is shorter than it was when it was opened, or than it says.",
            path=path,
            frame=frame,
            hint="Copy the recording again, or wait until it is completely written.",
        ) from error
    except (BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise SourceError(
            f"lines {start}:{stop} cannot be decompressed: {error}.",
            path=path,
            frame=frame,
            hint="The file is damaged; copy or create it again.",
        ) from error
    except OSError as error:
        raise SourceError(
            f"lines {start}:{stop} could not be read: {error.strerror or error}.",
            path=path,
            frame=frame,
            hint="Check the disk or the network share, then run again.",
        ) from error


class RawFile:
    """A file opened for reading at any position; safe to share between threads.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    size : int
        Bytes in the file when it was opened.

    Raises
    ------
    hsi_batch.errors.SourceError
        If the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by close()
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise SourceError(
                f"cannot be opened: {error.strerror}.",
                path=path,
                hint="Check that the file exists and that you may read it.",
            ) from error

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Tell the system which ``(offset, bytes)`` are read next, so that it can queue them."""
        if hasattr(os, "posix_fadvise"):
            descriptor = self._file.fileno()
            for offset, count in ranges:
                os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_WILLNEED)

    def read_into(self, pieces: Sequence[memoryview], offset: int) -> None:
        """Fill ``pieces``, one after another, with the bytes that begin at ``offset``.

        Raises
        ------
        EOFError
            If the file ends first.
        OSError
            As the system reports it.
        """
        descriptor = self._file.fileno()
        for first in range(0, len(pieces), _MAX_PIECES):
            rest = list(pieces[first : first + _MAX_PIECES])
            while rest:
                count = os.preadv(descriptor, rest, offset)
                missing = sum(len(piece) for piece in rest)
                if count == 0 and missing:
                    raise EOFError(f"{missing:,} bytes missing at byte {offset:,} of {self.path}")
                offset += count
                while rest and count >= len(rest[0]):
                    count -= len(rest.pop(0))
                if rest:
                    rest[0] = rest[0][count:]

    def read_array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Read a C-ordered array stored at ``offset``; returned in native byte order.

        Parameters
        ----------
        offset : int
            Byte at which the array begins.
        shape : tuple of int
            Its shape.
        dtype : numpy.dtype
            Its type as stored, in either byte order.
        """
        out = scratch.lines(shape, dtype)
        if out.size:
            self.read_into([bytes_of(out)], offset)
        return native(out)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def bytes_of(array: NDArray[Any]) -> memoryview:
    """The memory of a C-contiguous array as writable bytes.

    Examples
    --------
    >>> len(bytes_of(np.zeros((2, 3), "f4")))
    24
    """
    return array.reshape(-1).view(np.uint8).data


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return ``array`` in native byte order, swapped in place if need be.

    Examples
    --------
    >>> native(np.array([1, 2], ">u2")).dtype.isnative
    True
    """
    if array.dtype.isnative:
        return array
    return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))
