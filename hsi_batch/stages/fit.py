"""Fitting a pipeline to an archive from mergeable statistics."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from distributed import Client

from hsi_batch._version import __version__
from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.stored import has_statistics, stored_statistic
from hsi_batch.engine.events import Observer
from hsi_batch.engine.worker import environment
from hsi_batch.errors import ConfigError, DataWarning
from hsi_batch.files import digest_json
from hsi_batch.pipeline.fitting import FitPlan, Fitting, plan_fit
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.gather import Need
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.reference import Reference
from hsi_batch.stages.agreement import common_axis
from hsi_batch.stages.fit_partials import KeptFits, discard
from hsi_batch.stages.fit_pass import PassReader, no_pixels
from hsi_batch.stages.fit_plan import count_plan
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.stages.fit_stream import read_stream
from hsi_batch.stages.run import TASK_BYTES, Run
from hsi_batch.statistics import Moments

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FitResult", "fit", "fit_pipeline"]

_PIXELS = ("valid", "labelled-normal")
_CUBE_MOMENTS = Need(CUBE, "moments")
#: Most failures, and most sources, that are written into a fitted pipeline.
_REMEMBERED = 1000


def fit(
    pipeline: Pipeline | str | os.PathLike[str],
    data: Archive | str | os.PathLike[str] | xr.DataArray,
    *,
    frames: str | Sequence[str] | None = None,
    pixels: PixelChoice = "valid",
    client: Client | None = None,
    workers: int | None = None,
    task_bytes: int = TASK_BYTES,
    keep: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    observer: Observer | None = None,
) -> FitResult:
    """Fit the statistical nodes of a pipeline, in place, in as few passes as possible.

    Parameters
    ----------
    pipeline : Pipeline
        Or the path of its YAML (useful with ``dry_run`` only, for the fitted pipeline is not
        returned).
    data : Archive, path or xarray.DataArray
        An archive, or any cube with dimensions ``(frame,) y, x, channel``.
    frames : str or sequence of str, optional
        Selection; everything by default.
    pixels : {"valid", "labelled-normal"}
        All valid pixels, or those that are labelled as background. Unlabelled is not normal.
    client, workers, observer
        As for :func:`~hsi_batch.stages.convert.convert`.
    task_bytes : int
        Bytes of pixels per task; changes no bit of the result.
    keep : path, optional
        Folder in which statistics are kept while the fit runs, so that the same fit, run again
        after it was killed, reads only what lacks. The workers must see it. Removed at the end. By
        default nothing is kept.
    dry_run : bool
        Plan only.

    Returns
    -------
    FitResult

    Raises
    ------
    hsi_batch.errors.ConfigError
        The graph is wrong, the selection is empty, sessions do not agree.
    hsi_batch.errors.DataError
        Too few pixels, a constant channel, a singular covariance.
    """
    result = fit_pipeline(
        pipeline,
        data,
        frames=frames,
        pixels=pixels,
        client=client,
        workers=workers,
        task_bytes=task_bytes,
        keep=keep,
        dry_run=dry_run,
        observer=observer,
    )
    if keep is not None and not dry_run:
        discard(keep)
    return result


def fit_pipeline(
    pipeline: Pipeline | str | os.PathLike[str],
    data: Archive | str | os.PathLike[str] | xr.DataArray,
    *,
    frames: str | Sequence[str] | None = None,
    pixels: PixelChoice = "valid",
    client: Client | None = None,
    workers: int | None = None,
    task_bytes: int = TASK_BYTES,
    keep: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    observer: Observer | None = None,
) -> FitResult:
    """As :func:`fit`, but what is kept stays until the caller has made the result safe."""
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_yaml(pipeline)
    if pixels not in _PIXELS:
        raise ConfigError(f"pixels {pixels!r} is not one of {', '.join(_PIXELS)}.")
    pipeline.verify()
    if isinstance(data, (str, os.PathLike)):
        data = Archive(data)
    if not isinstance(data, Archive):
        from hsi_batch.stages.fit_array import fit_array

        return fit_array(pipeline, data, dry_run=dry_run)
    with Run(client, workers=workers, scoring=True, observer=observer) as run:
        kept = KeptFits(keep)
        return _Fit(run, pipeline, data, frames, pixels, task_bytes, kept).execute(dry_run=dry_run)


class _Fit:
    def __init__(
        self,
        run: Run,
        pipeline: Pipeline,
        archive: Archive,
        frames: str | Sequence[str] | None,
        pixels: PixelChoice,
        task_bytes: int,
        kept: KeptFits,
    ) -> None:
        self.run = run
        self.pipeline = pipeline
        self.archive = archive
        self.pixels: PixelChoice = pixels
        self.begun = time.monotonic()
        self.selection: Selection = archive.select(frames)
        self.sessions: dict[str, Session] = {
            name: archive.session(name) for name in self.selection.sessions
        }
        pipeline.resolve(common_axis(self.sessions))
        self.reader = PassReader(
            run, pipeline, archive, self.sessions, self.selection, pixels, task_bytes, kept
        )
        self.passes = 0
        self.moments: Moments | None = None

    def execute(self, *, dry_run: bool) -> FitResult:
        """Plan, take what is stored, read what is not, fit."""
        stored = [
            kind
            for kind in ("moments", "extrema")
            if has_statistics(self.sessions, self.selection, kind, self.pixels)
        ]
        plan = plan_fit(self.pipeline, stored)
        if dry_run:
            needed = count_plan(self.reader, plan, self._stored)
            self.passes = plan.passes
            return self._result(plan, 0, (), needed)
        fitting = Fitting(self.pipeline, plan, self.reader.spectra)
        pixels = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            found = self._stored(fitting.stored())
            while True:
                pixels = max([pixels, *(int(getattr(s, "count", 0)) for s in found.values())])
                self.moments = found.get(_CUBE_MOMENTS, self.moments)
                fitting.supply(found)
                streamed, needs = fitting.stream(), fitting.needs()
                if streamed is None and not needs:
                    break
                self.passes += 1
                if streamed is not None:
                    weights = read_stream(self.reader, streamed, self.passes, plan.passes)
                    fitting.settle(streamed, weights)
                    found = {}
                else:
                    found = self.reader.read(needs, self.passes, plan.passes)
        said = tuple(str(w.message) for w in caught if issubclass(w.category, DataWarning))
        for warning in caught:
            if not issubclass(warning.category, DataWarning):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        result = self._result(plan, pixels, said)
        if self.moments is None and "moments" in stored:
            self.moments = stored_statistic(self.sessions, self.selection, "moments", self.pixels)
        self.pipeline.reference = Reference.of(self.moments)
        self.pipeline.provenance = self._provenance(result)
        return result

    def _stored(self, needs: Sequence[Need]) -> dict[Need, Any]:
        found = {}
        for need in needs:
            assert isinstance(need.kind, str)
            value = stored_statistic(self.sessions, self.selection, need.kind, self.pixels)
            if value is None:
                raise no_pixels(self.selection)
            found[need] = value
        return found

    def _result(
        self, plan: FitPlan, pixels: int, said: tuple[str, ...], needed: int = 0
    ) -> FitResult:
        counts = self.reader.counts
        states = {name: self.pipeline.nodes[name].state for name in self.pipeline.nodes}
        return FitResult(
            passes=self.passes,
            pixels=pixels,
            sessions=len(self.selection.sessions),
            frames=len(self.selection),
            rank={n: int(s["rank"]) for n, s in states.items() if "rank" in s},
            condition={n: float(s["condition"]) for n, s in states.items() if "condition" in s},
            precision={n: str(p) for n, p in self.pipeline.precision.items()},
            warnings=said,
            failures=tuple(self.reader.failures),
            seconds=time.monotonic() - self.begun,
            plan=plan,
            memory=self.run.memory() if self.run.started else None,
            blocks=counts.blocks,
            bytes=counts.bytes,
            tasks=counts.tasks,
            kept=counts.kept,
            redone=counts.redone,
            worker_bytes=needed,
        )

    def _provenance(self, result: FitResult) -> dict[str, Any]:
        digests = {name: str(s.attrs.get("digest", "")) for name, s in self.sessions.items()}
        return {
            "archive": str(self.archive.path),
            "sources": [
                str(s.attrs.get("source", {}).get("path", ""))
                for s in list(self.sessions.values())[:_REMEMBERED]
            ],
            "selection": self.selection.text,
            "pixels": self.pixels,
            "pixel_count": result.pixels,
            "sessions": result.sessions,
            "frames": result.frames,
            "data_digest": digest_json([digests, [list(item) for item in self.selection]]),
            "left_out": [[*astuple(f.key), f.reason] for f in result.failures[:_REMEMBERED]],
            "passes": result.passes,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": f"hsi_batch {__version__}",
            "environment": environment(),
        }
