"""Trying again what a disk or a network share refused for a moment."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from hsi_batch.errors import StorageError

__all__ = ["is_transient", "patiently"]

T = TypeVar("T")

_ATTEMPTS = 5
#: Waits are drawn from up to these, doubled each time: workers that failed together come apart.
_FIRST_SECONDS, _MOST_SECONDS = 0.2, 10.0
_PASSING = {
    errno.EIO,
    errno.EAGAIN,
    errno.EINTR,
    errno.EBUSY,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ENOTCONN,
    errno.EPIPE,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
    errno.EREMOTEIO,
    errno.EPROTO,
}


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that led to it, may be gone when the same is tried again.

    Examples
    --------
    >>> is_transient(OSError(errno.ESTALE, "stale file handle")), is_transient(ValueError())
    (True, False)
    """
    if isinstance(error, StorageError):
        # Asked for minutes already, by the store itself.
        return False
    return any(
        isinstance(one, (TimeoutError, ConnectionError))
        or (isinstance(one, OSError) and one.errno in _PASSING)
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def patiently(function: Callable[..., T], *arguments: object) -> T:
    """Call a function, up to five times while what it raises :func:`is_transient`.

    Between the calls it waits up to 0.2, 0.4, 0.8, 1.6 seconds.

    Parameters
    ----------
    function : callable
        Safe to call again after it failed.
    *arguments
        Its own.
    """
    try:
        return function(*arguments)
    except Exception as error:
        if not is_transient(error):
            raise
        failed = [error]

    def again() -> T:
        # What failed is told to tenacity as its first attempt: it takes longer to set up than most
        # of what is tried here.
        if failed:
            raise failed.pop()
        return function(*arguments)

    retrying = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(multiplier=_FIRST_SECONDS, max=_MOST_SECONDS),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )
    return retrying(again)
