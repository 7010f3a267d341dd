"""Presets: how the arrays of a session are compressed, and what is one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.codecs import BloscCodec

from hsi_batch.errors import ConfigError, did_you_mean

__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "preset_of"]


@dataclass(frozen=True)
class Preset:
    """How arrays are stored. Values, statistics and scores do not depend on it.

    Attributes
    ----------
    name : str
    codec : str
        Of Blosc.
    level : int
        0 stores without compression.
    integers, floats : str
        Shuffle of 16-bit integers, and of all else.
    sharded : bool
        Many blocks are one file.
    """

    name: str
    codec: str
    level: int
    integers: str
    floats: str = "shuffle"
    sharded: bool = False

    def compressor(self, dtype: np.dtype[Any]) -> BloscCodec:
        """The compressor of an array.

        Examples
        --------
        >>> PRESETS["small"].compressor(np.dtype("uint16")).cname.value
        'zstd'
        """
        counts = dtype.kind in "iu" and dtype.itemsize == 2
        shuffle: Any = self.integers if counts else self.floats
        codec: Any = self.codec
        return BloscCodec(cname=codec, clevel=self.level, shuffle=shuffle)


#: Chosen from measurements, see docs/archive.md. Bit shuffle packs the unused high bits of 12-bit
#: counts; zstd finds more in whole bytes.
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("fast", "lz4", 0, "noshuffle", "noshuffle"),
        Preset("balanced", "lz4", 5, "bitshuffle"),
        Preset("small", "zstd", 3, "shuffle"),
        Preset("sharded", "lz4", 5, "bitshuffle", sharded=True),
    )
}
DEFAULT_PRESET = "balanced"


def preset_of(name: str | None) -> Preset:
    """A preset by its name; the default one without a name.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no such preset.
    """
    preset = PRESETS.get(name or DEFAULT_PRESET)
    if preset is None:
        raise ConfigError(
            f"there is no preset {name!r}.{did_you_mean(str(name), PRESETS)}",
            hint=f"Presets are {', '.join(PRESETS)}.",
        )
    return preset
