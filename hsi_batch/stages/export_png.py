"""Maps of scores as PNG pictures: numbers as grey with a stated range, decisions as classes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hsi_batch.errors import ConfigError
from hsi_batch.files import write_atomically
from hsi_batch.places import place
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.export_maps import LINES, StoredMap, each_map

__all__ = ["grey_of", "write_pngs"]

#: Shares of all scores at the ends of the grey scale.
_ENDS = (0.001, 0.9999)
_TOP = 65535
#: Colours of classes by their number; more repeat them.
_COLOURS = (
    *((24, 24, 24), (220, 60, 50), (66, 133, 214), (60, 180, 75), (250, 210, 50)),
    *((170, 90, 200), (240, 140, 40), (90, 200, 200), (200, 200, 200)),
)
_INVALID = 255


def write_pngs(
    store: str | os.PathLike[str],
    folder: Path,
    outputs: Sequence[str] | None,
    *,
    limits: tuple[float, float] | None = None,
) -> tuple[str, ...]:
    """Write a PNG per frame and map of one channel, and ``png.json`` with what the values mean.

    Floats become 16-bit grey: 1 stands for the lower limit, 65535 for the upper one, linear between
    them, and 0 for invalid pixels. The limits are the same for all frames: of scores those that
    leave out a thousandth below and a ten-thousandth above, of other maps the lowest and the
    highest value. Decisions and classes are pictures with a palette: a value is the class, 255 is
    invalid.

    Parameters
    ----------
    store : path
    folder : Path
    outputs : sequence of str, optional
    limits : (float, float), optional
        Of the grey scale.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A map that is not there or has channels, limits that do not rise, or more than 254 classes.
    """
    if limits is not None and not limits[0] < limits[1]:
        raise ConfigError(
            f"the range {limits[0]:g} to {limits[1]:g} of the grey scale does not rise.",
            hint="Give the lower value first: --range LOW HIGH.",
        )
    maps = list(each_map(store, outputs, channels=False))
    ranges = {
        name: limits or _limits(store, [one for one in maps if one.output == name])
        for name in dict.fromkeys(one.output for one in maps if one.array.dtype.kind == "f")
    }
    files, meanings = [], {}
    for one in maps:
        target = folder / f"{one.stem}.png"
        values = _frame(one)
        if one.output in ranges:
            low, high = ranges[one.output]
            meaning = {
                "map": one.output,
                "low": low,
                "high": high,
                "value": f"low + (grey - 1) / {_TOP - 1} * (high - low); 0 is invalid",
            }
            picture = Image.fromarray(grey_of(values, low, high))
        else:
            meaning = {"map": one.output, "value": f"the class; {_INVALID} is invalid"}
            picture = _classes(values, one)
        said = PngInfo()
        for key, text in meaning.items():
            said.add_text(f"hsi_batch:{key}", str(text))
        temporary = target.with_name(f".{target.name}.new")
        picture.save(temporary, format="png", pnginfo=said)
        temporary.replace(target)
        files.append(str(target))
        meanings[target.name] = {"session": one.session, "frame": one.frame, **meaning}
    # Beside the pictures, for most tools drop what is written in them.
    write_atomically(folder / "png.json", json.dumps(meanings, indent=1))
    return tuple(files)


def grey_of(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint16]:
    """Values as 16-bit grey, 0 where they are NaN.

    Examples
    --------
    >>> grey_of(np.array([[np.nan, -1.0, 0.5, 1.0, np.inf]]), 0.0, 1.0)
    array([[    0,     1, 32768, 65535, 65535]], dtype=uint16)
    """
    share = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    grey = np.rint(1 + (_TOP - 1) * share)
    return np.where(np.isnan(grey), 0, grey).astype(np.uint16)


def _limits(store: str | os.PathLike[str], maps: Sequence[StoredMap]) -> tuple[float, float]:
    """Of all frames; those of the scores without reading a pixel."""
    found = load_evaluation(place(store)) if maps[0].output == "scores" else None
    if found is not None and found.scores.count:
        low, high = map(float, found.scores.quantile(list(_ENDS))[:, 0])
    else:
        low, high = np.inf, -np.inf
        for one in maps:
            for start in range(0, one.array.shape[1], LINES):
                values = _lines(one, start)
                inside = values[np.isfinite(values)]
                low = min(low, float(inside.min(initial=np.inf)))
                high = max(high, float(inside.max(initial=-np.inf)))
    if not np.isfinite([low, high]).all():
        return 0.0, 1.0
    return (low, high) if low < high else (low, low + 1.0)


def _frame(one: StoredMap) -> NDArray[Any]:
    return np.concatenate([_lines(one, s) for s in range(0, one.array.shape[1], LINES)])


def _lines(one: StoredMap, start: int) -> NDArray[Any]:
    array: zarr.Array[Any] = one.array
    return np.asarray(array[one.frame, start : start + LINES])


def _classes(values: NDArray[Any], one: StoredMap) -> Image.Image:
    if values.max(initial=0) >= _INVALID and values.dtype != np.uint8:
        raise ConfigError(
            f"the map {one.output} has classes up to {values.max()}; a PNG has room for 254.",
            session=one.session,
            frame=one.frame,
            hint="Export geotiff or envi, or name other maps with --output.",
        )
    picture = Image.fromarray(np.where(values < 0, _INVALID, values).astype(np.uint8), mode="L")
    picture = picture.convert("P") if picture.mode != "P" else picture
    colours = [_COLOURS[c % len(_COLOURS)] for c in range(_INVALID)] + [(128, 128, 128)]
    picture.putpalette([part for colour in colours for part in colour])
    return picture
