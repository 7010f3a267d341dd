"""Removing sessions."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hsi_batch.archive.catalog import save_catalog
from hsi_batch.archive.gathering import consolidate, session_heads
from hsi_batch.archive.partials import partials_of
from hsi_batch.archive.records import Records
from hsi_batch.archive.store import (
    ARCHIVE,
    open_root,
    refuse_linked_state,
    state_folder,
    store_place,
)
from hsi_batch.archive.transactions import writing
from hsi_batch.archive.writer import disk_errors
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.places import Place, is_url, normal_url, place, remove_tree, split_version

__all__ = ["remove_session", "split_path"]


def split_path(text: str | os.PathLike[str]) -> tuple[Place, str | None]:
    """Split ``STORE/SESSION`` into both; the session is None for a store.

    Examples
    --------
    >>> split_path("archive.zarr/lentils_000")
    (PosixPath('archive.zarr'), 'lentils_000')
    """
    if is_url(text):
        return _split_url(normal_url(text))
    path = Path(text)
    if (path.parent / "zarr.json").exists() and not (path / "zarr.json").exists():
        return path.parent, path.name
    if (path / "zarr.json").exists() and (path.parent / "zarr.json").exists():
        return path.parent, path.name
    if not path.exists() and path.parent.suffix == ".zarr":
        return path.parent, path.name
    return path, None


def _split_url(url: str) -> tuple[Place, str | None]:
    body, version = split_version(url)
    above, _, name = body.rpartition("/")
    here = place(url)
    if "/" in above.partition("://")[2] and name:
        store = place(f"{above}@{version}" if version else above)
        inside = (here / "zarr.json").is_file()
        if (store / "zarr.json").is_file() and (inside or not here.is_dir()):
            return store, name
    return here, None


def remove_session(archive: str | os.PathLike[str], name: str) -> None:
    """Remove a session from an archive: its arrays, its catalog row and its records.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no such session.
    hsi_batch.errors.StoreError
        Not an archive, in use by another run, or not to be written to.
    """
    path = place(archive)
    open_root(path, ARCHIVE)
    refuse_linked_state(path)
    with disk_errors(str(path)), writing(str(path), f"rm {name}") as target:
        root = open_root(target, ARCHIVE, "r+")
        present = session_heads(store_place(root))
        if name not in present:
            raise ConfigError(
                f"there is no session {name!r}.{did_you_mean(name, present)}",
                path=str(path),
                hint="See the sessions with hsi-batch ls.",
            )
        if isinstance(path, Path):
            with tempfile.TemporaryFile(dir=path):
                # Where nothing can be written, nothing may be removed in part.
                pass
        records = Records(state_folder(path) / "records" / "convert")
        kept = [r for key, r in records.load().items() if key.session != name]
        del root[name]
        remove_tree(partials_of(path, name))
        records.pack(kept)
        consolidate(root)
        save_catalog(target, root)
