"""Machine code of the exact integer sums: LLVM instructions that numba compiles for this CPU.

Two neighbouring pixels of a channel make a pair of 16-bit numbers. CPUs multiply 32 such numbers
and add them in pairs to sixteen 32-bit sums in one instruction (``vpdpwssd`` or ``vpmaddwd`` on
x86, ``smlal`` on ARM), several times as many as products in floating point. Only plain vector
operations are written here, so LLVM finds the best instructions of any CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.extending import intrinsic

__all__ = ["LANES", "TILE", "add_products", "add_wide_products", "pack_pairs"]

#: Channels whose sums one vector holds.
LANES = 16
#: Channels of a tile: as many sums as the registers hold.
TILE = 16 if get_host_cpu_features().get("avx512bw") else 4

#: Numba passes a typing context first, which callers do not.
_instructions: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALVES, _SUMS = ir.VectorType(_I16, 2 * LANES), ir.VectorType(_I32, LANES)
_PRODUCTS, _ROW = ir.VectorType(_I32, 2 * LANES), ir.VectorType(_I16, LANES)
_WIDE = ir.VectorType(_I64, LANES)


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _order(*places: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(places)), list(places))


def _every(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _load(b: ir.IRBuilder, pointer: Any, kind: Any, align: int) -> Any:
    value = b.load(b.bitcast(pointer, kind.as_pointer()))
    value.align = align
    return value


def _store(b: ir.IRBuilder, value: Any, pointer: Any, align: int) -> None:
    b.store(value, b.bitcast(pointer, value.type.as_pointer())).align = align


def _splat(b: ir.IRBuilder, value: Any, kind: ir.VectorType) -> Any:
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), _order(*[0] * kind.count))


def _pair_sums(b: ir.IRBuilder, left: Any, right: Any) -> Any:
    """Sixteen sums of two products each, modulo 2**32."""
    product = b.mul(b.sext(left, _PRODUCTS), b.sext(right, _PRODUCTS))
    undefined = ir.Constant(_PRODUCTS, ir.Undefined)
    even = b.shuffle_vector(product, undefined, _order(*range(0, 2 * LANES, 2)))
    odd = b.shuffle_vector(product, undefined, _order(*range(1, 2 * LANES, 2)))
    return b.add(even, odd)


class _Loop:
    """A loop over ``steps``, at least one, that carries values along."""

    def __init__(self, b: ir.IRBuilder, steps: Any, carried: list[Any]) -> None:
        self.b, self.steps = b, steps
        before = b.block
        self.body = b.function.append_basic_block("steps")
        self.after = b.function.append_basic_block("after")
        b.branch(self.body)
        b.position_at_end(self.body)
        self.index = b.phi(_I64)
        self.index.add_incoming(_whole(0), before)
        self.carried = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            self.carried.append(phi)

    def close(self, values: list[Any]) -> None:
        following = self.b.add(self.index, _whole(1))
        self.index.add_incoming(following, self.body)
        for phi, value in zip(self.carried, values, strict=True):
            phi.add_incoming(value, self.body)
        self.b.cbranch(self.b.icmp_signed("<", following, self.steps), self.body, self.after)
        self.b.position_at_end(self.after)


def _products(b: ir.IRBuilder, panels: list[Any], args: tuple[Any, ...], tile: int) -> list[Any]:
    """Sums over pairs of pixels of the products of ``tile`` channels with sixteen, per panel."""
    channels, steps, row, column = args
    loop = _Loop(b, steps, [_every(_SUMS, 0)] * (tile * len(panels)))
    at = b.mul(loop.index, channels)
    found = []
    for number, panel in enumerate(panels):
        here = b.gep(b.inttoptr(panel, _I32.as_pointer()), [at])
        across = _load(b, b.gep(here, [column]), _HALVES, 4)
        for m in range(tile):
            one = _load(b, b.gep(here, [b.add(row, _whole(m))]), _I32, 4)
            pair = b.bitcast(_splat(b, one, _SUMS), _HALVES)
            found.append(b.add(loop.carried[number * tile + m], _pair_sums(b, pair, across)))
    loop.close(found)
    return found


def _add(b: ir.IRBuilder, out: Any, channels: Any, row: Any, column: Any, value: Any) -> None:
    place = b.gep(b.inttoptr(out, _I64.as_pointer()), [b.add(b.mul(row, channels), column)])
    _store(b, b.add(_load(b, place, _WIDE, 8), value), place, 8)


@_instructions
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
            _add(b, out, channels, b.add(row, _whole(m)), column, b.sext(value, _WIDE))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@_instructions
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
            first = b.add(row, _whole(part))
            found = _products(b, [panel, high], (channels, steps, first, column), rows)
            for m in range(rows):
                wrapped, coarse = found[m], found[rows + m]
                rest = b.sub(wrapped, b.shl(coarse, _every(_SUMS, 16)))
                value = b.add(b.shl(b.sext(coarse, _WIDE), _every(_WIDE, 16)), b.sext(rest, _WIDE))
                _add(b, out, channels, b.add(first, _whole(m)), column, value)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), code


@_instructions
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
        away = _load(b, b.inttoptr(shift, _I16.as_pointer()), _ROW, 2)
        out = b.inttoptr(panel, _I32.as_pointer())

        def row(index: Any) -> Any:
            return _load(b, b.gep(base, [b.mul(index, stride)]), _ROW, 2)

        def smaller(x: Any, y: Any) -> Any:
            return b.select(b.icmp_unsigned("<", x, y), x, y)

        def larger(x: Any, y: Any) -> Any:
            return b.select(b.icmp_unsigned(">", x, y), x, y)

        first = row(_whole(0))
        loop = _Loop(b, steps, [first, first, _every(_SUMS, 0)])
        low, high, total = loop.carried
        one = row(b.shl(loop.index, _whole(1)))
        two = row(b.add(b.shl(loop.index, _whole(1)), _whole(1)))
        zipped = [lane for c in range(LANES) for lane in (c, LANES + c)]
        pairs = b.shuffle_vector(b.sub(one, away), b.sub(two, away), _order(*zipped))
        _store(b, pairs, b.gep(out, [b.mul(loop.index, channels)]), 4)
        total = b.add(total, _pair_sums(b, pairs, _every(_HALVES, 1)))
        found = [smaller(low, smaller(one, two)), larger(high, larger(one, two)), total]
        loop.close(found)
        ends = b.inttoptr(bounds, _I16.as_pointer())
        _store(b, found[0], ends, 2)
        _store(b, found[1], b.gep(ends, [channels]), 2)
        _store(b, found[2], b.inttoptr(sums, _I32.as_pointer()), 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), code
