"""Words for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "complaint",
    "counted",
    "flags_text",
    "lasting",
    "mistakes",
    "printable",
    "sized",
    "some",
    "told",
]

#: Control characters, by which a name in a file could command the terminal it is shown on.
_CONTROLS = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}

#: What was expected, by pydantic's names of what is wrong.
_EXPECTED = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping of keys"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "string_type": "a text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
}


def counted(count: int, noun: str) -> str:
    """A number and its noun, in the plural where there is not one.

    Examples
    --------
    >>> counted(1, "pass"), counted(2, "pass"), counted(0, "block")
    ('1 pass', '2 passes', '0 blocks')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


def lasting(seconds: float) -> str:
    """A time in its two largest units.

    Examples
    --------
    >>> lasting(4.2), lasting(200), lasting(7500), lasting(100_000)
    ('4 s', '3 min 20 s', '2 h 5 min', '27 h 46 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def printable(text: str) -> str:
    """The text without control characters, but line ends and tabs.

    Examples
    --------
    >>> len(printable(chr(27) + "[2J")), chr(27) in printable(chr(27) + "[2J")
    (4, False)
    """
    return text.translate(_CONTROLS)


def sized(count: float) -> str:
    """Bytes with a unit.

    Examples
    --------
    >>> sized(512), sized(5_529_600), sized(2e9)
    ('0.5 kB', '5.5 MB', '2.00 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def flags_text(flags: Mapping[str, int], pixels: int) -> str:
    """Flagged pixels in per cent of all.

    Examples
    --------
    >>> flags_text({"nodata": 20, "dead": 1}, 1000)
    'nodata 2.00 %, dead 0.10 %'
    """
    shares = ((name, 100 * count / max(pixels, 1)) for name, count in flags.items())
    return ", ".join(f"{name} {share:.2f} %" for name, share in shares)


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first of many names.

    Examples
    --------
    >>> some(["a", "b"]), some(["a", "b", "c"], 1)
    ('a and b', 'a and 2 more')
    """
    if len(names) > shown:
        return f"{', '.join(names[:shown])} and {len(names) - shown} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def told(value: object) -> str:
    """What a value of a YAML file is.

    Examples
    --------
    >>> told(None), told([1, 2]), told({}), told("x")
    ('nothing', 'a list', 'a mapping of keys', "'x'")
    """
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping of keys"
    return "a list" if isinstance(value, (list, tuple)) else repr(value)


def complaint(detail: ErrorDetails, *others: ErrorDetails) -> str:
    """What pydantic found wrong with a value, in words of YAML; without a full stop.

    Others are what it found of the other types that the value may have.
    """
    given = detail["input"]
    if others and all(each := [_expected(d) for d in (detail, *others)]):
        return f"{' or '.join(dict.fromkeys(each))} was expected, not {told(given)}"
    if (expected := _EXPECTED.get(detail["type"])) is not None:
        return f"{expected} was expected, not {told(given)}"
    if detail["type"] == "too_short":
        least, given = detail["ctx"]["min_length"], detail["ctx"]["actual_length"]
        entries = "1 entry was" if least == 1 else f"{least} entries were"
        return f"at least {entries} expected, not {given}"
    message = detail["msg"].removeprefix("Value error, ")
    shown = f" (found {given!r})" if isinstance(given, (str, int, float, bool, type(None))) else ""
    return f"{message[:1].lower()}{message[1:]}{shown}"


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"])
    return _EXPECTED.get(detail["type"], "")


def mistakes(
    details: Iterable[ErrorDetails], data: Any
) -> list[tuple[tuple[str | int, ...], list[ErrorDetails]]]:
    """What pydantic found, by the place in the data, in its order.

    Where one of several types is allowed it names each of them, below the place, that the value
    is not; these are one mistake.
    """
    found: dict[tuple[Any, ...], list[ErrorDetails]] = {}
    for number, detail in enumerate(details):
        location = detail["loc"]
        named = detail["type"] not in ("missing", "extra_forbidden")
        if named and location and not _holds(data, location) and _holds(data, location[:-1]):
            found.setdefault((location[:-1],), []).append(detail)
        else:
            found[location, number] = [detail]
    return [(key[0], group) for key, group in found.items()]


def _holds(data: Any, location: Iterable[str | int]) -> bool:
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
