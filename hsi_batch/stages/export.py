"""Detections and score maps for other tools."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import zarr
from distributed import Client

from hsi_batch._version import __version__
from hsi_batch.archive.store import SCORES, groups_of, open_root
from hsi_batch.engine.events import Observer
from hsi_batch.errors import ConfigError, DataWarning, StoreError, did_you_mean
from hsi_batch.files import write_atomically
from hsi_batch.places import place
from hsi_batch.readers.paths import natural_key
from hsi_batch.stages.detections import Detections, find_detections
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.moved import warn_of_scores
from hsi_batch.stages.outputs import check_place
from hsi_batch.stages.report_facts import failures_of
from hsi_batch.stages.report_tables import summary_by_session
from hsi_batch.wording import counted, some

__all__ = ["ExportResult", "Format", "export"]

Format = Literal["parquet", "csv", "coco", "gpkg", "geotiff", "envi", "png"]


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes
    ----------
    files : tuple of str
    detections : int, optional
        Regions that they hold.
    unplaced : tuple of str
        Sessions without georeference, which are in pixel coordinates.
    """

    files: tuple[str, ...]
    detections: int | None = None
    unplaced: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "" if self.detections is None else f"{counted(self.detections, 'detection')} in "
        text = f"{what}{counted(len(self.files), 'file')}: {some(list(self.files))}"
        if self.unplaced:
            text += f"\n  in pixel coordinates (not georeferenced): {some(list(self.unplaced))}"
        return text


