"""Small files of statistics that outlive a killed run: whole and genuine, or as good as absent."""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
import pickletools
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from hsi_batch.files import write_atomically

__all__ = ["read_kept", "write_kept"]

_MAGIC = b"hsi-batch-kept-1\n"
_DIGEST = 32
#: Histograms are mostly zeros, and sums of integers small, which any level packs; moments of floats
#: are random bits, and are not packed. The start of a file tells which it holds.
_LEVEL, _START, _WORTH = 1, 2**15, 0.8
#: Bytes that a file may unpack to.
_MOST = 2**30
_NUMPY = {"_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype"}
#: What cannot be written as a value: a lambda, an open file, a class that is not importable.
_UNWRITABLE = (pickle.PicklingError, TypeError, AttributeError)


class _Values(pickle.Unpickler):
    """Reads arrays and statistics; a file that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Numpy's arrays, our statistics, and classes in use that can ``merge``."""
        top = module.partition(".")[0]
        if top == "numpy" and "." not in name:
            found = getattr(importlib.import_module(module), name, None)
            is_number = isinstance(found, type) and issubclass(found, np.generic)
            if name in _NUMPY or is_number:
                return found
        elif module in sys.modules or module.startswith("hsi_batch.statistics."):
            found = getattr(importlib.import_module(module), name, None)
            ours = module.startswith("hsi_batch.statistics.")
            if isinstance(found, type) and (ours or callable(getattr(found, "merge", None))):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no statistic")


def _refuse_growth(plain: bytes) -> None:
    """Refuse opcodes that take memory for what is not there: far places in the memo, torn texts."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(plain)):
        if opcode.name.endswith("PUT") and int(argument or 0) > number:
            raise pickle.UnpicklingError("a place in the memo that nothing leads to")


def _packed(raw: bytes) -> bytes:
    start = raw[:_START]
    worth = len(zlib.compress(start, _LEVEL)) < _WORTH * len(start)
    return zlib.compress(raw, _LEVEL if worth else 0)


def write_kept(path: Path, digest: str, content: Any, most: float = float("inf")) -> bool:
    """Write values under the digest of what they were made from; whether they were written.

    Nothing is written, and nothing fails, where the folder is gone or not to be seen from here,
    where the disk is full, where the values are no values, or take more than ``most`` bytes: what
    is kept saves time, and a run can do without.
    """
    if not path.parent.is_dir():
        return False
    try:
        packed = _packed(pickle.dumps(content, protocol=5))
        if len(packed) > most:
            return False
        body = digest.encode() + b"\n" + packed
        # A file that is torn all the same is not trusted, and what it held is read again.
        write_atomically(path, _MAGIC + hashlib.sha256(body).digest() + body, sync=False)
    except (OSError, *_UNWRITABLE):
        return False
    return True


def read_kept(path: Path, digest: str) -> Any | None:
    """What :func:`write_kept` wrote under this digest; None if it is not there, torn or damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST
    body = raw[start:]
    if raw[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != raw[len(_MAGIC) : start]:
        return None
    name, _, packed = body.partition(b"\n")
    if name != digest.encode():
        return None
    try:
        unpacking = zlib.decompressobj()
        plain = unpacking.decompress(packed, _MOST)
        if not unpacking.eof:
            return None
        _refuse_growth(plain)
        return _Values(io.BytesIO(plain)).load()
    except Exception:  # noqa: BLE001 - a file of another version may fail in any way
        return None
