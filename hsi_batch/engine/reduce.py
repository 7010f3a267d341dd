"""Merging results on the workers, pair by pair, as neighbours are finished."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from distributed import Client, Future, KilledWorker

__all__ = ["TreeReduction", "merge_all"]

#: So often a reduction is taken up again after workers died under it.
_TRIES = 20


def merge_all(parts: Iterable[Any]) -> Any:
    """Merge mergeable values from left to right; None for none."""
    merged = None
    for part in parts:
        merged = part if merged is None else merged.merge(part)
    return merged


def _merge(*parts: Any) -> Any:
    return merge_all(parts)


class TreeReduction:
    """A reduction over numbered results that stays on the workers until the end.

    What is merged must not depend on the grouping (see :class:`~hsi_batch.statistics.Forest`); the
    tree over task numbers only keeps partial results small and few.

    Parameters
    ----------
    client : distributed.Client
    fan_in : int
        Results that are merged at once.
    fetched : int
        Results that are fetched and merged here at the end, at most: small ones are there before a
        worker would have begun to merge them.
    """

    def __init__(self, client: Client, fan_in: int = 8, fetched: int = 1) -> None:
        self._client = client
        self._fan_in = fan_in
        self._fetched = fetched
        self._open: list[Future[Any]] = []

    def add(self, future: Future[Any]) -> None:
        """Take a finished result; merge when enough are waiting."""
        self._open.append(future)
        if len(self._open) >= 2 * self._fan_in:
            ready, self._open = self._open[: self._fan_in], self._open[self._fan_in :]
            self._open.append(self._client.submit(_merge, *ready, pure=False))

    def _rounds(self) -> Iterator[list[Future[Any]]]:
        while len(self._open) > 1:
            groups = [
                self._open[i : i + self._fan_in] for i in range(0, len(self._open), self._fan_in)
            ]
            self._open = [self._client.submit(_merge, *group, pure=False) for group in groups]
            yield self._open

    def merged(self) -> Future[Any] | None:
        """Merge what is left and leave it on a worker; None if there was nothing."""
        for _ in self._rounds():
            pass
        return self._open[0] if self._open else None

    def result(self) -> Any:
        """Merge what is left and fetch it; None if there was nothing."""
        if 1 < len(self._open) <= self._fetched:
            # Of those that are lost the tree below gets hold again.
            with contextlib.suppress(KilledWorker):
                return merge_all(self._client.gather(self._open))
        future = self.merged()
        if future is None:
            return None
        for _ in range(_TRIES):
            try:
                return future.result()
            except KilledWorker:
                # Dask blames whatever waited on workers that died, and merges only wait.
                with contextlib.suppress(KeyError):
                    # Raised of merges below, whose futures are no more; they are retried, too.
                    self._client.retry([future])
                future = self._client.submit(_merge, future, pure=False)
        return future.result()
