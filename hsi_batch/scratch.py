"""Memory for blocks that are read one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scratch", "scratch"]


class Scratch(threading.local):
    """Memory of a thread that is used again for every block.

    Blocks that come and go leave holes; what is kept goes to the front of a hole, in which no block
    has room any more, and the heap grows.
    """

    #: Bytes of the largest block for which memory is lent.
    _lending = 0

    def __init__(self) -> None:
        self._lines = np.empty(0, dtype=np.uint8)
        self._stored = np.empty(0, dtype=np.uint8)
        self._decoded = np.empty(0, dtype=np.uint8)

    def stored(self, size: int, most: int) -> memoryview:
        """Bytes for a compressed chunk; no chunk of its array takes much more than ``most``."""
        if len(self._stored) < size:
            self._stored = np.empty(0, dtype=np.uint8)
            # Pages that are not written to take no memory.
            self._stored = np.empty(max(size, most + most // 8), dtype=np.uint8)
        return self._stored[:size].data

    def decoded(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Values of a chunk; the next call hands out the same memory."""
        size = int(np.prod(shape)) * dtype.itemsize
        if self._decoded.nbytes < size:
            self._decoded = np.empty(0, dtype=np.uint8)
            self._decoded = np.empty(size, dtype=np.uint8)
        return self._decoded[:size].view(dtype).reshape(shape)

    def lines(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory for lines of a recording: new, but where they are :meth:`lent`."""
        if not self._lending:
            return np.empty(shape, dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if self._lines.nbytes < size:
            self._lines = np.empty(0, dtype=np.uint8)
            self._lines = np.empty(max(size, self._lending), dtype=np.uint8)
        return self._lines[:size].view(dtype).reshape(shape)

    @contextmanager
    def lent(self, most: int) -> Iterator[None]:
        """Within it, lines that are read in this thread write over those that were read before.

        Blocks take up to ``most`` bytes: the first may be a short one.
        """
        before, self._lending = self._lending, max(most, 1)
        try:
            yield
        finally:
            self._lending = before

    def release(self) -> None:
        """Let go of the memory until it is needed again."""
        self.__init__()  # type: ignore[misc]


#: Of the blocks that this process reads.
scratch = Scratch()
