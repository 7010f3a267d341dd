"""Places that a stage writes to: checked before any work, held while it runs."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hsi_batch.archive.lock import StoreLock
from hsi_batch.archive.store import refuse_linked_state, state_folder
from hsi_batch.archive.transactions import writing
from hsi_batch.archive.writer import disk_errors
from hsi_batch.errors import ConfigError, StoreInUseError
from hsi_batch.files import remove_unfinished
from hsi_batch.places import is_url
from hsi_batch.stages.slices import refuse_open
from hsi_batch.stages.status import telling

__all__ = ["check_place", "held_store", "sweep"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuse a place that cannot be written to; nothing is left there.

    Parameters
    ----------
    path : path
        Of what will be written; folders above it that do not exist will be made.
    folder : bool
        A folder will be written, not a file.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A file is in the way, or writing there is not permitted.
    """
    if is_url(path):
        raise ConfigError(
            "this is a URL; pipelines and reports are written to local files.",
            path=os.fspath(path),
            hint="Name a local file, and copy it where it belongs.",
        )
    target = Path(path).absolute()
    if not folder and target.is_dir():
        raise ConfigError(
            "this is a folder; the name of a file to write was expected.", path=str(path)
        )
    above = next(p for p in target.parents if p.exists())
    if not above.is_dir():
        raise ConfigError(
            f"nothing can be written here, for {above} is a file.",
            path=str(path),
            hint="Choose another place.",
        )
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        if error.errno in _FULL:
            # Writing itself will say so, unless there is space by then.
            return
        raise ConfigError(
            f"the folder {above} cannot be written to ({error.strerror}).",
            path=str(path),
            hint="Choose another place, or change the permissions.",
        ) from None


@contextmanager
def held_store(store: str, purpose: str) -> Iterator[str]:
    """Hold the lock of a store that is written to; a refused run leaves no empty folders behind.

    Yields what to write to (:func:`~hsi_batch.archive.transactions.writing`).

    Raises
    ------
    hsi_batch.errors.ConfigError
        The store cannot be written to.
    hsi_batch.errors.StoreError
        Another run holds the lock, slices are at work, or the disk is full.
    """
    state = state_folder(store)
    if is_url(store):
        with disk_errors(store), writing(store, purpose) as target, telling(state):
            yield target
        return
    assert isinstance(state, Path)
    check_place(store, folder=True)
    refuse_linked_state(store)
    made = [folder for folder in (state, *state.parents) if not folder.exists()]
    try:
        with disk_errors(store), StoreLock(state, purpose), telling(state):
            refuse_open(store)
            _remove_unfinished(Path(store))
            yield store
    finally:
        with contextlib.suppress(OSError):
            for folder in made or [state]:
                folder.rmdir()


def _remove_unfinished(target: Path) -> None:
    """Remove what a killed run left half written of a fitted pipeline and its weights."""
    for path in (target, target.with_suffix(".pt")):
        remove_unfinished(path.parent, glob.escape(path.name))


def sweep(store: str | os.PathLike[str], discard: Callable[[], None]) -> None:
    """Remove what a run left which was killed when all else was done.

    Parameters
    ----------
    store : path
        What is up to date.
    discard : callable
        Removes what was kept to go on from; not called while another run is there.
    """
    state = state_folder(os.fspath(store))
    if not isinstance(state, Path) or not state.is_dir():
        return
    with contextlib.suppress(StoreInUseError, OSError), StoreLock(state, "sweep"), telling(state):
        _remove_unfinished(Path(store))
        discard()
    with contextlib.suppress(OSError):
        state.rmdir()
