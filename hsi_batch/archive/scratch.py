"""Memory for chunks that are read one after the other."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scratch", "scratch"]


class Scratch(threading.local):
    """Memory of a thread that is used again for every chunk.

    Blocks that come and go leave holes between what is kept, and a heap that grows.
    """

    def __init__(self) -> None:
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

    def release(self) -> None:
        """Let go of the memory until it is needed again."""
        self.__init__()  # type: ignore[misc]


#: Of the chunks that this process reads.
scratch = Scratch()
