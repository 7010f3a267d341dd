"""What the names in a folder say of the recordings in it, looked at once for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from hsi_batch.errors import SourceError

__all__ = ["once_per_folder"]

T = TypeVar("T")
# A folder that changed this recently may change again within the resolution of its time stamp.
_SETTLED_NS = 2_000_000_000


def once_per_folder(look: Callable[[Sequence[str]], T]) -> Callable[[Path], T]:
    """Make a function of the sorted names in a folder one of the folder.

    It looks again only after the folder has changed: ten thousand recordings that lie together
    would be listed ten thousand times, which takes longer than to convert them.

    Parameters
    ----------
    look : callable

    Returns
    -------
    callable
        Raises :class:`~hsi_batch.errors.SourceError` for a folder that cannot be listed.

    Examples
    --------
    >>> @once_per_folder
    ... def tables(names):
    ...     return [name for name in names if name.endswith(".csv")]
    >>> tables(Path.cwd()) == sorted(path.name for path in Path.cwd().glob("*.csv"))
    True
    """

    def listed(folder: Path) -> T:
        return look(sorted(os.listdir(folder)))  # noqa: PTH208 - names, not ten thousand paths

    @lru_cache(maxsize=16)
    def kept(folder: Path, _changed: int) -> T:
        return listed(folder)

    @wraps(look)
    def of(folder: Path) -> T:
        try:
            changed = folder.stat().st_mtime_ns
            if time.time_ns() - changed < _SETTLED_NS:
                return listed(folder)
            return kept(folder, changed)
        except OSError as error:
            raise SourceError(
                "the folder cannot be searched for labels, references and positions:"
                f" {error.strerror}.",
                path=str(folder),
                hint="Check the permissions, or say --annotations none --white none --igm none"
                " --gps none.",
            ) from error

    return of
