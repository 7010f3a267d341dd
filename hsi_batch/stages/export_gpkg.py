"""Detections as polygons in a GeoPackage."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hsi_batch.readers.geography import Geography
from hsi_batch.stages.detections import Detections
from hsi_batch.stages.export import merged_runs
from hsi_batch.stages.extras import need
from hsi_batch.stages.places import PixelPositions

__all__ = ["write_gpkg"]


def write_gpkg(found: Detections, target: Path) -> None:
    """Write one layer per coordinate system, and ``pixels`` for sessions without any.

    Polygons follow the edges of pixels. Those of ``pixels`` have x to the right and y upwards, so
    that line 0 is at the top (y = -line).

    Raises
    ------
    hsi_batch.errors.ConfigError
        The extra ``geo`` is not installed.
    """
    shapely = need("shapely", "a GeoPackage")
    raw = need("pyogrio.raw", "a GeoPackage")
    temporary = target.with_name(f".{target.stem}.new.gpkg")
    temporary.unlink(missing_ok=True)
    by_layer: dict[str, list[tuple[Any, int]]] = {}
    systems: dict[str, str | None] = {}
    row = 0
    for frame in found.regions:
        place = found.places.get(frame.session)
        layer = _layer(place, systems)
        for runs in frame.boxes:
            by_layer.setdefault(layer, []).append((_polygon(shapely, runs, place), row))
            row += 1
    fields = [name for name in found.table.columns if name != "crs"]
    if not by_layer:
        by_layer, systems = {"pixels": []}, {"pixels": None}
    for layer, entries in by_layer.items():
        chosen = found.table.iloc[[index for _, index in entries]]
        with warnings.catch_warnings():
            # That pixel coordinates are of no system is told in words of our own.
            warnings.filterwarnings("ignore", "'crs' was not provided")
            raw.write(
                str(temporary),
                shapely.to_wkb(np.array([polygon for polygon, _ in entries], dtype=object)),
                [chosen[name].to_numpy() for name in fields],
                fields,
                layer=layer,
                driver="GPKG",
                geometry_type="MultiPolygon",
                promote_to_multi=True,
                crs=systems[layer],
                append=temporary.exists(),
            )
    temporary.replace(target)


def _layer(place: Geography | PixelPositions | None, systems: dict[str, str | None]) -> str:
    if place is None:
        systems["pixels"] = None
        return "pixels"
    for name, crs in systems.items():
        if name != "pixels" and crs == place.crs:
            return name
    name = "detections" if "detections" not in systems else f"detections_{len(systems) + 1}"
    systems[name] = place.crs
    return name


def _polygon(shapely: Any, runs: Any, place: Geography | PixelPositions | None) -> Any:
    transform = place or Geography((0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    corners = []
    for y0, y1, x0, x1 in merged_runs(runs):
        x, y = np.array([x0, x1, x1, x0, x0]), np.array([y0, y0, y1, y1, y0])
        corners.append(shapely.Polygon(np.column_stack(transform.at(x, y))))
    return shapely.unary_union(corners)
