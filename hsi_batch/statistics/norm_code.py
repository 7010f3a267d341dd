"""Machine code of whitening: products with a matrix whose squares are summed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from hsi_batch.statistics.machine_code import (
    I32,
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

__all__ = ["TILES", "add_squares", "sum_lanes"]

#: Pixels of a tile by the size of a value: as many sums as the registers hold.
TILES = {4: 12 if MANY_REGISTERS else 6, 8: 12 if MANY_REGISTERS else 3}


class _Kind:
    """The values of an array of float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        self.size = dtype.bitwidth // 8
        self.tile = TILES[self.size]
        self.one = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.one, LANES)

    def fma(self, b: ir.IRBuilder) -> Any:
        """``x y + z``, rounded once on every CPU."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fma.v{LANES}f{8 * self.size}"
        return cgutils.get_or_insert_function(b.module, kind, name)  # type: ignore[no-untyped-call]

    def load(self, b: ir.IRBuilder, pointer: Any) -> Any:
        return load(b, pointer, self.vector, self.size)

    def store(self, b: ir.IRBuilder, value: Any, pointer: Any) -> None:
        store(b, value, pointer, self.size)


def _data(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> list[Any]:
    """Addresses of arrays; other arguments as they are."""
    return [
        context.make_array(kind)(context, b, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


@instructions
def add_squares(
    _typing: Any, pixels: Any, matrix: Any, offset: Any, squares: Any, column: Any, bounds: Any
) -> Any:
    """Add the squares of ``pixels @ matrix + offset`` in sixteen columns, by lane.

    Arrays of one dtype, without gaps: ``pixels`` (tile, rows), ``matrix`` (rows, width), ``offset``
    (width,), ``squares`` (tile, 16). ``column`` is the first column, ``bounds`` are the first of
    the rows that are not zero there and the one after the last; there is at least one. Each sum is
    taken in the order of the rows, so a pixel has the same bits in any place and on any CPU.
    """

    def code(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = _Kind(signature.args[0].dtype)
        fma = kind.fma(b)
        pixels, matrix, offset, squares, column, bounds = _data(context, b, signature, args)
        first, end = (b.extract_value(bounds, i) for i in range(2))
        shape = [
            b.extract_value(context.make_array(k)(context, b, v).shape, 1)
            for k, v in zip(signature.args[:2], args[:2], strict=True)
        ]
        rows = [b.gep(pixels, [b.add(b.mul(whole(m), shape[0]), first)]) for m in range(kind.tile)]
        base = b.gep(matrix, [b.add(b.mul(first, shape[1]), column)])
        loop = Loop(b, b.sub(end, first), [every(kind.vector, 0.0)] * kind.tile)
        across = kind.load(b, b.gep(base, [b.mul(loop.index, shape[1])]))
        found = []
        for row, sums in zip(rows, loop.carried, strict=True):
            one = load(b, b.gep(row, [loop.index]), kind.one, kind.size)
            found.append(b.call(fma, [splat(b, one, kind.vector), across, sums]))
        loop.close(found)
        shift = kind.load(b, b.gep(offset, [column]))
        for m, sums in enumerate(found):
            place = b.gep(squares, [whole(m * LANES)])
            value = b.fadd(sums, shift)
            kind.store(b, b.call(fma, [value, value, kind.load(b, place)]), place)
        return context.get_dummy_value()

    return types.void(pixels, matrix, offset, squares, column, bounds), code


@instructions
def sum_lanes(_typing: Any, squares: Any, sums: Any) -> Any:
    """The sums of the sixteen lanes of ``squares`` (tile, 16), into ``sums`` (tile,)."""

    def code(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = _Kind(signature.args[0].dtype)
        lanes, out = _data(context, b, signature, args)
        for m in range(kind.tile):
            value, count = kind.load(b, b.gep(lanes, [whole(m * LANES)])), LANES
            while count > 1:
                count //= 2
                nothing = ir.Constant(value.type, ir.Undefined)
                halves = (
                    b.shuffle_vector(value, nothing, order(*range(at, at + count)))
                    for at in (0, count)
                )
                value = b.fadd(*halves)
            store(b, b.extract_element(value, ir.Constant(I32, 0)), b.gep(out, [whole(m)]), 1)
        return context.get_dummy_value()

    return types.void(squares, sums), code
