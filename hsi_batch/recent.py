"""What a thread opened or made last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

V = TypeVar("V")


class Recent(threading.local, Generic[V]):
    """The last few things that were made, by key; each thread has its own.

    Workers may have several threads, and what one drops another may be reading.

    Parameters
    ----------
    most : int
        How many are kept.
    drop : callable, optional
        Called with what is not kept any more.

    Examples
    --------
    >>> kept = Recent(2, drop=lambda value: print("without", value))
    >>> [kept.get(key, lambda: key.upper()) for key in "aba"]
    ['A', 'B', 'A']
    >>> kept.get("c", lambda: "C")
    without B
    'C'
    """

    def __init__(self, most: int, drop: Callable[[V], object] | None = None) -> None:
        self._most, self._drop = most, drop
        self._held: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """What has this key; made if it is not there."""
        if key not in self._held:
            self.forget(lambda _: len(self._held) >= self._most)
            self._held[key] = make()
        self._held.move_to_end(key)
        return self._held[key]

    def forget(self, which: Callable[[V], bool]) -> None:
        """Drop those that are meant, the oldest first."""
        for key, value in list(self._held.items()):
            if which(value):
                del self._held[key]
                if self._drop is not None:
                    self._drop(value)
