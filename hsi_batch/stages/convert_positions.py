"""What a conversion keeps of where pixels are, and of which wavelengths columns see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.session import Session
from hsi_batch.archive.store import create_array
from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.files import digest_of_file
from hsi_batch.readers.cropped import Crop
from hsi_batch.readers.positions import find_positions, open_igm, read_track
from hsi_batch.readers.protocol import SourceInfo
from hsi_batch.readers.wavelength_map import read_wavelength_map
from hsi_batch.stages.convert_plan import ConvertOptions

__all__ = [
    "SessionPositions",
    "check_position_options",
    "choose_positions",
    "with_mapped_wavelengths",
    "write_positions",
]

_SIBLING, _NONE = "sibling", "none"
_LON = {"standard_name": "longitude", "units": "degrees_east"}
_LAT = {"standard_name": "latitude", "units": "degrees_north"}


@dataclass(frozen=True)
class SessionPositions:
    """What says where the pixels of a recording are.

    Attributes
    ----------
    igm, gps, wavelength_map : str, optional
    shape : (int, int)
        Lines and samples of the recording before it is cropped.
    files : tuple of str
        Every file of them.
    """

    igm: str | None
    gps: str | None
    wavelength_map: str | None
    shape: tuple[int, int]
    files: tuple[str, ...]


def check_position_options(options: ConvertOptions) -> None:
    """Refuse files that are not there.

    Raises
    ------
    hsi_batch.errors.ConfigError
    """
    for option, given in (("igm", options.igm), ("gps", options.gps)):
        if given not in (_SIBLING, _NONE) and not Path(given).exists():
            raise ConfigError(
                f"there is no such file of {option.upper()} positions.",
                path=given,
                hint=f"Name a file, or write --{option} sibling or none.",
            )
    if options.wavelength_map is not None and not Path(options.wavelength_map).exists():
        raise ConfigError(
            "there is no such wavelength map.", path=options.wavelength_map, hint="Check the path."
        )


def choose_positions(
    path: str, info: SourceInfo, options: ConvertOptions
) -> SessionPositions | None:
    """The files that say where the pixels of a recording are, checked against it.

    Raises
    ------
    hsi_batch.errors.SourceError
        They do not fit.
    """
    beside = find_positions(path) if _SIBLING in (options.igm, options.gps) else (None, None)
    igm, gps = (
        other if given == _SIBLING else None if given == _NONE else given
        for given, other in zip((options.igm, options.gps), beside, strict=True)
    )
    mapped = options.wavelength_map
    if igm is None and gps is None and mapped is None:
        return None
    if info.frames != 1 and (igm or gps):
        raise SourceError(
            f"the positions in {igm or gps} are those of one frame of lines; the recording has"
            f" {info.frames} frames.",
            path=path,
            hint="Leave them out (--igm none --gps none).",
        )
    shape = info.shape[:2]
    files: tuple[str, ...] = ()
    if igm is not None:
        files += open_igm(igm, shape).files
    if gps is not None:
        read_track(gps, shape[0])
        files += (gps,)
    if mapped is not None:
        read_wavelength_map(mapped, info)
        files += (mapped,)
    return SessionPositions(igm, gps, mapped, shape, files)


def with_mapped_wavelengths(info: SourceInfo, positions: SessionPositions | None) -> SourceInfo:
    """A recording that states no wavelengths has the mean ones of its map."""
    if positions is None or positions.wavelength_map is None or info.wavelength is not None:
        return info
    return replace(info, wavelength=read_wavelength_map(positions.wavelength_map, info).mean(0))


def write_positions(
    session: Session, positions: SessionPositions, info: SourceInfo, crop: Crop | None
) -> None:
    """Keep them as coordinates of the session, by the conventions of CF.

    Parameters
    ----------
    session : Session
        New.
    positions : SessionPositions
    info : SourceInfo
        Of the recording, cropped.
    crop : Crop, optional
    """
    height, width, _ = session.geometry.shape
    top = 0 if crop is None else crop.top
    columns = slice(None) if crop is None else crop.columns(positions.shape[1])
    told: dict[str, Any] = {"sha256": {file: digest_of_file(file) for file in positions.files}}
    made = []
    if positions.igm is not None:
        igm = open_igm(positions.igm, positions.shape)
        size, step = (height, width), session.geometry.lines
        lon = _made(session, "lon", ("y", "x"), size, _LON, chunks=(step, width))
        lat = _made(session, "lat", ("y", "x"), size, _LAT, chunks=(step, width))
        for start in range(0, height, step):
            stop = min(start + step, height)
            lon[start:stop], lat[start:stop] = igm.read(start + top, stop + top, columns)
        told |= {"of": "pixel", "igm": positions.igm, "crs": igm.crs}
        made += ["lon", "lat"]
    if positions.gps is not None:
        track = read_track(positions.gps, positions.shape[0])
        lines = slice(top, top + height)
        values: Mapping[str, tuple[NDArray[np.float64] | None, dict[str, str]]] = {
            "lon": (None if "lon" in made else track.lon, _LON),
            "lat": (None if "lat" in made else track.lat, _LAT),
            "heading": (track.heading, {"units": "degree", "long_name": "clockwise from north"}),
            "line_time": (track.time, _time_attrs(track.dated)),
        }
        for name, (found, attrs) in values.items():
            if found is not None:
                _made(session, name, ("y",), (height,), attrs)[:] = found[lines]
                made.append(name)
        missing = int(np.isnan(track.lat[lines]).sum())
        told |= {"of": told.get("of", "line"), "gps": positions.gps, "lines_without": missing}
    if positions.wavelength_map is not None:
        nm = read_wavelength_map(positions.wavelength_map, info, columns)
        attrs = {"units": "nm", "standard_name": "radiation_wavelength"}
        _made(session, "wavelength_map", ("x", "channel"), nm.shape, attrs)[...] = nm
        told["wavelength_map"] = positions.wavelength_map
        made.append("wavelength_map")
    listed = str(session.cube.attrs.get("coordinates", "")).split()
    session.cube.attrs["coordinates"] = " ".join(dict.fromkeys([*listed, *made]))
    session.group.attrs["positions"] = told


def _time_attrs(dated: bool) -> dict[str, str]:
    if dated:
        return {"units": "seconds since 1970-01-01 00:00:00", "standard_name": "time"}
    return {"long_name": "time of the line, as the GPS table counts it"}


def _made(
    session: Session,
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    attrs: Mapping[str, Any],
    chunks: tuple[int, ...] | None = None,
) -> Any:
    return create_array(
        session.group,
        name,
        shape=shape,
        chunks=chunks or shape,
        dtype="float64",
        dims=dims,
        fill=np.nan,
        attrs=attrs,
    )
