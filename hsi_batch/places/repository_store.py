"""What an Icechunk repository holds, as a Zarr store whose errors are ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

import icechunk
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from hsi_batch.errors import StorageError

__all__ = ["RepositoryStore", "errors_of"]

T = TypeVar("T")


@contextmanager
def errors_of(body: str) -> Iterator[None]:
    """Turn errors of the library into ours.

    Parameters
    ----------
    body : str
        URL of the repository.

    Raises
    ------
    hsi_batch.errors.StorageError
        Of any of them: which are damage and which are storage that does not answer cannot be told.
    """
    try:
        yield
    except icechunk.IcechunkError as error:
        lines = (line.strip() for line in str(error).splitlines())
        said = next(filter(None, lines), "no message")
        raise StorageError(
            f"the repository cannot be read or written ({said[:300]}): its storage does not"
            " answer, or files of it are damaged.",
            path=body,
            hint="Check the endpoint, the credentials and the network, and run again. An earlier"
            " version may open: add @v1 (v2, ...) to the URL.",
        ) from None


class RepositoryStore(WrapperStore[Store]):
    """The store of a session of a repository.

    Parameters
    ----------
    store : icechunk.IcechunkStore
    body : str
        URL of the repository, for messages.
    """

    def __init__(self, store: Store, body: str) -> None:
        super().__init__(store)
        self._body = body

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._body)

    def __str__(self) -> str:
        return self._body

    @property
    def supports_consolidated_metadata(self) -> bool:
        """No: snapshots hold all metadata together."""
        return False

    async def _told(self, asked: Awaitable[T]) -> T:
        with errors_of(self._body):
            return await asked

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See the base class."""
        return await self._told(super().get(key, prototype, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """See the base class."""
        return await self._told(super().get_partial_values(prototype, key_ranges))

    async def exists(self, key: str) -> bool:
        """See the base class."""
        return await self._told(super().exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """See the base class."""
        await self._told(super().set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """See the base class."""
        await self._told(super().set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        """See the base class."""
        await self._told(super().delete(key))

    async def delete_dir(self, prefix: str) -> None:
        """See the base class."""
        await self._told(super().delete_dir(prefix))

    async def _listed(self, names: AsyncIterator[str]) -> AsyncGenerator[str, None]:
        with errors_of(self._body):
            async for name in names:
                yield name

    def list(self) -> AsyncIterator[str]:
        """See the base class."""
        return self._listed(super().list())

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """See the base class."""
        return self._listed(super().list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """See the base class."""
        return self._listed(super().list_dir(prefix))
