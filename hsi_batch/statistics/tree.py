"""Merging in one fixed binary tree, whatever the order in which parts arrive.

Floating-point merges are not associative to the last bit. So every part has a fixed place, a path
such as ``session 3 of 10, frame 0 of 48, leaf 2 of 7``, and two parts are merged only when they are
the two halves of the same node of the binary tree over their indices. Any grouping of the work then
gives the same bits. Parts that were left out count as the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar

__all__ = ["Bundle", "Forest", "Mergeable", "Path", "Pool"]

#: ``(index, size)`` per depth, outermost first.
Path = tuple[tuple[int, int], ...]


class Mergeable(Protocol):
    """Anything with an associative ``merge``."""

    def merge(self, other: Self, /) -> Self:
        """Return the union of both."""
        ...


S = TypeVar("S", bound=Mergeable)


class Forest(Generic[S]):
    """The parts of a reduction that are known so far, merged as far as the fixed tree allows.

    A forest of a contiguous range holds a logarithmic number of parts, so it stays small on its
    way between workers. Merging forests is associative and commutative to the last bit.

    Parameters
    ----------
    parts : mapping, optional
        Merged statistics by their place in the tree: path and level.

    Examples
    --------
    >>> class Word(str):
    ...     def merge(self, other):
    ...         return Word(f"({self}{other})")
    >>> parts = [Forest.of(((i, 3),), Word(c)) for i, c in enumerate("abc")]
    >>> parts[2].merge(parts[0]).merge(parts[1]).result()
    '((ab)c)'
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Mapping[tuple[Path, int], S] | None = None) -> None:
        self.parts: dict[tuple[Path, int], S] = {}
        for (path, level), value in (parts or {}).items():
            self._insert(path, level, value)

    @classmethod
    def of(cls, path: Path, value: S, level: int = 0) -> Forest[S]:
        """A forest with one part.

        Parameters
        ----------
        path : tuple of (index, size)
            Place of the part; the last index counts nodes of ``level``.
        value : Mergeable
            The part.
        level : int
            The part covers ``2**level`` indices of the innermost depth.
        """
        return cls({(path, level): value})

    def merge(self, other: Forest[S]) -> Forest[S]:
        """Union of both; a part that both hold is an error of the caller and refused.

        It is refused here if the part still stands alone, and by :meth:`result` if it was merged
        with others before.
        """
        merged: Forest[S] = Forest()
        merged.parts = dict(self.parts)
        for (path, level), value in other.parts.items():
            merged._insert(path, level, value)
        return merged

    def _insert(self, path: Path, level: int, value: S) -> None:
        while True:
            index, size = path[-1]
            if (1 << level) >= size:
                if len(path) == 1:
                    break
                path, level = path[:-1], 0
                continue
            sibling = ((*path[:-1], (index ^ 1, size)), level)
            if sibling in self.parts:
                other = self.parts.pop(sibling)
                value = value.merge(other) if index % 2 == 0 else other.merge(value)
            elif ((index ^ 1) << level) < size:
                break
            path, level = (*path[:-1], (index >> 1, size)), level + 1
        if (path, level) in self.parts:
            raise ValueError(f"part {path} at level {level} is there twice")
        self.parts[path, level] = value

    def result(self) -> S | None:
        """Merge what is there, parts that never came counting as the identity; None if nothing is.

        The order is that of the full tree.

        Raises
        ------
        ValueError
            A part came twice, alone and within a larger one; or parts of different trees are here.
        """
        parts = dict(self.parts)
        while len(parts) > 1:
            deepest = max(len(path) for path, _ in parts)
            level = min(lvl for path, lvl in parts if len(path) == deepest)
            closing = sorted(k for k in parts if len(k[0]) == deepest and k[1] == level)
            for path, _ in closing:
                value = parts.pop((path, level))
                above = _above(path, level)
                if above in self.parts:
                    raise ValueError(f"part {path} at level {level} is there twice")
                held = parts.get(above)
                parts[above] = value if held is None else held.merge(value)
        return next(iter(parts.values()), None)

    def __len__(self) -> int:
        return len(self.parts)

    def __getstate__(self) -> dict[tuple[Path, int], S]:
        return self.parts

    def __setstate__(self, parts: dict[tuple[Path, int], S]) -> None:
        self.parts = parts


class Pool(Generic[S]):
    """What is known so far of a statistic whose bits no order of merging can change.

    Histograms are large, and a forest holds several of them; a pool holds one. It stands where a
    :class:`Forest` does, but does not notice a part that comes twice.

    Examples
    --------
    >>> class Count(int):
    ...     def merge(self, other):
    ...         return Count(self + other)
    >>> Pool(Count(2)).merge(Pool()).merge(Pool(Count(3))).result()
    5
    """

    __slots__ = ("value",)

    def __init__(self, value: S | None = None) -> None:
        self.value = value

    def merge(self, other: Pool[S]) -> Pool[S]:
        """Union of both."""
        if self.value is None or other.value is None:
            return other if self.value is None else self
        return Pool(self.value.merge(other.value))

    def result(self) -> S | None:
        """The statistic; None if nothing came."""
        return self.value


def _above(path: Path, level: int) -> tuple[Path, int]:
    """Node that a node is a half of."""
    index, size = path[-1]
    if (1 << level) < size:
        return (*path[:-1], (index >> 1, size)), level + 1
    if len(path) == 1:
        raise ValueError(f"part {path} at level {level} is of another tree than the rest")
    return path[:-1], 0


class Bundle(Mapping[str, Any]):
    """Several statistics gathered together, merged name by name.

    A name that only one side holds is kept as it is.

    Parameters
    ----------
    items : mapping, optional
        Statistics by name; none is the identity of merging.

    Examples
    --------
    >>> import numpy as np
    >>> from hsi_batch.statistics import Extrema
    >>> low = Bundle({"cube": Extrema.empty(1, "uint8").update(np.array([[3]], dtype=np.uint8))})
    >>> high = Bundle({"cube": Extrema.empty(1, "uint8").update(np.array([[9]], dtype=np.uint8))})
    >>> low.merge(high)["cube"].high.tolist()
    [9]
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any] | None = None) -> None:
        self._items = dict(items or {})

    def merge(self, other: Bundle) -> Bundle:
        """Merge name by name."""
        items = dict(self._items)
        for name, value in other.items():
            items[name] = items[name].merge(value) if name in items else value
        return Bundle(items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
