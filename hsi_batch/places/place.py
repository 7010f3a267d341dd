"""Telling paths and URLs apart, once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, TypeAlias

from hsi_batch.files import digest_of
from hsi_batch.places.remote import RemotePlace
from hsi_batch.places.url import VERSIONED, WORKING, is_url, joined, normal_url, split_version

__all__ = [
    "Place",
    "absolute",
    "beside",
    "gathers",
    "place",
    "public",
    "read_anew",
    "remove_tree",
    "stamp",
    "zarr_store",
]

#: A file or folder on a file system, or an object or prefix of a remote store.
Place: TypeAlias = Path | RemotePlace


def place(where: str | os.PathLike[str] | RemotePlace) -> Place:
    """The place that a path or URL names.

    Parameters
    ----------
    where : path or URL
        ``s3://``, ``gs://``, ``az://`` by obstore, ``icechunk+s3://`` and ``icechunk+file://``
        (transactional), and what fsspec knows.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The URL carries credentials, or the package that reads it is not installed.
    """
    if isinstance(where, RemotePlace):
        return where
    if not is_url(where):
        return Path(where)
    url = normal_url(where)
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    from hsi_batch.places.stores import store_at

    return RemotePlace(url, store_at(url))


def absolute(where: str | os.PathLike[str] | RemotePlace) -> str:
    """A path or URL that means the same in every process."""
    if isinstance(where, RemotePlace) or (is_url(where) and not str(where).startswith("file:")):
        return normal_url(str(where))
    local = place(where)
    assert isinstance(local, Path)
    return str(local.absolute())


def public(where: str) -> str:
    """A store as people name it, without the mark of a run that is writing it."""
    body, version = split_version(where)
    return body if version.startswith(WORKING) else where


def beside(where: Place, suffix: str) -> Place:
    """What lies beside a store, under its name and a suffix.

    Beside a transactional store it lies in the storage below it, which has no versions.
    """
    if isinstance(where, Path):
        return where.with_name(where.name + suffix)
    return place(joined(where.url, suffix))


def stamp(file: Place) -> str:
    """Changes whenever a file is written again.

    Raises
    ------
    OSError
        It is missing.
    """
    if isinstance(file, Path):
        meta = file.stat()
        return f"{meta.st_size}-{meta.st_mtime_ns}"
    return digest_of(file.read_bytes())[:32]


def zarr_store(where: Place) -> Any:
    """What Zarr and xarray open: the path as text, or the store of a URL."""
    if isinstance(where, Path):
        return str(where)
    assert not where.key, "stores are opened at their root"
    return where.store


def read_anew(where: str) -> None:
    """Forget what a repository told this process, which keeps what can no more change.

    Whoever checks stored bytes would else be told of those that were read before.
    """
    if where.startswith(VERSIONED):
        from hsi_batch.places.versioned import repository

        repository.cache_clear()


def remove_tree(where: Place) -> None:
    """Remove a folder and everything below; nothing if it is not there."""
    if isinstance(where, Path):
        shutil.rmtree(where, ignore_errors=True)
    else:
        where.rmtree()


def gathers(store: Place) -> bool:
    """Whether the root of such a store holds the metadata of all sessions too."""
    return isinstance(store, Path) or bool(store.store.supports_consolidated_metadata)
