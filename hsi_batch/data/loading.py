"""Batches of a training: shuffled by seed and epoch, decoded ahead in the background."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.selection import Lines, Selection
from hsi_batch.data.batches import frame_batch, joined
from hsi_batch.data.patches import PatchPlan, fill_invalid, frame_patches
from hsi_batch.errors import DataError, DataWarning, SourceError

__all__ = ["TrainingBatches"]


class _Item(NamedTuple):
    place: int
    session: str
    frame: int
    lines: Lines


class TrainingBatches:
    """Batches of frames, or of patches of frames, one epoch at a time.

    What an epoch holds depends on the seed and on the number of the epoch, not on how many threads
    read. A frame that cannot be read is left out, with a warning; an epoch has as many batches all
    the same, and begins again with those it has for the missing ones.

    Parameters
    ----------
    archive : Archive
    selection : Selection
        Frames.
    batch_size : int
        Frames per batch, at most.
    seed : int
    shuffle : bool
        Frames in another order in each epoch; else in order.
    patches : PatchPlan, optional
        Patches instead of whole frames.
    threads : int
        Threads that read and decode, each one batch ahead.
    limit : int or float, optional
        Batches of an epoch, at most; a floating point number is a share of them, at least one.

    Attributes
    ----------
    epoch : int
        The epoch that the next iteration gives.
    waited : float
        Seconds that whoever iterates has waited for data so far.
    failures : dict of BlockKey to str
        Frames that could not be read, with the reason.
    """

    def __init__(
        self,
        archive: Archive,
        selection: Selection,
        batch_size: int = 1,
        *,
        seed: int = 42,
        shuffle: bool = True,
        patches: PatchPlan | None = None,
        threads: int = 2,
        limit: float | None = None,
    ) -> None:
        self.seed = seed
        self.shuffle = shuffle
        self.patches = patches
        self.threads = max(threads, 1)
        self.epoch = 0
        self.waited = 0.0
        self.failures: dict[BlockKey, str] = {}
        self._batch_size = batch_size
        self._limit = limit
        self._sessions = {name: archive.session(name) for name in selection.sessions}
        self._kinds: dict[tuple[Any, ...], list[_Item]] = {}
        for place, (name, frame, lines) in enumerate(selection):
            item = _Item(place, name, frame, lines)
            self._kinds.setdefault(self._kind(item), []).append(item)

    def _kind(self, item: _Item) -> tuple[Any, ...]:
        """What frames must share to stand in one batch."""
        session = self._sessions[item.session]
        height, width, channels = session.geometry.shape
        first, last = item.lines or (0, height)
        tall = last - first
        if self.patches is not None:
            tall, width = min(tall, self.patches.size[0]), min(width, self.patches.size[1])
        axis = session.wavelength
        known = None if axis is None else axis.tobytes()
        return tall, width, channels, session.geometry.dtype, known

    def __len__(self) -> int:
        whole = sum(-(-len(items) // self._batch_size) for items in self._kinds.values())
        if self._limit is None:
            return whole
        if isinstance(self._limit, int):
            return min(whole, self._limit)
        return min(whole, max(1, int(self._limit * whole)))

    def read_bytes(self, name: str) -> int:
        """Stored bytes that are read of a frame of a session, at most."""
        geometry = self._sessions[name].geometry
        if self.patches is None:
            return geometry.frame_bytes
        blocks = (self.patches.size[0] - 2) // geometry.lines + 2
        return min(geometry.frame_bytes, self.patches.per_frame * blocks * geometry.block_bytes)

    @property
    def bytes(self) -> int:
        """Stored bytes that an epoch reads, at most."""
        sizes = [self.read_bytes(item.session) for items in self._kinds.values() for item in items]
        most = len(self) * self._batch_size
        return sum(sorted(sizes, reverse=True)[:most])

    @property
    def most_values(self) -> int:
        """Numbers in the largest batch: pixels times channels."""
        per_item = 1 if self.patches is None else self.patches.per_frame
        return max(
            (
                min(self._batch_size, len(items)) * per_item * tall * wide * channels
                for (tall, wide, channels, *_), items in self._kinds.items()
            ),
            default=0,
        )

    @property
    def most_item_bytes(self) -> int:
        """Bytes of a stored number."""
        return max((s.geometry.item_bytes for s in self._sessions.values()), default=0)

    @property
    def most_block_bytes(self) -> int:
        """Bytes of the largest block of any session."""
        return max((s.geometry.block_bytes for s in self._sessions.values()), default=0)

    def order(self, epoch: int) -> list[list[_Item]]:
        """Frames of each batch of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        groups: list[list[_Item]] = []
        for items in self._kinds.values():
            turn = rng.permutation(len(items)) if self.shuffle else np.arange(len(items))
            chosen = [items[i] for i in turn]
            size = self._batch_size
            groups += [chosen[i : i + size] for i in range(0, len(chosen), size)]
        if self.shuffle:
            groups = [groups[i] for i in rng.permutation(len(groups))]
        return groups[: len(self)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, groups = self.epoch, self.order(self.epoch)
        given = 0
        while given < len(groups):
            before = given
            for batch in self._ahead(epoch, groups):
                yield batch
                given += 1
                if given == len(groups):
                    return
            if given == before:
                reason = next(iter(self.failures.values()), "there is none")
                raise DataError(
                    f"no frame of the {len(groups)} batches could be read: {reason}",
                    hint="Check the store with hsi-batch verify --deep.",
                )

    def _ahead(self, epoch: int, groups: list[list[_Item]]) -> Iterator[dict[str, Any]]:
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
        waiting: deque[Future[tuple[dict[str, Any] | None, list[tuple[BlockKey, str]]]]] = deque()
        left = iter(groups)
        try:
            for _ in range(self.threads + 1):
                for group in left:
                    waiting.append(pool.submit(self._read, epoch, group))
                    break
            while waiting:
                started = time.perf_counter()
                batch, failed = waiting.popleft().result()
                self.waited += time.perf_counter() - started
                for group in left:
                    waiting.append(pool.submit(self._read, epoch, group))
                    break
                self._note(failed)
                if batch is not None:
                    yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(
        self, epoch: int, group: list[_Item]
    ) -> tuple[dict[str, Any] | None, list[tuple[BlockKey, str]]]:
        parts: list[dict[str, Any]] = []
        failed: list[tuple[BlockKey, str]] = []
        for item in group:
            session = self._sessions[item.session]
            try:
                if self.patches is None:
                    parts.append(frame_batch(session, item.frame, item.lines))
                else:
                    rng = np.random.default_rng([self.seed, epoch, item.place])
                    parts.append(frame_patches(session, item.frame, item.lines, self.patches, rng))
            except SourceError as error:
                key = BlockKey(item.session, item.frame, *(item.lines or (0, 0)))
                failed.append((key, str(error)))
        return (fill_invalid(joined(parts)) if parts else None), failed

    def _note(self, failed: list[tuple[BlockKey, str]]) -> None:
        for key, reason in failed:
            if key not in self.failures:
                self.failures[key] = reason
                warnings.warn(f"a frame was left out: {reason}", DataWarning, stacklevel=3)
