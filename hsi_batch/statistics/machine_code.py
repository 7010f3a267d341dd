"""Parts of machine code that numba compiles for this CPU: loops and vectors of LLVM.

Only plain vector operations are written, so LLVM finds the best instructions of any CPU, and
results have the same bits on all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config
from numba.extending import intrinsic

__all__ = [
    "I16",
    "I32",
    "I64",
    "LANES",
    "MANY_REGISTERS",
    "Loop",
    "every",
    "instructions",
    "load",
    "order",
    "splat",
    "store",
    "whole",
]

#: Values in a vector; several registers where they are shorter.
LANES = 16


def _many_registers() -> bool:
    # What numba is told to compile for goes before what this machine has.
    told: str | None = vars(config).get("CPU_FEATURES")
    if told is not None:
        return "+avx512bw" in told.split(",")
    return bool(get_host_cpu_features().get("avx512bw"))


#: Whether there are 32 registers, each of a vector of 32-bit values.
MANY_REGISTERS = _many_registers()

#: Numba passes a typing context first, which callers do not.
instructions: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def load(b: ir.IRBuilder, pointer: Any, kind: Any, align: int) -> Any:
    """Load a value."""
    value = b.load(b.bitcast(pointer, kind.as_pointer()))
    value.align = align
    return value


def store(b: ir.IRBuilder, value: Any, pointer: Any, align: int) -> None:
    """Store a value."""
    b.store(value, b.bitcast(pointer, value.type.as_pointer())).align = align


def splat(b: ir.IRBuilder, value: Any, kind: ir.VectorType) -> Any:
    """A vector of one value."""
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), order(*[0] * kind.count))


def whole(value: int) -> ir.Constant:
    """A whole number."""
    return ir.Constant(I64, value)


def order(*places: int) -> ir.Constant:
    """Places of a shuffle."""
    return ir.Constant(ir.VectorType(I32, len(places)), list(places))


def every(kind: ir.VectorType, value: float) -> ir.Constant:
    """A vector of one constant."""
    return ir.Constant(kind, [value] * kind.count)


class Loop:
    """A loop over ``steps``, at least one, that carries values along."""

    def __init__(self, b: ir.IRBuilder, steps: Any, carried: list[Any]) -> None:
        self.b, self.steps = b, steps
        before = b.block
        self.body = b.function.append_basic_block("steps")
        self.after = b.function.append_basic_block("after")
        b.branch(self.body)
        b.position_at_end(self.body)
        self.index = b.phi(I64)
        self.index.add_incoming(whole(0), before)
        self.carried = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            self.carried.append(phi)

    def close(self, values: list[Any]) -> None:
        """End a step with the values of the next one."""
        following = self.b.add(self.index, whole(1))
        self.index.add_incoming(following, self.body)
        for phi, value in zip(self.carried, values, strict=True):
            phi.add_incoming(value, self.body)
        self.b.cbranch(self.b.icmp_signed("<", following, self.steps), self.body, self.after)
        self.b.position_at_end(self.after)
