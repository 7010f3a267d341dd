"""Polygons on the ground, or on a frame, become labels of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.readers.geography import Geography

__all__ = ["Shape", "library", "painted", "to_pixels"]

#: A geometry (of GeoJSON, or of shapely) in pixels, and its class number.
Shape = tuple[Any, int]


def library(name: str) -> Any:
    """Import a package of the extra ``geo``.

    Raises
    ------
    hsi_batch.errors.SourceError
        It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SourceError(
            f"labels from polygons need the package {name.partition('.')[0]} ({error}).",
            hint="Install it: pip install 'hsi-batch[geo]'.",
        ) from None


def to_pixels(
    geometries: Sequence[Any], system: str | None, geography: Geography | None, path: str
) -> list[Any]:
    """Geometries in map coordinates as geometries in pixels; the corner of the first is (0, 0).

    Parameters
    ----------
    geometries : sequence of shapely geometries or GeoJSON mappings
    system : str, optional
        Their coordinate reference system.
    geography : Geography, optional
        Of the recording.
    path : str
        Of the annotation, for messages.

    Raises
    ------
    hsi_batch.errors.SourceError
        The recording is not georeferenced, or one of both does not say in which system.
    """
    if geography is None:
        raise SourceError(
            "its polygons are in map coordinates, and nothing says where on the ground the"
            " recording is.",
            path=path,
            hint="Add `map info` to the header of the recording and convert it again, or use labels"
            " in pixels: COCO, a class image, an ENVI classification.",
        )
    if (system is None) != (geography.crs is None):
        lacking = "it does" if system is None else "the recording does"
        raise SourceError(
            f"{lacking} not say which coordinate system its map coordinates are of.",
            path=path,
            hint="State it (`coordinate system string` in an ENVI header), or use labels in"
            " pixels.",
        )
    shapely, pyproj = library("shapely"), library("pyproj")
    if system is None:
        transform = None
    else:
        try:
            transform = pyproj.Transformer.from_crs(system, geography.crs, always_xy=True)
        except pyproj.exceptions.ProjError as error:
            raise SourceError(
                f"its coordinate system and that of the recording do not go together: {error}.",
                path=path,
                hint="Save the polygons in the coordinate system of the recording.",
            ) from None
    t = geography.transform
    matrix = np.linalg.inv(np.array([[t[1], t[2]], [t[4], t[5]]]))

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = (points[:, 0], points[:, 1])
        if transform is not None:
            x, y = transform.transform(x, y)
        return np.column_stack([np.asarray(x) - t[0], np.asarray(y) - t[3]]) @ matrix.T

    given = [shapely.geometry.shape(g) if isinstance(g, dict) else g for g in geometries]
    return [shapely.transform(geometry, moved) for geometry in given]


def painted(shapes: Sequence[Shape], shape: tuple[int, int]) -> NDArray[np.int16] | None:
    """Labels ``(y, x)``: pixels whose centre is inside; later shapes cover earlier ones.

    What no shape covers is -1; None if no shape touches the frame.
    """
    shapely, features = library("shapely"), library("rasterio.features")
    frame = shapely.box(0, 0, shape[1], shape[0])
    there = []
    for geometry, number in shapes:
        held = shapely.geometry.shape(geometry) if isinstance(geometry, dict) else geometry
        if held is not None and not held.is_empty and held.intersects(frame):
            there.append((held, number))
    if not there:
        return None
    found: NDArray[np.int16] = features.rasterize(there, out_shape=shape, fill=-1, dtype="int16")
    return found
