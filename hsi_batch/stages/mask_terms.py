"""What a mask is made from: a band expression, columns and lines, a polygon, labels, a file."""

from __future__ import annotations

import ast
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.session import Session
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.readers.annotations import open_annotation

__all__ = ["Lines", "MaskTerm", "mask_term"]

_SPAN = re.compile(r"(?:([xy])=)?(\d*):(\d*)")
_POINT = re.compile(r"\(?\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*\)?")
_BINARY: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "min": np.minimum,
    "max": np.maximum,
}
_BANDS = ("b", "band", "mean")
_HELP = (
    "Write a comparison of bands such as 'b(800)/b(650) > 1.2' (b: nm, band: number, mean: from nm"
    " to nm), columns '100:900', 'x=100:900,y=0:50', 'polygon (x,y) (x,y) (x,y)', 'label:NAME', or"
    " the name of a mask image."
)


class Lines(NamedTuple):
    """Lines ``(lines, x, C)`` of a frame, from ``start`` on, as stored."""

    session: Session
    frame: int
    start: int
    lines: NDArray[Any]


class MaskTerm(ABC):
    """One way to say which pixels are inside."""

    #: Whether the cube is looked at.
    reads: bool = False

    @abstractmethod
    def check(self, session: Session) -> None:
        """Raise :class:`~hsi_batch.errors.ConfigError` for a session that it cannot be made of."""

    @abstractmethod
    def inside(self, block: Lines) -> NDArray[np.bool_]:
        """Which pixels are inside, ``(lines, x)``."""


def mask_term(text: str) -> MaskTerm:
    """Understand what ``--from`` says.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is nothing that is known; the message shows what is.

    Examples
    --------
    >>> type(mask_term("100:900")).__name__, type(mask_term("b(800) > 0.2")).__name__
    ('Spans', 'Expression')
    """
    said = text.strip()
    if said.startswith("label:"):
        return Labelled(said.removeprefix("label:").strip())
    if said.startswith("polygon"):
        return Polygon.parse(said)
    if all(_SPAN.fullmatch(part.strip()) for part in said.split(",")):
        return Spans.parse(said)
    if Path(said).suffix.lower() in (".png", ".bmp", ".tif", ".tiff", ".json", ".npz"):
        if not Path(said).exists():
            raise ConfigError("there is no such mask.", path=said, hint=_HELP)
        return MaskFile(str(Path(said).absolute()))
    return Expression(said)


