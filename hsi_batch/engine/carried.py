"""Work that the scheduler passes on to workers without looking into it.

Dask unpickles what it is given on the scheduler as well: it would import torch, numba and zarr
there before the first task of a run goes out, which takes seconds and a quarter of a gigabyte, and
it would need the plugins of users. So functions and their arguments travel as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle
from distributed import Client, Future

__all__ = ["Carried", "map_carried", "submit_carried"]


class Carried:
    """A value as bytes that only a worker turns back.

    Parameters
    ----------
    raw : bytes
        What :meth:`of` made.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def of(cls, value: Any) -> Any:
        """Wrap a value, once; a future stays what it is, for Dask to resolve."""
        return value if isinstance(value, (Carried, Future)) else cls(cloudpickle.dumps(value))

    def __reduce__(self) -> tuple[type[Carried], tuple[bytes]]:
        return Carried, (self.raw,)


def _opened(value: Any) -> Any:
    return cloudpickle.loads(value.raw) if isinstance(value, Carried) else value


def _call(function: Carried, *arguments: Any) -> Any:
    return _opened(function)(*map(_opened, arguments))


def submit_carried(
    client: Client, function: Callable[..., Any], *arguments: Any, **options: Any
) -> Future[Any]:
    """As :meth:`distributed.Client.submit`; futures are arguments of their own, not within one."""
    carried = map(Carried.of, (function, *arguments))
    return client.submit(_call, *carried, pure=False, **options)


def map_carried(
    client: Client,
    function: Callable[..., Any] | Carried,
    *iterables: Iterable[Any],
    **options: Any,
) -> list[Future[Any]]:
    """As :meth:`distributed.Client.map`; what is wrapped already is not pickled again."""
    columns = [[Carried.of(value) for value in values] for values in iterables]
    calls = [Carried.of(function)] * len(columns[0])
    found: list[Future[Any]] = client.map(_call, calls, *columns, pure=False, **options)
    return found
