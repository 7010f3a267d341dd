"""Where on the ground the pixels of a recording are: ENVI map info and coordinate systems."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hsi_batch.readers.envi_fields import EnviFields

__all__ = ["Geography", "crs_of", "geography_of"]

_ARBITRARY = ("arbitrary", "unknown")


@dataclass(frozen=True)
class Geography:
    """An affine map from pixels to map coordinates.

    Attributes
    ----------
    transform : tuple of six float
        As GDAL writes it: the corner of the first pixel is at ``(t[0], t[3])``; one column on adds
        ``(t[1], t[4])``, one line on ``(t[2], t[5])``.
    crs : str, optional
        Coordinate reference system: ``EPSG:32633`` or WKT; None if it is not known.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str | None = None

    def to_attrs(self) -> dict[str, Any]:
        """As attributes of a session."""
        return {"transform": list(self.transform), "crs": self.crs}

    @classmethod
    def of_attrs(cls, attrs: Mapping[str, Any] | None) -> Self | None:
        """Inverse of :meth:`to_attrs`; None for a session without."""
        if not attrs:
            return None
        a, b, c, d, e, f = (float(v) for v in attrs["transform"])
        return cls((a, b, c, d, e, f), attrs.get("crs"))

    def at(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Map coordinates of pixel positions; the corner of the first pixel is (0, 0).

        Examples
        --------
        >>> Geography((500.0, 2.0, 0.0, 900.0, 0.0, -2.0)).at(0.5, 0.5)
        (501.0, 899.0)
        """
        t = self.transform
        return t[0] + x * t[1] + y * t[2], t[3] + x * t[4] + y * t[5]

    def shifted(self, columns: float, lines: float) -> Geography:
        """Of a recording that begins so many columns and lines further on."""
        x, y = self.at(columns, lines)
        t = self.transform
        return Geography((x, t[1], t[2], y, t[4], t[5]), self.crs)


def geography_of(fields: EnviFields) -> Geography | None:
    """What ``map info`` and ``coordinate system string`` of an ENVI header say; None without.

    Raises
    ------
    hsi_batch.errors.SourceError
        ``map info`` without seven entries, or with ones that are no numbers.
    """
    given = fields.values.get("map info")
    if not given:
        return None
    entries = [e.strip() for e in (given if isinstance(given, list) else given.split(","))]
    try:
        ref_x, ref_y, east, north, step_x, step_y = (float(e) for e in entries[1:7])
    except ValueError:
        raise fields.error(
            f"'map info' is {', '.join(entries)[:60]!r}; expected a projection and six numbers.",
            "map info",
            hint="Correct it, or delete 'map info' if the recording has no map.",
        ) from None
    pairs = (e.lower().partition("=") for e in entries[7:] if "=" in e)
    named = {key.strip(): value.strip() for key, _, value in pairs}
    turn = -math.radians(float(named.get("rotation", 0.0)))
    cosine, sine = math.cos(turn), math.sin(turn)
    linear = (cosine * step_x, -sine * step_x, -sine * step_y, -cosine * step_y)
    # The reference pixel counts from 1, its corner from 1.0.
    column, line = ref_x - 1.0, ref_y - 1.0
    x = east - column * linear[0] - line * linear[1]
    y = north - column * linear[2] - line * linear[3]
    transform = (x, linear[0], linear[1], y, linear[2], linear[3])
    return Geography(transform, _crs(fields, entries))


def crs_of(fields: EnviFields) -> str | None:
    """Coordinate reference system of a header, with ``map info`` or without; None if unknown."""
    given = fields.values.get("map info") or "unknown"
    entries = [e.strip() for e in (given if isinstance(given, list) else given.split(","))]
    return _crs(fields, entries)


def _crs(fields: EnviFields, entries: list[str]) -> str | None:
    given = fields.values.get("coordinate system string")
    if given:
        text = ",".join(given) if isinstance(given, list) else given
        return text.strip() or None
    name = entries[0].casefold()
    plain = [e for e in entries[7:] if "=" not in e]
    datum = re.sub(r"[^a-z0-9]", "", " ".join(plain).casefold())
    wgs84 = "wgs84" in datum or "worldgeodeticsystem1984" in datum
    if name.startswith(_ARBITRARY) or not wgs84:
        return None
    if name.startswith("geographic"):
        return "EPSG:4326"
    if name.startswith("utm") and len(plain) >= 2 and plain[0].isdigit():
        hemisphere = 32700 if plain[1].casefold().startswith("s") else 32600
        return f"EPSG:{hemisphere + int(plain[0])}"
    return None
