"""Machine code of the exact integer sums: LLVM instructions that numba compiles for this CPU.

Two neighbouring pixels of a channel make a pair of 16-bit numbers. CPUs multiply 32 such numbers
and add them in pairs to sixteen 32-bit sums in one instruction (``vpdpwssd`` or ``vpmaddwd`` on
x86, ``smlal`` on ARM), several times as many as products in floating point.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from hsi_batch.statistics.machine_code import (
    I16,
    I32,
    I64,
    LANES,
    MANY_REGISTERS,
    Loop,
    every,
    instructions,
    load,
    order,
    splat,
    store,
    whole,
)

__all__ = ["TILE", "add_products", "add_wide_products", "pack_pairs"]

#: Channels of a tile: as many sums as the registers hold.
TILE = 16 if MANY_REGISTERS else 4

_HALVES, _SUMS = ir.VectorType(I16, 2 * LANES), ir.VectorType(I32, LANES)
_PRODUCTS, _ROW = ir.VectorType(I32, 2 * LANES), ir.VectorType(I16, LANES)
_WIDE = ir.VectorType(I64, LANES)


def _pair_sums(b: ir.IRBuilder, left: Any, right: Any) -> Any:
    """Sixteen sums of two products each, modulo 2**32."""
    product = b.mul(b.sext(left, _PRODUCTS), b.sext(right, _PRODUCTS))
    undefined = ir.Constant(_PRODUCTS, ir.Undefined)
    even = b.shuffle_vector(product, undefined, order(*range(0, 2 * LANES, 2)))
    odd = b.shuffle_vector(product, undefined, order(*range(1, 2 * LANES, 2)))
    return b.add(even, odd)


def _products(b: ir.IRBuilder, panels: list[Any], args: tuple[Any, ...], tile: int) -> list[Any]:
    """Sums over pairs of pixels of the products of ``tile`` channels with sixteen, per panel."""
    channels, steps, row, column = args
    loop = Loop(b, steps, [every(_SUMS, 0)] * (tile * len(panels)))
    at = b.mul(loop.index, channels)
    found = []
    for number, panel in enumerate(panels):
        here = b.gep(b.inttoptr(panel, I32.as_pointer()), [at])
        across = load(b, b.gep(here, [column]), _HALVES, 4)
        for m in range(tile):
            one = load(b, b.gep(here, [b.add(row, whole(m))]), I32, 4)
            pair = b.bitcast(splat(b, one, _SUMS), _HALVES)
            found.append(b.add(loop.carried[number * tile + m], _pair_sums(b, pair, across)))
    loop.close(found)
    return found


def _add(b: ir.IRBuilder, out: Any, channels: Any, row: Any, column: Any, value: Any) -> None:
    place = b.gep(b.inttoptr(out, I64.as_pointer()), [b.add(b.mul(row, channels), column)])
    store(b, b.add(load(b, place, _WIDE, 8), value), place, 8)


@instructions
def add_products(
    _typing: Any, panel: Any, channels: Any, steps: Any, row: Any, column: Any, out: Any
) -> Any:
    """Add the products of a tile to an int64 matrix; sums must stay below 2**31.

    ``panel`` is the address of int16 ``(steps, channels, 2)``, ``out`` of int64
    ``(channels, channels)``; rows ``row : row + TILE``, columns ``column : column + LANES``.
    """

    def code(context: Any, b: ir.IRBuilder, _signature: Any, args: Any) -> Any:
        panel, channels, steps, row, column, out = args
        found = _products(b, [panel], (channels, steps, row, column), TILE)
        for m, value in enumerate(found):
            _add(b, out, channels, b.add(row, whole(m)), column, b.sext(value, _WIDE))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@instructions
def add_wide_products(
    _typing: Any, panel: Any, high: Any, channels: Any, steps: Any, row: Any, column: Any, out: Any
) -> Any:
    """As :func:`add_products` for any 16-bit numbers, at most 64 steps.

    With ``x = 256 h + l``, ``|h| <= 128`` and ``-128 <= l < 128`` the sum of ``x x'`` and 65536
    times that of ``h h'`` (from the panel ``high``) differ by less than 2**31. So the 32-bit sum
    of ``x x'``, which wraps, gives the difference exactly.
    """
    rows = max(TILE // 2, 1)

    def code(context: Any, b: ir.IRBuilder, _signature: Any, args: Any) -> Any:
        panel, high, channels, steps, row, column, out = args
        for part in range(0, TILE, rows):
            first = b.add(row, whole(part))
            found = _products(b, [panel, high], (channels, steps, first, column), rows)
            for m in range(rows):
                wrapped, coarse = found[m], found[rows + m]
                rest = b.sub(wrapped, b.shl(coarse, every(_SUMS, 16)))
                value = b.add(b.shl(b.sext(coarse, _WIDE), every(_WIDE, 16)), b.sext(rest, _WIDE))
                _add(b, out, channels, b.add(first, whole(m)), column, value)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), code


@instructions
def pack_pairs(
    _typing: Any,
    pixels: Any,
    stride: Any,
    steps: Any,
    shift: Any,
    panel: Any,
    channels: Any,
    bounds: Any,
    sums: Any,
) -> Any:
    """Pairs of ``pixel - shift`` of sixteen channels, with their extrema and sums.

    Addresses of ``pixels``, uint16 with ``stride`` bytes from one to the next; ``shift``, uint16
    ``(16,)``; ``panel``, int16 ``(steps, channels, 2)``; ``bounds``, uint16 ``(2, channels)``; and
    ``sums``, int32 ``(16,)``. Subtraction wraps.
    """

    def code(context: Any, b: ir.IRBuilder, _signature: Any, args: Any) -> Any:
        pixels, stride, steps, shift, panel, channels, bounds, sums = args
        base = b.inttoptr(pixels, ir.IntType(8).as_pointer())
        away = load(b, b.inttoptr(shift, I16.as_pointer()), _ROW, 2)
        out = b.inttoptr(panel, I32.as_pointer())

        def row(index: Any) -> Any:
            return load(b, b.gep(base, [b.mul(index, stride)]), _ROW, 2)

        def smaller(x: Any, y: Any) -> Any:
            return b.select(b.icmp_unsigned("<", x, y), x, y)

        def larger(x: Any, y: Any) -> Any:
            return b.select(b.icmp_unsigned(">", x, y), x, y)

        first = row(whole(0))
        loop = Loop(b, steps, [first, first, every(_SUMS, 0)])
        low, high, total = loop.carried
        one = row(b.shl(loop.index, whole(1)))
        two = row(b.add(b.shl(loop.index, whole(1)), whole(1)))
        zipped = [lane for c in range(LANES) for lane in (c, LANES + c)]
        pairs = b.shuffle_vector(b.sub(one, away), b.sub(two, away), order(*zipped))
        store(b, pairs, b.gep(out, [b.mul(loop.index, channels)]), 4)
        total = b.add(total, _pair_sums(b, pairs, every(_HALVES, 1)))
        found = [smaller(low, smaller(one, two)), larger(high, larger(one, two)), total]
        loop.close(found)
        ends = b.inttoptr(bounds, I16.as_pointer())
        store(b, found[0], ends, 2)
        store(b, found[1], b.gep(ends, [channels]), 2)
        store(b, found[2], b.inttoptr(sums, I32.as_pointer()), 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), code
