"""The archive of whole stages: made once a run, with and without its statistics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.speed.cubes import recordings
from benchmarks.speed.harness import Scale
from hsi_batch.archive import open_archive

__all__ = ["chunk_jobs", "converted", "cpu_seconds", "faults", "sources", "without_statistics"]

WORKERS = 2
_STATISTICS = ("moments", "extrema", "sample")


@cache
def sources(folder: Path, scale: Scale) -> list[Path]:
    """Recordings of a run."""
    return recordings(folder / "in", scale.frames, lines=scale.recording_lines)


@cache
def converted(folder: Path, scale: Scale) -> Path:
    """Archive of all recordings of a run."""
    from hsi_batch.stages.convert import convert

    archive = folder / "archive.zarr"
    if not archive.exists():
        convert(sources(folder, scale), archive, workers=WORKERS)
    return archive


@contextmanager
def without_statistics(archive: Path) -> Iterator[None]:
    """The archive as if conversion had left no statistics."""
    moved = []
    for session in open_archive(archive):
        for name in _STATISTICS:
            place = archive / session / name
            if place.exists():
                moved.append((place, place.with_name(f".{name}")))
    for place, aside in moved:
        place.rename(aside)
    try:
        yield
    finally:
        for place, aside in moved:
            aside.rename(place)


def chunk_jobs(archive: Path, **job: Any) -> list[dict[str, Any]]:
    """What each plain process reads: every chunk of the archive, dealt out in turn."""
    from hsi_batch.archive.chunk_layout import chunk_path
    from hsi_batch.archive.session import Session

    files: list[tuple[str, int]] = []
    for name in open_archive(archive):
        session = Session.open(archive, name)
        geometry = session.geometry
        chunk, dtype = session.cube.chunks[1:], geometry.dtype
        for key in geometry.keys(name):
            index = (key.frame, key.start // geometry.lines, 0, 0)
            files.append((str(chunk_path(session.cube, index)), key.stop - key.start))
    return [
        {**job, "name": str(i), "files": files[i::WORKERS], "chunk": list(chunk), "dtype": dtype}
        for i in range(WORKERS)
    ]


def cpu_seconds(client: Any) -> dict[str, float]:
    """CPU seconds so far of workers (together), scheduler and this process."""
    return {
        "workers": sum(client.run(time.process_time).values()),
        "scheduler": client.run_on_scheduler(time.process_time),
        "client": time.process_time(),
    }


def _minor_faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def faults(client: Any) -> int:
    """Minor page faults so far of all workers."""
    return sum(client.run(_minor_faults).values())
