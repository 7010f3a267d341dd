"""What a worker that converts keeps open: sources, sessions, labels, references."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.session import Session
from hsi_batch.readers.annotations import Annotation, open_annotation
from hsi_batch.readers.calibration import Calibration
from hsi_batch.readers.cropped import Crop, CroppedSource
from hsi_batch.readers.protocol import Source
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.convert_references import calibration_of
from hsi_batch.stages.convert_work import SessionJob
from hsi_batch.statistics.quality import Quality

__all__ = ["annotation_of", "calibrated", "fresh_sources", "session_of", "source_of"]

#: Open sources, archives and annotations of this process; a vendor's context takes seconds.
_MOST_OPEN = 4
_sources: OrderedDict[tuple[object, ...], Source] = OrderedDict()
_sessions: OrderedDict[tuple[str, str, str], Session] = OrderedDict()
_annotations: OrderedDict[tuple[object, ...], Annotation] = OrderedDict()
_calibrations: OrderedDict[tuple[str, str, str], Calibration] = OrderedDict()


def source_of(job: SessionJob) -> Source:
    """The recording of a session, cropped if that is asked for."""
    # A file that was written again is another source, whatever its name says.
    stat = Path(job.path).stat() if Path(job.path).exists() else None
    key = (job.path, job.mode, job.crop, stat and (stat.st_ino, stat.st_size, stat.st_ctime_ns))
    if key not in _sources:
        while len(_sources) >= _MOST_OPEN:
            _sources.popitem(last=False)[1].close()
        source = open_source(job.path, mode=job.mode)
        _sources[key] = source if job.crop is None else CroppedSource(source, job.crop)
    _sources.move_to_end(key)
    return _sources[key]


def session_of(job: SessionJob) -> Session:
    """The session that is written."""
    key = (job.archive, job.name, job.run)
    if key not in _sessions:
        while len(_sessions) >= 8 * _MOST_OPEN:
            _sessions.popitem(last=False)
        _sessions[key] = Session.open(job.archive, job.name, "r+")
    return _sessions[key]


def annotation_of(job: SessionJob) -> Annotation | None:
    """The labels of a session, of whole frames; None without any."""
    if job.annotation is None:
        return None
    key = (job.annotation, job.crop, job.run)
    if key not in _annotations:
        while len(_annotations) >= _MOST_OPEN:
            _annotations.popitem(last=False)
        geometry, crop = job.geometry, job.crop or Crop(0, 0, 0, 0)
        height, width = geometry.shape[:2]
        whole = (height + crop.top + crop.bottom, width + crop.left + crop.right)
        _annotations[key] = open_annotation(job.annotation, shape=whole, frames=geometry.frames)
    return _annotations[key]


@contextmanager
def fresh_sources() -> Iterator[None]:
    """Close all sources after a task, so that a changed file is never read through an old handle.

    Vendors' sessions are the exception: opening one takes seconds.
    """
    try:
        yield
    finally:
        for key in [key for key, source in _sources.items() if source.info.access != "frame"]:
            _sources.pop(key).close()


def calibrated(
    job: SessionJob,
    counts: NDArray[Any],
    flags: NDArray[np.uint8] | None,
    used: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Reflectance of counts, and their flags with those of columns without good references."""
    key = (job.archive, job.name, job.run)
    if key not in _calibrations:
        while len(_calibrations) >= _MOST_OPEN:
            _calibrations.popitem(last=False)
        found = calibration_of(session_of(job))
        assert found is not None, "sessions that are calibrated keep their references"
        _calibrations[key] = found
    calibration = _calibrations[key]
    lines = calibration(counts)
    marks = np.zeros(counts.shape[:2], dtype=np.uint8) if flags is None else flags
    marks[:, calibration.dead_columns(used)] |= np.uint8(Quality.DEAD)
    lines[(marks & (Quality.NODATA | Quality.NON_FINITE)) != 0] = np.nan
    return lines, marks if marks.any() else None
