"""Conditions on catalog rows, evaluated without running code."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from hsi_batch.errors import SelectionError, did_you_mean

__all__ = ["matches"]


def _same(a: Any, b: Any) -> bool:
    """Equal, or both without a value; a table of numbers holds NaN for None."""
    absent = [value is None or value != value for value in (a, b)]  # noqa: PLR0124  (NaN)
    return all(absent) if any(absent) else bool(a == b)


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: _same,
    ast.IsNot: lambda a, b: not _same(a, b),
}
_ALLOWED: tuple[type[ast.AST], ...] = (
    ast.Expression,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
    ast.Compare,
    *_COMPARE,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.List,
    ast.Tuple,
)


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
        with warnings.catch_warnings():
            # Of escapes in texts that Python does not know; they stand for themselves.
            warnings.simplefilter("ignore")
            tree = ast.parse(expression, mode="eval")
        # First of all, so that nothing hides behind a left side that decides.
        for node in ast.walk(tree):
            _check(node, row, expression)
        return bool(_value(tree.body, row))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        shown = ascii(expression[:200]) + "..." * (len(expression) > 200)
        raise SelectionError(
            f"the condition {shown} cannot be read.",
            hint="""Write for example where:'sensor=="FX17" and frames>1'.""",
        ) from None


def _check(node: ast.AST, row: Mapping[str, Any], expression: str) -> None:
    match node:
        case ast.Name(id=name) if name not in row:
            raise SelectionError(
                f"the catalog has no column {name!r}.{did_you_mean(name, row)}",
                hint=f"It has {', '.join(row)}.",
            )
        case ast.Constant(value=str() | int() | float() | None):
            return
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return
        case ast.Constant() | ast.UnaryOp(op=ast.USub()):
            pass
        case _ if isinstance(node, _ALLOWED):
            return
    raise SelectionError(
        f"{ast.unparse(node)!r} is not allowed in the condition {expression!r}.",
        hint="Only comparisons of columns with constants, and, or, not.",
    )


def _value(node: ast.expr, row: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=op, values=values):
            found = (bool(_value(v, row)) for v in values)
            return all(found) if isinstance(op, ast.And) else any(found)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, row)
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            pairs = pairwise([_value(v, row) for v in (left, *comparators)])
            try:
                return all(_COMPARE[type(op)](a, b) for op, (a, b) in zip(ops, pairs, strict=True))
            except TypeError:
                # A column without a value, such as an unknown sensor, compares to nothing.
                return False
        case ast.Name(id=name):
            return row[name]
        case ast.Constant(value=constant):
            return constant
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, row) for item in items]
    raise AssertionError(ast.dump(node))
