"""Maps of scores as ENVI files: what older tools of the field open."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from hsi_batch.archive.store import SCORES, open_root
from hsi_batch.errors import ConfigError
from hsi_batch.readers.geography import Geography
from hsi_batch.stages.export_maps import LINES, each_map, geography_of, nodata_of

__all__ = ["INTERLEAVES", "map_info", "write_envi"]

INTERLEAVES = ("bsq", "bil", "bip")
_UTM = re.compile(r"EPSG:32([67])(\d\d)")


def write_envi(
    store: str | os.PathLike[str],
    folder: Path,
    outputs: Sequence[str] | None,
    *,
    interleave: str = "bsq",
    archive: str | os.PathLike[str] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write a header (.hdr) and a data file (.img) per frame and map, with nodata and ``map info``.

    Maps with channels are cubes, with the wavelengths of their channels where those still have any.

    Returns
    -------
    files : tuple of str
        The headers.
    unplaced : tuple of str
        Sessions without georeference, or with one that a header cannot say.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A map that is not there, or an interleave that does not exist.
    """
    if interleave not in INTERLEAVES:
        raise ConfigError(f"interleave {interleave!r} is not one of {', '.join(INTERLEAVES)}.")
    attrs: dict[str, Any] = dict(open_root(str(store), SCORES).attrs)
    known = archive or attrs.get("archive")
    wavelengths: Any = attrs.get("wavelengths") or {}
    files, unplaced = [], []
    for one in each_map(store, outputs):
        place = geography_of(known, one.session)
        located = None if place is None else map_info(place)
        if located is None:
            unplaced.append(one.session)
        target = folder / f"{one.stem}.hdr"
        _write(one.array, one.frame, target, interleave, _fields(one, wavelengths, located))
        files.append(str(target))
    return tuple(files), tuple(dict.fromkeys(unplaced))


def map_info(place: Geography) -> dict[str, Any] | None:
    """``map info`` and, for systems other than WGS 84, ``coordinate system string`` of a header.

    None where the map is sheared or mirrored, which ``map info`` has no words for.

    Examples
    --------
    >>> map_info(Geography((500.0, 2.0, 0.0, 900.0, 0.0, -2.0), "EPSG:32633"))["map info"][-4:]
    ['33', 'North', 'WGS-84', 'units=Meters']
    """
    x, across, down, y, rise, fall = place.transform
    size_x, size_y = math.hypot(across, down), math.hypot(rise, fall)
    turn = math.atan2(-down, across)
    again = (-math.sin(turn) * size_y, -math.cos(turn) * size_y)
    if not np.allclose(again, (rise, fall), rtol=1e-9, atol=1e-9 * size_y):
        return None
    numbers = [repr(float(v)) for v in (1, 1, x, y, size_x, size_y)]
    found = _UTM.fullmatch(place.crs or "")
    if found:
        half = "South" if found[1] == "7" else "North"
        named = ["UTM", *numbers, str(int(found[2])), half, "WGS-84", "units=Meters"]
    elif place.crs == "EPSG:4326":
        named = ["Geographic Lat/Lon", *numbers, "WGS-84", "units=Degrees"]
    else:
        named = ["Arbitrary", *numbers, "0", "units=Meters"]
    if turn:
        named.append(f"rotation={-math.degrees(turn)!r}")
    fields: dict[str, Any] = {"map info": named}
    if named[0] == "Arbitrary" and place.crs:
        fields["coordinate system string"] = f"{{{place.crs}}}"
    return fields


def _fields(one: Any, wavelengths: Any, located: dict[str, Any] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "description": f"{one.output} of session {one.session} frame {one.frame} by hsi_batch",
        "data ignore value": str(nodata_of(one.array)),
        **(located or {}),
    }
    if one.array.ndim == 3:
        return fields | {"band names": [one.output]}
    channels = one.array.shape[3]
    fields["band names"] = [f"{one.output} {channel}" for channel in range(channels)]
    nm = wavelengths.get(one.output)
    if nm is not None and len(nm) == channels:
        fields |= {"wavelength": [f"{v:.10g}" for v in nm], "wavelength units": "Nanometers"}
    return fields


def _write(
    array: zarr.Array[Any], frame: int, target: Path, interleave: str, fields: dict[str, Any]
) -> None:
    from spectral.io import envi

    height, width = array.shape[1:3]
    channels = array.shape[3] if array.ndim == 4 else 1
    # A header appears when its data are there, whole.
    header, data = (target.with_name(f".{target.stem}.new.{kind}") for kind in ("hdr", "img"))
    image = envi.create_image(
        str(header),
        dict(fields),
        shape=(height, width, channels),
        dtype=array.dtype,
        interleave=interleave,
        ext="img",
        force=True,
    )
    values = image.open_memmap(writable=True)
    for start in range(0, height, LINES):
        part = np.asarray(array[frame, start : start + LINES])
        values[start : start + LINES] = part.reshape(*part.shape[:2], channels)
    values.flush()
    del values, image
    target.unlink(missing_ok=True)
    data.replace(target.with_suffix(".img"))
    header.replace(target)
