"""What killed processes leave half written, removed by whoever holds the lock."""

from __future__ import annotations

from pathlib import Path

from hsi_batch.archive.shards import PARTIAL
from hsi_batch.archive.store import state_folder
from hsi_batch.files import remove_unfinished

__all__ = ["remove_leftovers"]


def remove_leftovers(store: str | Path) -> None:
    """Remove unfinished metadata of a store and unfinished files of its run state.

    Chunks are not looked for; see :func:`~hsi_batch.archive.chunks.remove_partial`.
    """
    place = Path(store)
    for pattern in (f"*{PARTIAL}", f"*/*{PARTIAL}"):
        for path in place.glob(pattern):
            path.unlink(missing_ok=True)
    state = state_folder(place)
    for folder in (state, *(state / "records").glob("*")):
        remove_unfinished(folder, "*")
