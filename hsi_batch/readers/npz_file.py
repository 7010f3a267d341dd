"""The arrays inside an ``.npz`` file: what they are and where, without reading them.

An ``.npz`` is a zip of ``.npy`` members. A member stored without compression lies in the file as
one run of bytes, so that parts of it can be read in place; a compressed one can only be streamed.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.files import Closing

__all__ = ["Member", "NpzFile"]

_PIECE = 1 << 20  # bytes decompressed at a time
_TEXT = 64 << 20  # bytes of a text
_LOCAL_HEADER = struct.Struct("<26xHH")


@dataclass(frozen=True)
class Member:
    """One array of an ``.npz`` file.

    Attributes
    ----------
    name : str
        Key of the array.
    shape, dtype : tuple of int, numpy.dtype
        As stored, in the byte order of the file.
    fortran : bool
        Whether the first axis varies fastest.
    offset : int, optional
        Byte of the ``.npz`` file at which the values begin; None if they are compressed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int | None


class NpzFile(Closing):
    """An ``.npz`` file opened for looking inside; a context manager. Never unpickles anything.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    names : tuple of str
        Keys of the arrays in it.

    Raises
    ------
    hsi_batch.errors.SourceError
        Cannot be opened, or not a complete zip file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise SourceError(
                f"cannot be opened: {error.strerror}.",
                path=path,
                hint="Check the permissions of the file.",
            ) from error
        except Exception as error:  # zipfile lets out whatever it stumbles on
            raise SourceError(
                f"not a complete npz file: {_what_it_is(path, error)}.",
                path=path,
                hint="Copy it again, or save it again with numpy.savez.",
            ) from error
        self._infos = {
            info.filename.removesuffix(".npy"): info
            for info in self._zip.infolist()
            if info.filename and not info.filename.endswith("/")
        }
        self.names = tuple(self._infos)

    def member(self, name: str) -> Member | None:
        """Shape, type and place of an array, from its header; None if there is none.

        Raises
        ------
        hsi_batch.errors.SourceError
            Its header is malformed, or it has another size than its header says.
        """
        if name not in self._infos:
            return None
        info = self._infos[name]
        with self._member_errors(name), self._zip.open(info) as stream:
            shape, fortran, dtype = _npy_header(stream)
            begin = stream.tell()
        size = begin + math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and info.file_size != size:
            raise SourceError(
                f"sizes disagree: array {name!r} has {info.file_size:,} bytes; expected {size:,} "
                f"for {_times(shape)} {dtype.name}.",
                path=self.path,
                hint="The file is damaged; create it again.",
            )
        offset = None
        if info.compress_type == zipfile.ZIP_STORED:
            with Path(self.path).open("rb") as file:
                file.seek(info.header_offset)
                lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            offset = info.header_offset + _LOCAL_HEADER.size + sum(lengths) + begin
        return Member(name, shape, dtype, fortran, offset)

    def array(self, name: str) -> NDArray[Any] | None:
        """A whole array; None if there is none. For the small ones: masks, wavelengths, texts.

        Raises
        ------
        hsi_batch.errors.SourceError
            Damaged, or an array of Python objects, which only unpickling could read.
        """
        if self.member(name) is None:  # which also checks that the size is true
            return None
        with self._member_errors(name), self._zip.open(self._infos[name]) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array

    def text(self, name: str) -> str | None:
        """A text stored as an array of one string; None if there is none or it is not a text."""
        member = self.member(name)
        if member is None or member.dtype.kind not in "US" or math.prod(member.shape) != 1:
            return None
        if member.dtype.itemsize > _TEXT:
            raise SourceError(
                f"the text {name!r} is {member.dtype.itemsize:,} bytes long; expected at most"
                f" {_TEXT:,}.",
                path=self.path,
                hint="Leave it out, or shorten it.",
            )
        array = self.array(name)
        assert array is not None
        value = array.reshape(-1)[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def stream(self, name: str) -> MemberStream:
        """The values of an array, in the order of the file, from the first on."""
        with self._member_errors(name):
            stream = self._zip.open(self._infos[name])
            _npy_header(stream)
        return MemberStream(stream)

    @contextmanager
    def _member_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise SourceError(
                f"array {name!r} is damaged: {error}.",
                path=self.path,
                hint="Copy the file again, or create it again.",
            ) from error
        except Exception as error:
            # Python objects, encryption, an unknown compression; and numpy's parser of headers lets
            # out whatever it stumbles on.
            raise SourceError(
                f"array {name!r} cannot be read: {error}.",
                path=self.path,
                hint="Save it again with numpy.savez, as numbers.",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


class MemberStream:
    """The values of one array, read from front to back with bounded memory.

    A wrong checksum shows when the last value is read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read_into(self, target: memoryview) -> None:
        """Fill ``target`` with the next bytes; raises EOFError if there are fewer."""
        filled = 0
        while filled < len(target):
            filled += self._piece(len(target) - filled, target[filled:])

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        while count > 0:
            count -= self._piece(count, None)

    def close(self) -> None:
        """Release the stream; the file stays open."""
        self._stream.close()

    def _piece(self, most: int, target: memoryview | None) -> int:
        piece = self._stream.read(min(most, _PIECE))
        if not piece:
            raise EOFError("the compressed data end too early")
        if target is not None:
            target[: len(piece)] = piece
        return len(piece)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"npy format {version[0]}.{version[1]} is for records, not plain numbers")


def _what_it_is(path: str, error: Exception) -> str:
    with Path(path).open("rb") as file:
        head = file.read(6)
    if not head:
        return "the file is empty"
    if head.startswith(b"PK"):
        return f"its end is missing or damaged ({error})"
    if head.startswith(b"\x93NUMPY"):
        return "it is a single .npy array under the wrong name"
    return "it is not a zip file"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape) or "one"
