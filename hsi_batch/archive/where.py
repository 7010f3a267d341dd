"""Conditions on catalog rows, evaluated without running code."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from hsi_batch.errors import SelectionError, did_you_mean

__all__ = ["matches"]

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def matches(expression: str, row: Mapping[str, Any]) -> bool:
    """Whether a row of the catalog fulfils a condition.

    Comparisons of columns with constants, joined by ``and``, ``or``, ``not``; nothing else.

    Raises
    ------
    hsi_batch.errors.SelectionError
        Not such an expression, or a column that does not exist.

    Examples
    --------
    >>> matches('sensor == "FX17" and frames > 1', {"sensor": "FX17", "frames": 3})
    True
    """
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SelectionError(
            f"the condition {expression!r} cannot be read.",
            hint="""Write for example where:'sensor=="FX17" and frames>1'.""",
        ) from None
    try:
        return bool(_value(tree.body, row, expression))
    except TypeError:
        # A column without a value, such as an unknown sensor, compares to nothing.
        return False


def _value(node: ast.expr, row: Mapping[str, Any], expression: str) -> Any:
    match node:
        case ast.BoolOp(op=op, values=values):
            found = (bool(_value(v, row, expression)) for v in values)
            return all(found) if isinstance(op, ast.And) else any(found)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, row, expression)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = [_value(v, row, expression) for v in (left, *comparators)]
            pairs = pairwise(values)
            return all(_COMPARE[type(op)](a, b) for op, (a, b) in zip(ops, pairs, strict=True))
        case ast.Name(id=name):
            if name not in row:
                raise SelectionError(
                    f"the catalog has no column {name!r}.{did_you_mean(name, row)}",
                    hint=f"It has {', '.join(row)}.",
                )
            return row[name]
        case ast.Constant(value=str() | int() | float() | bool() | None as constant):
            return constant
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, row, expression) for item in items]
        case _:
            raise SelectionError(
                f"{ast.unparse(node)!r} is not allowed in the condition {expression!r}.",
                hint="Only comparisons of columns with constants, and, or, not.",
            )
