"""Writing to a store: alone, and where the store can do so, whole or not at all.

For folders and plain object stores what is committed is there at once, and these functions do
nothing; a run state and seals tell a finished run from one that was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import zarr

from hsi_batch.archive.lock_object import store_lock
from hsi_batch.archive.store import state_folder
from hsi_batch.places import is_url, normal_url
from hsi_batch.places.url import VERSIONED

if TYPE_CHECKING:
    from hsi_batch.places.versioned import Transaction

__all__ = ["absorb", "changes_at", "committed", "pinned", "writing"]

_open: dict[str, Transaction] = {}


@contextmanager
def writing(store: str, purpose: str) -> Iterator[str]:
    """Hold the lock of a store, and publish what was written at the end.

    Yields the URL or path to write to. If an exception ends the block, a transactional store stays
    as it was for those who read it, and the next run goes on where this one was.

    Raises
    ------
    hsi_batch.errors.StoreInUseError
        Another run holds the lock.
    """
    with store_lock(state_folder(store), purpose):
        if not _versioned(store):
            yield store
            return
        from hsi_batch.places.stores import need

        need("icechunk", store, "icechunk")
        from hsi_batch.places.versioned import Transaction

        with Transaction(normal_url(store), purpose) as transaction:
            _open[transaction.url] = transaction
            try:
                yield transaction.url
            finally:
                del _open[transaction.url]


def _versioned(store: str) -> bool:
    return is_url(store) and store.startswith(VERSIONED)


def committed(root: zarr.Group, store: str) -> zarr.Group:
    """Let workers see what the coordinator wrote; the group to go on with."""
    if store not in _open:
        return root
    from hsi_batch.places.versioned import reopened

    _open[store].commit()
    return reopened(store)


def pinned(store: str) -> str:
    """The store as it is now, for workers that read what was written."""
    return _open[store].commit() if store in _open else store


def changes_at(store: str) -> bytes | None:
    """On a worker, at the end of a task: what the coordinator must know of it."""
    if not _versioned(store):
        return None
    from hsi_batch.places.versioned import changes_at as found

    return found(store)


def absorb(store: str, changes: bytes | None) -> None:
    """Take what a worker changed into the run."""
    if store in _open:
        _open[store].merge(changes)
