"""What killed processes leave half written, removed by whoever holds the lock."""

from __future__ import annotations

from pathlib import Path

from hsi_batch.archive.shards import PARTIAL
from hsi_batch.archive.store import state_folder
from hsi_batch.files import remove_unfinished
from hsi_batch.places import Place, place

__all__ = ["remove_leftovers"]


def remove_leftovers(store: str | Place) -> None:
    """Remove unfinished metadata of a store and unfinished files of its run state.

    Chunks are not looked for; see :func:`~hsi_batch.archive.chunk_writer.remove_partial`. Objects
    of a remote store are whole, or not there.
    """
    where = place(store)
    if not isinstance(where, Path) or not where.is_dir():
        return
    for folder in (where, *(path for path in where.iterdir() if path.is_dir())):
        for path in folder.glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)
        remove_unfinished(folder, "zarr.json")
    state = state_folder(where)
    assert isinstance(state, Path)
    for folder in (state, *(state / "records").glob("*")):
        remove_unfinished(folder, "*")
