"""Files that say where pixels are, recognised by their names."""

from __future__ import annotations

import re

__all__ = ["geometry_kind", "geometry_reason"]

#: A last word by which a file says that it is geometry and no recording.
_KIND = re.compile(r"(?i)[ ._-](igm|glt|gps)$")


def geometry_kind(stem: str) -> tuple[str, str | None]:
    """A file name without the word that says what kind of geometry it is, and that word.

    Examples
    --------
    >>> geometry_kind("flight_03_IGM"), geometry_kind("flight_03")
    (('flight_03', 'igm'), ('flight_03', None))
    """
    found = _KIND.search(stem)
    return (stem, None) if found is None else (stem[: found.start()], found[1].casefold())


def geometry_reason(stem: str) -> str | None:
    """Why a file name means geometry instead of a recording, or None if it does not.

    Examples
    --------
    >>> geometry_reason("flight_03_igm"), geometry_reason("flight_03")
    ('geometry (IGM) by its name (rename it if it is a scene)', None)
    """
    kind = geometry_kind(stem)[1]
    return (
        None
        if kind is None
        else f"geometry ({kind.upper()}) by its name (rename it if it is a scene)"
    )
