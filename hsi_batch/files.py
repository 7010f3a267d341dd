"""Writing small files whole or not at all, and naming contents by digest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tempfile
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pandas as pd

    from hsi_batch.places import Place

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Closing",
    "digest_json",
    "digest_of",
    "digest_of_file",
    "expand_home",
    "read_npz",
    "read_table",
    "remove_unfinished",
    "sealed",
    "unsealed",
    "write_atomically",
]


#: Letters that ``tempfile`` appends.
_RANDOM = 8
#: Bytes of all arrays of a small ``.npz``; a few kilobytes of zip can stand for gigabytes.
_MOST_NPZ = 2**28
#: What a damaged ``.npz`` raises; RuntimeError of entries that seem encrypted or too new.
_DAMAGED_NPZ = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)


class Closing(ABC):
    """Closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held open or in memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_atomically(path: Place, content: bytes | str, *, sync: bool = True) -> None:
    """Write ``content`` to a temporary name in the same folder, sync it, and rename it.

    The folder is made if needed. A reader sees the old file or the new one, never a part. Without
    ``sync`` that holds for processes that are killed, but not for machines that lose their power.
    """
    raw = content.encode() if isinstance(content, str) else content
    if not isinstance(path, Path):
        # Objects of a remote store appear whole by themselves.
        path.write_bytes(raw)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what :func:`write_atomically` left of files when its process was killed.

    Only for folders that no other process writes to.

    Parameters
    ----------
    folder : Path
        It need not be there.
    pattern : str
        Of the names of the files, such as ``*.ckpt``.
    """
    for part in folder.glob(f".{pattern}.{'[a-z0-9_]' * _RANDOM}"):
        part.unlink(missing_ok=True)


def expand_home(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` written out; of a user that there is not, as it is.

    Examples
    --------
    >>> expand_home("~/data") == Path.home() / "data", str(expand_home("~.yaml"))
    (True, '~.yaml')
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises for unknown users


def digest_of(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal; empty if it cannot be read."""
    try:
        with (path if hasattr(path, "open") else Path(path)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return digest_of(json.dumps(value, sort_keys=True, default=str).encode())


def sealed(content: Mapping[str, Any]) -> str:
    """JSON text that ends in the SHA-256 of its own contents.

    Examples
    --------
    >>> unsealed(sealed({"a": 1}))
    {'a': 1}
    """
    return json.dumps({**content, "sha256": digest_json(content)}, indent=2, default=str)


def unsealed(raw: bytes | str) -> dict[str, Any]:
    """Inverse of :func:`sealed`.

    Raises
    ------
    ValueError
        A single byte is not as it was written.
    """
    text = raw.decode() if isinstance(raw, bytes) else raw
    content = json.loads(text)
    if not isinstance(content, dict) or "sha256" not in content:
        raise ValueError("there is no checksum")
    del content["sha256"]
    if sealed(content) != text:
        raise ValueError("the checksum does not match the contents")
    return content


def read_npz(source: bytes | str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """All arrays of a small ``.npz`` file, of values only.

    Raises
    ------
    OSError
        It cannot be opened.
    ValueError
        It is damaged in any way, unpacks to more than 256 MiB, or holds Python objects.
    """
    if isinstance(source, bytes):
        raw = source
    else:
        raw = (source if hasattr(source, "read_bytes") else Path(source)).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as entries:
            if sum(entry.file_size for entry in entries.infolist()) > _MOST_NPZ:
                raise ValueError("it unpacks to more than 256 MiB")
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except _DAMAGED_NPZ as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    odd = [name for name, value in found.items() if not isinstance(value, np.ndarray)]
    if odd:
        raise ValueError(f"the entry {odd[0]!r} is no array")
    return found


def read_table(raw: bytes) -> pd.DataFrame:
    """A small table of Parquet.

    Raises
    ------
    ValueError
        It is damaged in any way.
    """
    import pandas as pd

    try:
        return pd.read_parquet(io.BytesIO(raw))
    except Exception as error:  # noqa: BLE001 - Arrow and pandas raise whatever damage leads them to
        raise ValueError(f"{type(error).__name__}: {error}") from None
