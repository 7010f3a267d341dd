"""The grid of a session: frames, blocks, leaves, rows of statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.statistics.leaves import block_lines, leaf_count, leaf_lines
from hsi_batch.statistics.packed import packed_size

__all__ = ["SHARD_BYTES", "BlockKey", "FrameBlocks", "Geometry"]

#: Statistics of a block are kept per block while they are below this share of its pixels.
_STATISTICS_SHARE = 0.05
#: Most pixels of a row of statistics that covers several frames, so that sums fit int64.
_ROW_PIXELS = 2**30
#: Bytes of pixels of a shard, about: what one task does.
SHARD_BYTES = 128 * 2**20
#: Spectra kept of each leaf.
_PICKS = 8


@dataclass(frozen=True, order=True, slots=True)
class BlockKey:
    """Address of a block: a run of whole lines of one frame of a session.

    Examples
    --------
    >>> str(BlockKey("lentils_000", 3, 0, 128))
    'lentils_000[3][y=0:128]'
    """

    session: str
    frame: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.session}[{self.frame}][y={self.start}:{self.stop}]"


@dataclass(frozen=True)
class FrameBlocks(Sequence[BlockKey]):
    """All blocks of some frames of a session, made when they are asked for.

    Attributes
    ----------
    session : str
    frames : sequence of int
    ranges : tuple of (int, int)
        Line ranges of the blocks of a frame.

    Examples
    --------
    >>> [str(key) for key in FrameBlocks("a", range(1, 2), ((0, 8), (8, 10)))]
    ['a[1][y=0:8]', 'a[1][y=8:10]']
    """

    session: str
    frames: Sequence[int]
    ranges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.frames) * len(self.ranges)

    def __iter__(self) -> Iterator[BlockKey]:
        for frame in self.frames:
            for start, stop in self.ranges:
                yield BlockKey(self.session, frame, start, stop)

    @overload
    def __getitem__(self, index: int) -> BlockKey: ...

    @overload
    def __getitem__(self, index: slice) -> list[BlockKey]: ...

    def __getitem__(self, index: int | slice) -> BlockKey | list[BlockKey]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        frame, block = divmod(range(len(self))[index], len(self.ranges))
        return BlockKey(self.session, self.frames[frame], *self.ranges[block])


@dataclass(frozen=True)
class Geometry:
    """Shape of a session and of its blocks.

    Attributes
    ----------
    frames : int
    shape : tuple of int
        ``(y, x, channel)`` of a frame.
    dtype : str
        Of the stored values.
    lines : int
        Lines of a block; the last block of a frame may be lower.
    """

    frames: int
    shape: tuple[int, int, int]
    dtype: str
    lines: int

    @classmethod
    def choose(
        cls,
        frames: int,
        shape: tuple[int, int, int],
        dtype: str,
        lines: int | str | None = None,
    ) -> Geometry:
        """Geometry with blocks of 8 to 16 MB, or of the height that is asked for.

        Parameters
        ----------
        frames, shape, dtype
            As the source has them.
        lines : int or "frame", optional
            Height of the blocks: a power of two of leaves, or the whole frame.

        Raises
        ------
        hsi_batch.errors.ConfigError
            A height that blocks cannot have.
        """
        height, width, _ = shape
        kind = np.dtype(dtype)
        if lines is None:
            chosen = block_lines(shape, kind.itemsize)
        elif lines == "frame":
            chosen = height
        else:
            chosen = min(int(lines), height)
            leaf = leaf_lines(width)
            if chosen < 1 or (chosen < height and (chosen % leaf or chosen & (chosen - 1))):
                fitting = [leaf << i for i in range(20) if leaf << i < height]
                raise ConfigError(
                    f"blocks of {lines} lines do not fit frames of {height} x {width} pixels;"
                    f" possible are {', '.join(map(str, fitting[:8]))}, ... or 'frame'.",
                    hint="Results would depend on the height of the blocks otherwise.",
                )
        return cls(frames, shape, kind.name, chosen)

    # -- blocks --------------------------------------------------------------------------------

    @property
    def blocks_per_frame(self) -> int:
        """Number of blocks of a frame."""
        return -(-self.shape[0] // self.lines)

    @property
    def blocks(self) -> int:
        """Number of blocks of the session."""
        return self.frames * self.blocks_per_frame

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Line ranges of the blocks of a frame."""
        for start in range(0, self.shape[0], self.lines):
            yield start, min(start + self.lines, self.shape[0])

    def keys(self, session: str) -> Iterator[BlockKey]:
        """All blocks in order."""
        for frame in range(self.frames):
            for start, stop in self.ranges():
                yield BlockKey(session, frame, start, stop)

    def index(self, key: BlockKey) -> int:
        """Position of a block among all blocks of the session."""
        return key.frame * self.blocks_per_frame + key.start // self.lines

    @property
    def shard(self) -> tuple[int, int]:
        """Frames, and blocks of each, of a new shard: whole frames, or blocks of one."""
        blocks = max(SHARD_BYTES // max(self.block_bytes, 1), 1)
        of_frame = max(self.blocks_per_frame, 1)
        if blocks < of_frame:
            return 1, blocks
        return max(min(blocks // of_frame, self.frames), 1), of_frame

    def shard_index(self, shard: tuple[int, int], frame: int, start: int) -> tuple[int, int]:
        """Which shard of a size holds the block of a frame that begins at a line."""
        return frame // shard[0], start // self.lines // shard[1]

    @property
    def item_bytes(self) -> int:
        """Bytes of one value."""
        return np.dtype(self.dtype).itemsize

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame in memory."""
        height, width, channels = self.shape
        return height * width * channels * self.item_bytes

    @property
    def line_bytes(self) -> int:
        """Bytes of a line in memory."""
        return self.shape[1] * self.shape[2] * self.item_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of a full block in memory."""
        return self.lines * self.line_bytes

    def bytes_of(self, key: BlockKey) -> int:
        """Bytes of a block in memory."""
        return (key.stop - key.start) * self.line_bytes

    # -- leaves and samples --------------------------------------------------------------------

    @property
    def leaf_lines(self) -> int:
        """Lines of a leaf."""
        return leaf_lines(self.shape[1])

    @property
    def leaves(self) -> int:
        """Leaves of a frame."""
        return leaf_count(self.shape[0], self.shape[1])

    @cached_property
    def block_level(self) -> int:
        """Level of a block in the tree over the leaves of its frame."""
        leaves = -(-self.lines // self.leaf_lines)
        return (leaves - 1).bit_length()

    @property
    def picks_per_leaf(self) -> int:
        """Spectra kept of each leaf."""
        pixels = min(self.leaf_lines, self.shape[0]) * self.shape[1]
        return max(1, min(_PICKS, pixels // 256))

    def picks(self, start: int, stop: int) -> NDArray[np.intp]:
        """Flat indices, counted from line ``start``, of the spectra kept of some whole leaves."""
        return _picks(self.shape[1], self.leaf_lines, self.picks_per_leaf, stop - start)

    # -- rows of statistics ----------------------------------------------------------------------

    @property
    def terms(self) -> int:
        """Entries of a row of moments."""
        channels = self.shape[2]
        return 1 + channels + packed_size(channels)

    @cached_property
    def row_frames(self) -> int | None:
        """Frames that share a row of statistics; None if every block has its own.

        Blocks so small that their statistics would exceed 5 % of their pixels share a row: all of
        the session, or a power of two of frames where sums would not fit otherwise.
        """
        bytes_of_row = self.terms * 8 + 2 * self.shape[2] * self.item_bytes
        if bytes_of_row <= _STATISTICS_SHARE * self.block_bytes:
            return None
        whole = 1 << max(self.frames - 1, 0).bit_length()
        while whole > 1 and whole * self.shape[0] * self.shape[1] > _ROW_PIXELS:
            whole //= 2
        return whole

    @property
    def rows(self) -> int:
        """Rows of statistics of the session."""
        shared = self.row_frames
        return self.blocks if shared is None else -(-self.frames // shared)

    @property
    def column_bytes(self) -> int:
        """Bytes of the moments of all columns in memory."""
        return 16 * self.shape[1] * self.shape[2]

    @property
    def keeps_columns(self) -> bool:
        """Whether moments of columns are kept: they are small beside the pixels."""
        pixels = self.frames * self.frame_bytes
        return 0 < self.column_bytes <= _STATISTICS_SHARE * pixels

    def to_attrs(self) -> dict[str, Any]:
        """As attributes of the session."""
        return {"block_lines": self.lines, "statistics_frames": self.row_frames}


@cache
def _picks(width: int, step: int, count: int, lines: int) -> NDArray[np.intp]:
    """Flat indices of spectra of so many lines; all blocks of a height have the same."""
    chosen = []
    for top in range(0, lines, step):
        pixels = min(step, lines - top) * width
        chosen.append(top * width + (2 * np.arange(count) + 1) * pixels // (2 * count))
    found = np.concatenate(chosen)
    found.flags.writeable = False
    return found
