"""What a worker that converts keeps open: sources, sessions, labels, references."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.packing import row_array
from hsi_batch.archive.session import Session
from hsi_batch.readers.annotations import Annotation, open_annotation
from hsi_batch.readers.calibration import Calibration
from hsi_batch.readers.cropped import Crop, CroppedSource
from hsi_batch.readers.protocol import Source
from hsi_batch.readers.registry import open_source
from hsi_batch.recent import Recent
from hsi_batch.stages.convert_references import calibration_of
from hsi_batch.stages.convert_work import SessionJob
from hsi_batch.statistics.quality import Quality

__all__ = ["annotation_of", "calibrated", "fresh_sources", "session_of", "source_of"]

#: Open sources, archives and annotations; a vendor's context takes seconds.
_MOST_OPEN = 4
_sources: Recent[Source] = Recent(_MOST_OPEN, drop=lambda source: source.close())
_sessions: Recent[Session] = Recent(8 * _MOST_OPEN)
_annotations: Recent[Annotation] = Recent(_MOST_OPEN)
_calibrations: Recent[Calibration] = Recent(_MOST_OPEN)


def source_of(job: SessionJob) -> Source:
    """The recording of a session, cropped if that is asked for."""
    # A file that was written again is another source, whatever its name says.
    stat = Path(job.path).stat() if Path(job.path).exists() else None
    key = (job.path, job.mode, job.crop, stat and (stat.st_ino, stat.st_size, stat.st_ctime_ns))

    def opened() -> Source:
        source = open_source(job.path, mode=job.mode)
        return source if job.crop is None else CroppedSource(source, job.crop)

    return _sources.get(key, opened)


def session_of(job: SessionJob) -> Session:
    """The session that is written."""

    def opened() -> Session:
        session = Session.open(job.archive, job.name, "r+")
        # Zarr would read their metadata anew for each block.
        rows = (f"{name}{kind}" for name in ("moments", "extrema") for kind in ("", "_normal"))
        session.look("quality", "label", "sample", *map(row_array, rows))
        return session

    return _sessions.get((job.archive, job.name, job.run), opened)


def annotation_of(job: SessionJob) -> Annotation | None:
    """The labels of a session, of whole frames; None without any."""
    if job.annotation is None:
        return None
    key = (job.annotation, job.crop, job.run)
    path = job.annotation

    def opened() -> Annotation:
        geometry, crop = job.geometry, job.crop or Crop(0, 0, 0, 0)
        height, width = geometry.shape[:2]
        whole = (height + crop.top + crop.bottom, width + crop.left + crop.right)
        return open_annotation(path, shape=whole, frames=geometry.frames)

    return _annotations.get(key, opened)


@contextmanager
def fresh_sources() -> Iterator[None]:
    """Close a thread's sources after a task: no changed file is read through an old handle.

    Vendors' sessions are the exception: opening one takes seconds.
    """
    try:
        yield
    finally:
        _sources.forget(lambda source: source.info.access != "frame")


def calibrated(
    job: SessionJob,
    counts: NDArray[Any],
    flags: NDArray[np.uint8] | None,
    used: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Reflectance of counts, and their flags with those of columns without good references."""
    key = (job.archive, job.name, job.run)

    def kept() -> Calibration:
        found = calibration_of(session_of(job))
        assert found is not None, "sessions that are calibrated keep their references"
        return found

    calibration = _calibrations.get(key, kept)
    lines = calibration(counts)
    marks = np.zeros(counts.shape[:2], dtype=np.uint8) if flags is None else flags
    marks[:, calibration.dead_columns(used)] |= np.uint8(Quality.DEAD)
    lines[(marks & (Quality.NODATA | Quality.NON_FINITE)) != 0] = np.nan
    return lines, marks if marks.any() else None