@dataclass(frozen=True)
class Spans(MaskTerm):
    """Columns and lines from first to last; the last is outside."""

    x: tuple[int, int | None] = (0, None)
    y: tuple[int, int | None] = (0, None)

    @classmethod
    def parse(cls, text: str) -> Spans:
        """``x0:x1``, or ``x=x0:x1,y=y0:y1``."""
        found: dict[str, tuple[int, int | None]] = {}
        for part in text.split(","):
            match = _SPAN.fullmatch(part.strip())
            assert match is not None
            axis = match[1] or "x"
            span = int(match[2] or 0), int(match[3]) if match[3] else None
            if axis in found or (span[1] is not None and span[1] <= span[0]):
                raise ConfigError(f"{text!r} holds no pixel, or an axis twice.", hint=_HELP)
            found[axis] = span
        return cls(**found)

    def check(self, session: Session) -> None:
        """Refuse columns or lines that do not exist."""
        height, width, _ = session.geometry.shape
        for axis, (first, _), size in (("x", self.x, width), ("y", self.y, height)):
            if first >= size:
                raise ConfigError(
                    f"the mask begins at {axis} = {first}; session {session.name} has {size}.",
                    hint="Positions count from 0.",
                )

    def inside(self, block: Lines) -> NDArray[np.bool_]:
        """By position."""
        return self.places(block.start, *block.lines.shape[:2])

    def places(self, start: int, lines: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of ``lines`` lines from ``start`` on are inside, ``(lines, width)``."""
        mask = np.zeros((lines, width), dtype=bool)
        rows = np.arange(start, start + lines)
        last = np.inf if self.y[1] is None else self.y[1]
        mask[(rows >= self.y[0]) & (rows < last), self.x[0] : self.x[1]] = True
        return mask


@dataclass(frozen=True)
class Polygon(MaskTerm):
    """Pixels whose centre ``(x, y)`` lies within a polygon."""

    points: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str) -> Polygon:
        """``polygon (x,y) (x,y) (x,y)``."""
        rest = text.removeprefix("polygon").strip(" :")
        points = tuple((float(m[1]), float(m[2])) for m in _POINT.finditer(rest))
        if len(points) < 3 or _POINT.sub("", rest).strip(" ;"):
            raise ConfigError(f"{text!r} is no polygon of three points or more.", hint=_HELP)
        return cls(points)

    def check(self, session: Session) -> None:
        """Anything fits."""

    def inside(self, block: Lines) -> NDArray[np.bool_]:
        """By the even-odd rule."""
        return self.places(block.start, *block.lines.shape[:2])

    def places(self, start: int, lines: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of ``lines`` lines from ``start`` on are inside, ``(lines, width)``."""
        from matplotlib.path import Path as Outline

        x, y = np.meshgrid(np.arange(width), np.arange(start, start + lines))
        outline = Outline(np.array([*self.points, self.points[0]]))
        found = outline.contains_points(np.column_stack([x.ravel(), y.ravel()]))
        return np.asarray(found).reshape(lines, width)


@dataclass(frozen=True)
class Labelled(MaskTerm):
    """Pixels of a label class."""

    name: str

    def check(self, session: Session) -> None:
        """Refuse a session without labels, or without the class."""
        if not session.labelled:
            raise ConfigError(
                f"session {session.name} has no labels.",
                hint="Select labelled sessions (--frames), or add labels: hsi-batch label STORE"
                " --annotations FILE.",
            )
        self._number(session)

    def _number(self, session: Session) -> int:
        classes = session.classes
        if self.name.lstrip("-").isdigit():
            return int(self.name)
        if self.name not in classes:
            raise ConfigError(
                f"session {session.name} has no class {self.name!r}."
                f"{did_you_mean(self.name, classes)}",
                hint=f"There are {', '.join(classes)}.",
            )
        return classes[self.name]

    def inside(self, block: Lines) -> NDArray[np.bool_]:
        """By label."""
        session, frame, start, lines = block
        labels = session.labels(frame, start, start + len(lines))
        assert labels is not None
        return np.asarray(labels == self._number(session))


@dataclass(frozen=True)
class MaskFile(MaskTerm):
    """Pixels that an image, a COCO file or an ``.npz`` marks."""

    path: str

    def check(self, session: Session) -> None:
        """Refuse a file of another size."""
        geometry = session.geometry
        open_annotation(self.path, shape=geometry.shape[:2], frames=geometry.frames).close()

    def inside(self, block: Lines) -> NDArray[np.bool_]:
        """Where the file is above 0; nowhere in frames that it does not mention."""
        session, frame, start, lines = block
        geometry = session.geometry
        with open_annotation(
            self.path, shape=geometry.shape[:2], frames=geometry.frames
        ) as annotation:
            found = annotation.labels(frame, start, start + len(lines))
        return np.zeros(lines.shape[:2], dtype=bool) if found is None else found > 0


@dataclass(frozen=True)
class Expression(MaskTerm):
    """A comparison of bands in physical values; what is no number is outside."""

    text: str
    reads = True

    def __post_init__(self) -> None:
        tree = self._tree()
        compared = any(isinstance(node, ast.Compare) for node in ast.walk(tree))
        used = any(isinstance(n, ast.Call) and _name(n) in _BANDS for n in ast.walk(tree))
        if not (compared and used):
            raise ConfigError(f"{self.text!r} compares no bands.", hint=_HELP)
        with np.errstate(all="ignore"):
            self._value(tree, _Probe(), None)

    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            raise ConfigError(f"{self.text!r} is not an expression.", hint=_HELP) from None

    def check(self, session: Session) -> None:
        """Refuse bands that a session does not have."""
        with np.errstate(all="ignore"):
            self._value(self._tree(), _Bands(session), np.ones((1, 1, session.geometry.shape[2])))

    def inside(self, block: Lines) -> NDArray[np.bool_]:
        """By value."""
        with np.errstate(all="ignore"):
            found = self._value(self._tree(), _Bands(block.session), block.lines)
        return np.broadcast_to(np.asarray(found, dtype=bool), block.lines.shape[:2])

    def _value(self, node: ast.expr, bands: Any, lines: Any) -> Any:
        def value(child: ast.expr) -> Any:
            return self._value(child, bands, lines)

        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                return node.value
            case ast.BinOp(left, operation, right) if type(operation) in _BINARY:
                return _BINARY[type(operation)](value(left), value(right))
            case ast.Compare(left, operations, rights) if all(
                type(o) in _BINARY for o in operations
            ):
                sides = [value(left), *(value(right) for right in rights)]
                parts = [
                    _BINARY[type(o)](a, b)
                    for o, a, b in zip(operations, sides, sides[1:], strict=False)
                ]
                return np.logical_and.reduce(np.broadcast_arrays(*parts))
            case ast.BoolOp(operation, values):
                join = np.logical_and if isinstance(operation, ast.And) else np.logical_or
                return join.reduce(np.broadcast_arrays(*(value(v) for v in values)))
            case ast.UnaryOp(ast.Not() | ast.Invert(), operand):
                return np.logical_not(value(operand))
            case ast.UnaryOp(ast.USub(), operand):
                return -value(operand)
            case ast.Call(args=args, keywords=[]) if _name(node) in _BANDS and args:
                return bands(_name(node), [value(a) for a in args], lines)
            case ast.Call(args=args, keywords=[]) if _name(node) in _FUNCTIONS and args:
                return _FUNCTIONS[_name(node)](*(value(a) for a in args))
        raise ConfigError(f"{ast.unparse(node)!r} in {self.text!r} is not known.", hint=_HELP)


def _name(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


class _Probe:
    """Stands for any session while an expression is read."""

    def __call__(self, name: str, given: list[Any], lines: Any) -> Any:  # noqa: ARG002
        wanted = 2 if name == "mean" else 1
        if len(given) != wanted or not all(isinstance(v, (int, float)) for v in given):
            raise ConfigError(f"{name} takes {wanted} numbers; found {given}.", hint=_HELP)
        return np.ones((1, 1))


class _Bands:
    """Physical values of the bands of a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.scale = float(session.attrs.get("scale") or 1.0)
        self.offset = float(session.attrs.get("offset") or 0.0)

    def __call__(self, name: str, given: list[float], lines: NDArray[Any]) -> NDArray[np.float64]:
        picked = [self._numbered(given[0])] if name == "band" else self._near(name, given)
        values = lines[..., picked].astype(np.float64).mean(axis=-1)
        return np.asarray(values * self.scale + self.offset)

    def _numbered(self, number: float) -> int:
        channels = self.session.geometry.shape[2]
        if number != int(number) or not 0 <= number < channels:
            raise ConfigError(
                f"session {self.session.name} has channels 0 to {channels - 1}, no {number:g}.",
                hint="Choose one of these.",
            )
        return int(number)

    def _near(self, name: str, given: list[float]) -> list[int]:
        nm = self.session.wavelength
        if nm is None:
            raise ConfigError(
                f"session {self.session.name} states no wavelengths in known units.",
                hint="Choose channels by number: band(12) instead of b(800).",
            )
        if name == "mean":
            picked = np.flatnonzero((nm >= min(given)) & (nm <= max(given))).tolist()
        else:
            picked = [int(np.argmin(np.abs(nm - given[0])))]
            spacing = np.abs(np.diff(nm)).max() if nm.size > 1 else 1.0
            picked = picked if abs(nm[picked[0]] - given[0]) <= spacing else []
        if not picked:
            raise ConfigError(
                f"session {self.session.name} has no band at"
                f" {' to '.join(f'{v:g}' for v in given)} nm; it has {nm.min():g} to"
                f" {nm.max():g} nm.",
                hint="Choose wavelengths in that range.",
            )
        return picked
