"""What plans ask of a session, so that ten thousand sessions are planned for without opening one.

Kept with the catalog, and trusted as far as it: as long as the metadata of the store are those that
it was written for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.layout import Geometry
from hsi_batch.archive.seals import SEAL

__all__ = ["Outline"]


@dataclass(frozen=True)
class Outline:
    """Shape, attributes and channels of a session.

    Attributes
    ----------
    geometry : Geometry
    attrs : mapping
        Of the group.
    arrays : frozenset of str
        Names of the arrays that there are.
    shard : (int, int), optional
        Frames, and blocks of each, that are one file.
    wavelength : (channel,) float64, optional
        In nm.
    good_band : (channel,) bool, optional
    """

    geometry: Geometry
    attrs: Mapping[str, Any]
    arrays: frozenset[str]
    shard: tuple[int, int] | None = None
    wavelength: NDArray[np.float64] | None = None
    good_band: NDArray[np.bool_] | None = None

    def to_json(self) -> str:
        """As text.

        Examples
        --------
        >>> outline = Outline(Geometry(2, (4, 4, 3), "uint16", 4), {}, frozenset({"cube"}))
        >>> Outline.from_json(outline.to_json()) == outline
        True
        """
        geometry = self.geometry
        content = {
            "frames": geometry.frames,
            "shape": geometry.shape,
            "dtype": geometry.dtype,
            "lines": geometry.lines,
            "arrays": sorted(self.arrays),
            "shard": self.shard,
            "attrs": {k: v for k, v in self.attrs.items() if k != SEAL},
            "wavelength": None if self.wavelength is None else self.wavelength.tolist(),
            "good_band": None if self.good_band is None else self.good_band.tolist(),
        }
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Outline:
        """Inverse of :meth:`to_json`; raises ValueError, LookupError or TypeError on other text."""
        found = json.loads(text)
        height, width, channels = found["shape"]
        wavelength, good = found["wavelength"], found["good_band"]
        shard = found["shard"]
        return cls(
            Geometry(
                int(found["frames"]), (height, width, channels), found["dtype"], found["lines"]
            ),
            dict(found["attrs"]),
            frozenset(found["arrays"]),
            None if shard is None else (int(shard[0]), int(shard[1])),
            None if wavelength is None else np.array(wavelength, dtype=np.float64),
            None if good is None else np.array(good, dtype=bool),
        )