def export(
    store: str | os.PathLike[str],
    kind: str,
    out: str | os.PathLike[str],
    *,
    outputs: Sequence[str] | None = None,
    threshold: float | None = None,
    min_area: int = 1,
    archive: str | os.PathLike[str] | None = None,
    ortho: str | os.PathLike[str] | None = None,
    interleave: str = "bsq",
    limits: tuple[float, float] | None = None,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> ExportResult:
    """Write detections (``parquet``, ``coco``, ``gpkg``), maps or tables of scores.

    Maps are written by ``geotiff``, ``envi`` and ``png``. ``csv`` writes what the report lists:
    ``frames.csv``, a row per frame, and ``sessions.csv``; ``parquet`` writes these tables as well,
    beside the detections.

    Parameters
    ----------
    store : path
        Scores.
    kind : {"parquet", "csv", "coco", "gpkg", "geotiff", "envi", "png"}
    out : path
        Folder; made if needed.
    outputs : sequence of str, optional
        Maps that are written: by default all as ENVI, those of one channel as PNG, scores and
        decisions as GeoTIFF.
    threshold, min_area, archive, client, workers, observer
        As for :func:`.find_detections`.
    ortho : path, optional
        ENVI header of a geographic lookup table (GLT): GeoTIFFs are put onto its map grid. ``igm``
        makes one from the longitude and latitude of the pixels of each session.
    interleave : {"bsq", "bil", "bip"}
        Of ENVI files.
    limits : (float, float), optional
        Values at the ends of the grey scale of PNGs; see :func:`.write_pngs`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Another kind, no decisions, or a package is missing.
    """
    if kind not in get_args(Format):
        raise ConfigError(
            f"format {kind!r} is not one of {', '.join(get_args(Format))}."
            f"{did_you_mean(kind, get_args(Format))}"
        )
    if ortho is not None and kind != "geotiff":
        raise ConfigError(
            "a lookup table (--ortho) is of use for --format geotiff only.",
            hint="Leave it out, or export geotiff.",
        )
    warn_of_scores(store, archive)
    folder = Path(out)
    check_place(folder / "file")
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "geotiff":
        from hsi_batch.stages.export_geotiff import write_geotiffs

        files, unplaced = write_geotiffs(store, folder, outputs, archive=archive, ortho=ortho)
        return ExportResult(files, None, _warned(unplaced))
    if kind == "envi":
        from hsi_batch.stages.export_envi import write_envi

        files, unplaced = write_envi(store, folder, outputs, interleave=interleave, archive=archive)
        return ExportResult(files, None, _warned(unplaced))
    if kind == "png":
        from hsi_batch.stages.export_png import write_pngs

        return ExportResult(write_pngs(store, folder, outputs, limits=limits))
    if kind == "csv":
        tables = write_tables(store, folder, "csv")
        if not tables:
            raise StoreError(
                "the summary of the scores is missing.",
                path=str(store),
                hint="Finish scoring first: run hsi-batch score again.",
            )
        return ExportResult(tables)
    found = find_detections(
        store,
        threshold=threshold,
        min_area=min_area,
        archive=archive,
        client=client,
        workers=workers,
        observer=observer,
    )
    unplaced = tuple(name for name in found.shapes if name not in found.places)
    if kind == "parquet":
        target = folder / "detections.parquet"
        temporary = target.with_name(".detections.parquet.new")
        found.table.to_parquet(temporary)
        temporary.replace(target)
        tables = write_tables(store, folder, "parquet")
        return ExportResult((str(target), *tables), len(found.table))
    if kind == "coco":
        target = folder / "detections.json"
        write_atomically(target, json.dumps(coco_of(found, store), indent=1))
        return ExportResult((str(target),), len(found.table))
    from hsi_batch.stages.export_gpkg import write_gpkg

    target = folder / "detections.gpkg"
    write_gpkg(found, target)
    return ExportResult((str(target),), len(found.table), _warned(unplaced))


def write_tables(
    store: str | os.PathLike[str], folder: Path, kind: Literal["csv", "parquet"]
) -> tuple[str, ...]:
    """Write ``frames`` and ``sessions`` as the summary of the scores has them; none without one."""
    evaluation = load_evaluation(place(store))
    if evaluation is None or not evaluation.rows:
        return ()
    frames = evaluation.table()
    failures = failures_of(open_root(str(store), SCORES))
    files = []
    for name, table in (("frames", frames), ("sessions", summary_by_session(frames, failures))):
        target = folder / f"{name}.{kind}"
        text = table.to_csv(index=False) if kind == "csv" else table.to_parquet(index=False)
        write_atomically(target, text)
        files.append(str(target))
    return tuple(files)


def _warned(unplaced: tuple[str, ...]) -> tuple[str, ...]:
    if unplaced:
        warnings.warn(
            f"{some(list(unplaced))}: nothing says where on the ground the pixels of these sessions"
            " are, or not on a grid (--ortho igm puts them onto one); what is written of them is in"
            " pixel coordinates.",
            DataWarning,
            stacklevel=3,
        )
    return unplaced


def coco_of(found: Detections, store: str | os.PathLike[str]) -> dict[str, Any]:
    """Detections in the form of COCO; segments are the rectangles of which a region is made."""
    images, numbers = [], {}
    for number, frame in enumerate(found.regions, start=1):
        height, width = found.shapes[frame.session]
        numbers[frame.session, frame.frame] = number
        name = f"{frame.session}[{frame.frame}]"
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": width,
                "height": height,
                "session": frame.session,
                "frame": frame.frame,
            }
        )
    annotations: list[dict[str, Any]] = []
    for frame in found.regions:
        columns = frame.columns
        for i, runs in enumerate(frame.boxes):
            y0, x0, y1, x1 = (int(columns[key][i]) for key in ("y0", "x0", "y1", "x1"))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[frame.session, frame.frame],
                    "category_id": 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(columns["area"][i]),
                    "score": float(columns["max_score"][i]),
                    "mean_score": float(columns["mean_score"][i]),
                    "iscrowd": 0,
                    "segmentation": [_rectangle(*run) for run in merged_runs(runs)],
                }
            )
    return {
        "info": {"description": f"detections in {Path(store).name}", "version": __version__},
        "images": images,
        "categories": [{"id": 1, "name": "anomaly"}],
        "annotations": annotations,
    }


def merged_runs(runs: np.ndarray[Any, Any]) -> list[tuple[int, int, int, int]]:
    """Rectangles ``(y0, y1, x0, x1)`` of runs; equal runs of lines in a row are one.

    Examples
    --------
    >>> merged_runs(np.array([[3, 1, 4], [4, 1, 4], [5, 2, 4]]))
    [(3, 5, 1, 4), (5, 6, 2, 4)]
    """
    open_: dict[tuple[int, int], tuple[int, int]] = {}
    done = []
    for y, x0, x1 in (map(int, run) for run in runs):
        first, last = open_.get((x0, x1), (y, y))
        if last != y and (x0, x1) in open_:
            done.append((first, last, x0, x1))
            first = y
        open_[x0, x1] = (first, y + 1)
    done += [(first, last, x0, x1) for (x0, x1), (first, last) in open_.items()]
    return sorted(done)


def _rectangle(y0: int, y1: int, x0: int, x1: int) -> list[int]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def score_groups(store: str | os.PathLike[str]) -> dict[str, zarr.Group]:
    """Sessions of a store of scores, in order."""
    found = groups_of(open_root(str(store), SCORES))
    return dict(sorted(found.items(), key=lambda pair: natural_key(pair[0])))
