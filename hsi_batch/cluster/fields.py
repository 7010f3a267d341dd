"""Values of cluster YAMLs: sizes and times as people write them, and what must not be there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from dask.utils import parse_bytes, parse_timedelta
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hsi_batch.documents import Document, Location
from hsi_batch.errors import Problem

__all__ = [
    "Bytes",
    "ClusterPart",
    "Line",
    "Place",
    "Resources",
    "Seconds",
    "Word",
    "clock",
    "secrets",
]

_CLOCK = re.compile(r"^(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?$")
_NAMES = re.compile(
    r"pass(?:word|wd|phrase)|secret|token|api_?key|access_?key|private_?key|credential",
    re.IGNORECASE,
)
#: A value that is one: a key in PEM, keys of well-known services, a password in an address.
_VALUES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|://[^/\s:@]+:[^/\s@]+@"
)
_SET = re.compile(r"\b(\w+)=")


def _bytes(value: Any) -> int:
    try:
        size = 0 if isinstance(value, bool) else int(parse_bytes(value))
    except (ValueError, AttributeError, TypeError, OverflowError):
        size = 0
    if size <= 0:
        raise ValueError("write a size such as 4 GiB")
    return size


def _seconds(value: Any) -> float:
    found = 0.0
    if isinstance(value, str) and (match := _CLOCK.match(value.strip())):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        found = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    elif not isinstance(value, bool):
        try:
            found = float(parse_timedelta(value))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
            found = 0.0
    if not 0 < found < 10**9:
        raise ValueError("write a time such as 90m, 2h or 1-12:00:00")
    return found


#: A size in bytes, written as ``4 GiB``.
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
#: A time in seconds, written as ``90m``, ``2h``, ``01:30:00`` or ``1-12:00:00``.
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
#: One line of a script.
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
#: A name that stands in scripts and commands as it is.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:,+@/=-]*$")]
#: A folder on another machine, whose shell replaces variables in it.
Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9_$~./][A-Za-z0-9_$./{}+@=-]*$")]
#: What workers offer to work that asks for it.
Resources = dict[Word, Annotated[float, Field(gt=0)]]


class ClusterPart(BaseModel):
    """A section of a cluster YAML."""

    model_config = ConfigDict(extra="forbid")


def clock(seconds: float) -> str:
    """A time as batch systems want it, in whole minutes at least.

    Examples
    --------
    >>> clock(5400), clock(30), clock(36 * 3600)
    ('01:30:00', '00:01:00', '36:00:00')
    """
    whole = max(int(seconds), 60)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def secrets(document: Document) -> Iterator[Problem]:
    """Entries of a cluster YAML that look like passwords or keys; their values are not repeated."""
    for location, key, value in _entries(document.data, ()):
        lines = _SET.findall(value) if isinstance(value, str) else []
        named = [name for name in (key, *lines) if _NAMES.search(name)]
        plain = isinstance(value, (str, int)) and not isinstance(value, bool)
        if plain and (named or (isinstance(value, str) and _VALUES.search(value))):
            what = f" ({named[0]})" if named else ""
            yield document.problem(
                f"{'.'.join(map(str, location))}: this looks like a secret{what}; job scripts and"
                " this file can be read by others. Set it in the environment that you start from,"
                " and name the variable under `environment`; SSH uses your agent or `key_file`.",
                location,
            )


def _entries(data: Any, at: Location) -> Iterator[tuple[Location, str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            # These are names of variables and files, not what is in them.
            if at == () and key in ("environment", "security"):
                continue
            yield from _entries(value, (*at, str(key)))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _entries(value, (*at, index))
    else:
        yield at, next((p for p in reversed(at) if isinstance(p, str)), ""), data
