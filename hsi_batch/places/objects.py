"""Object stores by obstore: credentials from the usual places, patience, errors of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Self, TypeVar

from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from hsi_batch.errors import StorageError
from hsi_batch.places.credentials import aws_settings

__all__ = ["ObjectsAt"]

T = TypeVar("T")

#: By the library: refused and broken connections, 5xx and 429, with jittered back-off.
_RETRIES: Any = {
    "max_retries": 12,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}
_CLIENT: Any = {"connect_timeout": "10s", "timeout": "120s"}
#: On top of these: answers that break off in the middle of their bytes. Not for storage that was
#: asked in vain for so many seconds already.
_ATTEMPTS, _PAUSE, _ENOUGH = 5, 0.2, 60.0
_DENIED = (
    "Check the credentials (AWS_ACCESS_KEY_ID and so on, or ~/.aws and AWS_PROFILE), and what they"
    " permit."
)


class ObjectsAt(ObjectStore[Any]):
    """The objects below a URL.

    It pickles as its URL: credentials stay in their process.

    Parameters
    ----------
    url : str
    read_only : bool
    """

    def __init__(self, url: str, *, read_only: bool = False, opened: Any = None) -> None:
        super().__init__(opened or _open(url), read_only=read_only)
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.url, self.read_only)

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, ObjectsAt) and other.url == self.url
        return same and getattr(other, "read_only", None) == self.read_only

    __hash__ = None  # type: ignore[assignment]

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same objects, to be written to or not."""
        return type(self)(self.url, read_only=read_only, opened=self.store)

    async def _patiently(self, ask: Callable[[], Awaitable[T]], key: str) -> T:
        begun = time.monotonic()
        for attempt in range(_ATTEMPTS):
            try:
                return await ask()
            except FileNotFoundError as error:
                # What is missing below a bucket is told by the store itself.
                raise self._error(error, key) from None
            except BaseError as error:
                waited = time.monotonic() - begun
                if _denied(error) or attempt == _ATTEMPTS - 1 or waited > _ENOUGH:
                    raise self._error(error, key) from None
                await asyncio.sleep(_PAUSE * 2**attempt)
        raise AssertionError("the last attempt raises")

    def _error(self, error: Exception, key: str) -> StorageError:
        place = f"{self.url}/{key}".rstrip("/")
        if _denied(error):
            return StorageError("access is denied.", path=place, hint=_DENIED)
        if isinstance(error, FileNotFoundError):
            return StorageError(
                "there is no such bucket or container.",
                path=place,
                hint="Check its name, or make it.",
            )
        # The first line; the others are the library's own view of itself.
        said = str(error).strip().splitlines()[0][:300]
        return StorageError(
            f"the storage does not answer as it should ({said}).",
            path=place,
            hint="Check the endpoint and the network, and run the same command again.",
        )

    # -- the methods of the store, with patience ---------------------------------------------

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See the base class."""
        return await self._patiently(
            lambda: super(ObjectsAt, self).get(key, prototype, byte_range), key
        )

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """See the base class."""
        asked = list(key_ranges)
        return await self._patiently(
            lambda: super(ObjectsAt, self).get_partial_values(prototype, asked), ""
        )

    async def exists(self, key: str) -> bool:
        """See the base class."""
        return await self._patiently(lambda: super(ObjectsAt, self).exists(key), key)

    async def set(self, key: str, value: Buffer) -> None:
        """See the base class."""
        await self._patiently(lambda: super(ObjectsAt, self).set(key, value), key)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """See the base class."""
        await self._patiently(lambda: super(ObjectsAt, self).set_if_not_exists(key, value), key)

    async def delete(self, key: str) -> None:
        """See the base class."""
        await self._patiently(lambda: super(ObjectsAt, self).delete(key), key)

    async def delete_dir(self, prefix: str) -> None:
        """See the base class."""
        await self._patiently(lambda: super(ObjectsAt, self).delete_dir(prefix), prefix)

    async def _listing(self, listed: Callable[[], AsyncIterator[str]], key: str) -> list[str]:
        async def whole() -> list[str]:
            return [name async for name in listed()]

        return await self._patiently(whole, key)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """See the base class."""
        for name in await self._listing(lambda: super(ObjectsAt, self).list_prefix(prefix), prefix):
            yield name

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """See the base class."""
        for name in await self._listing(lambda: super(ObjectsAt, self).list_dir(prefix), prefix):
            yield name


def _denied(error: Exception) -> bool:
    # Listings say so in words only.
    words = ("403 Forbidden", "401 Unauthorized")
    kinds = (PermissionDeniedError, UnauthenticatedError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def _opened(url: str, read_only: bool) -> ObjectsAt:
    return ObjectsAt(url, read_only=read_only)


def _open(url: str) -> Any:
    scheme = url.partition("://")[0]
    settings = aws_settings() if scheme in ("s3", "s3a") else {}
    options = dict(_CLIENT) | settings.pop("client_options", {})
    return from_url(url, retry_config=_RETRIES, client_options=options, **settings)
