"""The fixed grid of pixels that all floating-point work of a frame is counted on.

Rounding depends on which numbers are added first, so the grid may depend on the frame alone: never
on block height, task size or worker count. A *leaf* is a group of whole lines, a power of two of
them, at most :data:`LEAF_PIXELS` pixels; a line wider than that is cut into pieces of
:data:`LEAF_PIXELS`. Blocks are a power of two of leaves (or the whole frame), hence whole subtrees
of one fixed tree.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = [
    "BLOCK_BYTES",
    "LEAF_LINES",
    "LEAF_PIXELS",
    "aligned_ranges",
    "block_lines",
    "leaf_count",
    "leaf_lines",
]

#: Most pixels that are centred and multiplied at once.
LEAF_PIXELS = 4096
#: Most lines of a leaf, so that blocks may be as low as this on narrow frames.
LEAF_LINES = 16
#: Largest block: decoding is fastest below the memory allocator's 32 MiB mapping threshold.
BLOCK_BYTES = 16 * 2**20


def leaf_lines(width: int) -> int:
    """Lines of a leaf on frames of ``width`` pixels: a power of two, 1 to 16.

    Examples
    --------
    >>> leaf_lines(100), leaf_lines(1000), leaf_lines(10_000)
    (16, 4, 1)
    """
    fitting = min(LEAF_LINES, LEAF_PIXELS // max(width, 1))
    return 1 << (fitting.bit_length() - 1) if fitting else 1


def leaf_count(lines: int, width: int) -> int:
    """Number of leaves of a frame of ``lines`` x ``width`` pixels.

    Examples
    --------
    >>> leaf_count(100, 100)
    7
    """
    return -(-lines // leaf_lines(width))


def block_lines(shape: tuple[int, int, int], itemsize: int, most: int = BLOCK_BYTES) -> int:
    """Lines of a block: the whole frame if it is small, else a power of two of leaves.

    Parameters
    ----------
    shape : tuple of int
        ``(y, x, channel)``.
    itemsize : int
        Bytes of a value.
    most : int
        Largest block in bytes; the block is the largest below it (8 to 16 MB by default), but
        never less than a leaf.

    Examples
    --------
    >>> block_lines((1000, 1000, 61), 2), block_lines((100, 100, 205), 2)
    (128, 100)
    """
    lines, width, channels = shape
    line = max(width * channels * itemsize, 1)
    if lines * line <= most:
        return lines
    height = leaf_lines(width)
    while height * 2 * line <= most:
        height *= 2
    return min(height, lines)


def aligned_ranges(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut ``start:stop`` into the fewest aligned powers of two, as ``(level, index)``.

    ``(level, index)`` stands for ``index * 2**level : (index + 1) * 2**level``.

    Examples
    --------
    >>> list(aligned_ranges(0, 7))
    [(2, 0), (1, 2), (0, 6)]
    """
    while start < stop:
        level = (start & -start).bit_length() - 1 if start else (stop - start).bit_length()
        while (1 << level) > stop - start:
            level -= 1
        yield level, start >> level
        start += 1 << level
