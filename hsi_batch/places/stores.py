"""The Zarr store of a URL, opened once per process."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from zarr.abc.store import Store

from hsi_batch.errors import ConfigError
from hsi_batch.places.url import VERSIONED

__all__ = ["store_at"]

#: What obstore reads; all else is asked of fsspec.
_OBSTORE = ("s3", "s3a", "gs", "az", "abfs", "abfss", "azure", "adl")


def store_at(url: str) -> Store:
    """The store whose root a URL names.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The package that reads such URLs is not installed, or does not know the scheme.
    hsi_batch.errors.StoreError
        There is no such version.
    """
    if url.startswith(VERSIONED):
        need("icechunk", url, "icechunk")
        from hsi_batch.places.versioned import versioned_store

        return versioned_store(url)
    return _plain(url)


@lru_cache(maxsize=256)
def _plain(url: str) -> Store:
    scheme = url.partition("://")[0]
    if scheme in _OBSTORE:
        need("obstore", url, "s3")
        from hsi_batch.places.objects import ObjectsAt

        return ObjectsAt(url)
    from fsspec.asyn import AsyncFileSystem
    from fsspec.core import url_to_fs
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from zarr.storage import FsspecStore

    try:
        # Files on disks are made with the folders they lie in.
        folders = {"auto_mkdir": True} if scheme in ("local", "file") else {}
        system, path = url_to_fs(url, asynchronous=True, **folders)
    except (ImportError, ValueError, OSError) as error:
        raise ConfigError(
            f"fsspec cannot open this: {error}",
            path=url,
            hint="Check the scheme, or install the package that the message names.",
        ) from None
    if not isinstance(system, AsyncFileSystem):
        system = AsyncFileSystemWrapper(system, asynchronous=True)
    return FsspecStore(system, path=path)


def need(package: str, url: str, extra: str) -> None:
    """Refuse a URL whose package is not installed, with the line that installs it."""
    if find_spec(package) is None:
        raise ConfigError(
            f"this URL needs the package {package}, which is not installed.",
            path=url,
            hint=f"Install it with: pip install 'hsi-batch[{extra}]'",
        )
