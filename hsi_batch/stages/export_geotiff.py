"""Score maps as GeoTIFF: where the recording lies, or on the map grid of a lookup table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.store import SCORES, open_root
from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.readers.envi import EnviSource
from hsi_batch.readers.envi_fields import read_fields
from hsi_batch.readers.geography import Geography, geography_of
from hsi_batch.stages.export import score_groups
from hsi_batch.stages.extras import need
from hsi_batch.stages.ortho import NearestPixels
from hsi_batch.stages.places import Located, PixelPositions, place_of

__all__ = ["IGM", "write_geotiffs"]

#: Stands for the positions that a session itself holds, in the place of a lookup table.
IGM = "igm"

#: Lines of a map that are written at once.
_LINES = 256


def write_geotiffs(
    store: str | os.PathLike[str],
    folder: Path,
    outputs: Sequence[str] | None,
    *,
    archive: str | os.PathLike[str] | None = None,
    ortho: str | os.PathLike[str] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write a cloud-optimised GeoTIFF per frame and map, with nodata and overviews.

    Returns
    -------
    files : tuple of str
    unplaced : tuple of str
        Sessions without georeference.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A map that is not there or has channels, a lookup table that does not fit, or the extra
        ``geo`` is not installed.
    """
    need("rasterio", "a GeoTIFF")
    known = archive or open_root(str(store), SCORES).attrs.get("archive")
    own = ortho is not None and str(ortho) == IGM
    glt = None if ortho is None or own else Lookup(str(ortho))
    files, unplaced = [], []
    for name, group in score_groups(store).items():
        located = place_of(_present(known), name)
        table = _own_table(located, name) if own else glt
        place = table.place if table is not None else located
        if not isinstance(place, Geography):
            place = None
            unplaced.append(name)
        for output in outputs or _maps(group):
            array = group.get(output)
            if not isinstance(array, zarr.Array) or array.ndim != 3:
                raise ConfigError(
                    f"session {name} has no map {output!r} of one channel.",
                    path=str(store),
                    hint=f"There are {', '.join(_maps(group)) or 'none'}.",
                )
            if table is not None:
                table.check(name, array.shape[1], array.shape[2])
            for frame in range(array.shape[0]):
                numbered = f"_{frame:03d}" if array.shape[0] > 1 else ""
                target = folder / f"{name}{numbered}_{output}.tif"
                _write(array, frame, target, place, table)
                files.append(str(target))
    return tuple(files), tuple(unplaced)


def _maps(group: zarr.Group) -> list[str]:
    return sorted(n for n, a in group.arrays() if a.ndim == 3 and n in ("scores", "decisions"))


def _present(archive: Any) -> str | None:
    return str(archive) if archive and Path(str(archive)).exists() else None


def _own_table(located: Located | None, name: str) -> NearestPixels:
    if not isinstance(located, PixelPositions):
        raise ConfigError(
            f"session {name} has no longitude and latitude of its pixels.",
            hint="Convert it with its input geometry (--igm FILE), or give a GLT: --ortho GLT.hdr.",
        )
    return NearestPixels(located, name)


class Lookup:
    """A geographic lookup table (ENVI GLT): the column and line of each cell of a map grid.

    Values count from 1; 0 is nothing, and a negative value is that of the nearest pixel.

    Parameters
    ----------
    path : str
        Its header.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).exists():
            raise ConfigError("there is no such lookup table.", path=path, hint="Check the path.")
        try:
            with EnviSource(path) as source:
                info = source.info
                if info.shape[2] != 2 or info.dtype.kind not in "iu":
                    raise ConfigError(
                        f"it has {info.shape[2]} bands of {info.dtype}; a lookup table has two of"
                        " whole numbers (sample and line).",
                        path=path,
                        hint="Give the GLT of the sensor's processing, not the IGM.",
                    )
                cells = source.frame(0).read(0, info.shape[0])
            self.place = geography_of(read_fields(path))
        except SourceError as error:
            raise ConfigError(str(error), path=path) from None
        if self.place is None:
            raise ConfigError(
                "it has no 'map info', so its grid is nowhere.",
                path=path,
                hint="Give a lookup table with 'map info' in its header.",
            )
        self.path = path
        self.shape = cells.shape[:2]
        self._column, self._line = (np.abs(cells[..., i].astype(np.int64)) - 1 for i in (0, 1))

    def check(self, session: str, height: int, width: int) -> None:
        """Refuse a table that names pixels which a session does not have."""
        if self._column.max() >= width or self._line.max() >= height:
            raise ConfigError(
                f"it names line {self._line.max()} and column {self._column.max()}; session"
                f" {session} has {height} lines of {width} (counted from 0).",
                path=self.path,
                hint="Give the lookup table of this recording.",
            )

    def mapped(self, values: NDArray[Any], nothing: Any) -> NDArray[Any]:
        """The map on the grid of the table."""
        known = (self._column >= 0) & (self._line >= 0)
        out = np.full(self.shape, nothing, dtype=values.dtype)
        out[known] = values[self._line[known], self._column[known]]
        return out


def _write(
    array: zarr.Array[Any],
    frame: int,
    target: Path,
    place: Geography | None,
    table: Lookup | NearestPixels | None,
) -> None:
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.shutil import copy as copy_raster
    from rasterio.transform import Affine

    nothing = np.nan if array.dtype.kind == "f" else INVALID_DECISION
    whole = None if table is None else table.mapped(np.asarray(array[frame]), nothing)
    height, width = array.shape[1:] if whole is None else whole.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 1,
        "dtype": array.dtype.name,
        "nodata": nothing,
        "tiled": True,
        "bigtiff": "IF_SAFER",
    }
    if place is not None:
        t = place.transform
        profile |= {"transform": Affine(t[1], t[2], t[0], t[4], t[5], t[3]), "crs": place.crs}
    plain, done = (target.with_name(f".{target.stem}.{kind}.tif") for kind in ("plain", "new"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(plain, "w", **profile) as file:
            for start, lines in _strips(array, frame, whole):
                window = rasterio.windows.Window(0, start, width, len(lines))
                file.write(lines, 1, window=window)
            file.set_band_description(1, array.basename or "")
        copy_raster(
            plain,
            done,
            driver="COG",
            compress="deflate",
            bigtiff="IF_SAFER",
            overview_resampling="nearest",
        )
    plain.unlink()
    done.replace(target)


def _strips(
    array: zarr.Array[Any], frame: int, whole: NDArray[Any] | None
) -> Iterator[tuple[int, Any]]:
    if whole is not None:
        yield 0, whole
        return
    for start in range(0, array.shape[1], _LINES):
        yield start, np.asarray(array[frame, start : start + _LINES])
