"""What the viewer shows: nothing is read but the frames that are asked for."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from matplotlib import colormaps
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import SCORES, groups_of, open_root
from hsi_batch.archive.stored import stored_frame_statistic, stored_statistic
from hsi_batch.errors import ConfigError, StoreError
from hsi_batch.pipeline.maps import INVALID_DECISION
from hsi_batch.places import place
from hsi_batch.stages import pictures
from hsi_batch.stages.evaluation import Evaluation, load_evaluation
from hsi_batch.stages.report_facts import failures_of, thresholds_of
from hsi_batch.stages.report_pictures import pooled
from hsi_batch.stages.report_tables import report_tables, tables_json

__all__ = ["Content", "NotThere"]

#: Longest side of what is sent of a frame; larger ones are pooled.
_SIDE = 1024
#: Lines that are read at once.
_LINES = 512
#: Bytes of stored statistics that are read for the mean of a session.
_MEAN_BYTES = 2**26


class NotThere(LookupError):
    """There is no such session, frame, map or pixel."""


class Content:
    """Archive and scores, read as they are looked at.

    Parameters
    ----------
    scores : path
    archive : path, optional
        Where the cubes are; the place that the scores name by default. Without any, only maps are
        shown.

    Raises
    ------
    hsi_batch.errors.StoreError
        No scores there, or the named archive is not there.
    """

    def __init__(
        self, scores: str | os.PathLike[str], archive: str | os.PathLike[str] | None = None
    ) -> None:
        self.place = place(scores)
        self.root = open_root(self.place, SCORES)
        self._groups = groups_of(self.root)
        self.archive = _archive(archive, str(self.root.attrs.get("archive", "")))
        self._means: dict[tuple[str, int], tuple[list[float], str] | None] = {}

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The summary of the scores, if scoring was finished."""
        return load_evaluation(self.place)

    def tables(self) -> str:
        """The frames as JSON, highest scores first; only the summary is read."""
        if self.evaluation is not None and self.evaluation.rows:
            table = self.evaluation.table()
        else:
            import pandas as pd

            table = pd.DataFrame(
                [
                    {"session": name, "frame": frame}
                    for name in self._groups
                    for frame in range(self._shape(name)[0])
                ]
            )
        words, listings = report_tables(table, failures_of(self.root), {})
        text = tables_json(words, listings[:1])[0]
        # Names of frames open them.
        return f'{{"open":true,{text[1:]}'

    def frame(self, session: str, frame: int) -> dict[str, Any]:
        """Shape, pooling, range of the scores and threshold of a frame.

        Raises
        ------
        NotThere
        """
        group = self._group(session, frame)
        _, height, width = self._shape(session)
        step = _step(height, width)
        row: dict[str, Any] = next(
            (
                one
                for one in (self.evaluation.rows if self.evaluation is not None else ())
                if one["session"] == session and one["frame"] == frame
            ),
            {},
        )
        opened = self._session(session)
        thresholds = thresholds_of(self.root, [session])
        nm = None if opened is None else opened.wavelength
        colours = None
        if opened is not None:
            colours = pictures.display_channels(nm, opened.geometry.shape[2])[1]
        return {
            "session": session,
            "frame": frame,
            "lines": height,
            "samples": width,
            "step": step,
            "height": -(-height // step),
            "width": -(-width // step),
            "maps": [
                name for name in ("scores", "decisions") if isinstance(group.get(name), zarr.Array)
            ],
            "labelled": opened is not None and opened.labelled,
            "colours": colours,
            "wavelength": None if nm is None else nm.tolist(),
            "threshold": thresholds[0][1] if thresholds else None,
            "row": {
                key: _finite(value) for key, value in row.items() if isinstance(value, (int, float))
            },
        }

    def map(self, session: str, frame: int, name: str) -> NDArray[Any]:
        """A map ``(y, x)`` as float32 (scores) or uint8 (decisions, labels), pooled if it is large.

        Of squares of pixels the highest score is kept, and what is flagged or labelled; labels are
        1 where they call a pixel anomalous, 0 elsewhere, 255 without any label.

        Raises
        ------
        NotThere
        """
        group = self._group(session, frame)
        _, height, width = self._shape(session)
        step = _step(height, width)
        parts = []
        # Whole squares at a time, so that large frames are never in memory.
        lines = max(1, _LINES // step) * step
        for start in range(0, height, lines):
            stop = min(start + lines, height)
            part = self._lines(group, session, frame, name, start, stop)
            parts.append(_squares(part, step))
        return np.concatenate(parts)

    def colour(self, session: str, frame: int) -> NDArray[np.uint8]:
        """False colour ``(y, x, 3)``, of one pixel of each square.

        Raises
        ------
        NotThere
        """
        self._group(session, frame)
        opened = self._session(session)
        if opened is None:
            raise NotThere("the archive is not there")
        height, width = opened.geometry.shape[:2]
        step = _step(height, width)
        picked, _ = pictures.display_channels(opened.wavelength, opened.geometry.shape[2])
        parts = []
        for start, stop in opened.geometry.ranges():
            first = -start % step
            block = opened.read(frame, start, stop)
            parts.append(block[first::step, ::step][:, :, list(picked)].astype(np.float64))
        return pictures.stretched(np.concatenate(parts))

    def spectrum(self, session: str, frame: int, y: int, x: int) -> dict[str, Any]:
        """Stored values of a pixel, and the mean of its session; one block is read.

        Raises
        ------
        NotThere
        """
        self._group(session, frame)
        opened = self._session(session)
        if opened is None:
            raise NotThere("the archive is not there")
        height, width = opened.geometry.shape[:2]
        if not (0 <= y < height and 0 <= x < width):
            raise NotThere(f"there is no line {y}, sample {x}")
        values = opened.read(frame, y, y + 1)[0, x].astype(np.float64)
        mean = self._mean(opened, frame)
        return {
            "y": y,
            "x": x,
            "values": [_finite(v) for v in values.tolist()],
            "mean": None if mean is None else mean[0],
            "mean_of": None if mean is None else mean[1],
            "quantity": opened.attrs.get("quantity"),
        }

    def _mean(self, session: Session, frame: int) -> tuple[list[float], str] | None:
        """The mean of a session by stored statistics; of the frame where those are very large."""
        geometry = session.geometry
        channels = geometry.shape[2]
        whole = geometry.rows * channels * (channels + 3) * 4 <= _MEAN_BYTES
        key = (session.name, -1 if whole else frame)
        if key not in self._means:
            if len(self._means) > 256:
                self._means.clear()
            self._means[key] = self._read_mean(session, frame, whole=whole)
        return self._means[key]

    def _read_mean(
        self, session: Session, frame: int, *, whole: bool
    ) -> tuple[list[float], str] | None:
        assert self.archive is not None
        found: Any
        if whole:
            chosen = self.archive.select(session.name)
            found = stored_statistic({session.name: session}, chosen, "moments", "valid")
        else:
            found = stored_frame_statistic(session, frame, "moments", "valid")
        if found is None or not found.count:
            return None
        return np.asarray(found.mean).tolist(), "session" if whole else "frame"

    def _lines(
        self, group: zarr.Group, session: str, frame: int, name: str, start: int, stop: int
    ) -> NDArray[Any]:
        if name == "labels":
            opened = self._session(session)
            labels = None if opened is None else opened.labels(frame, start, stop)
            if labels is None:
                raise NotThere("the session has no labels")
            marks = np.where(labels < 0, INVALID_DECISION, labels > 0)
            return marks.astype(np.uint8)
        array = group.get(name) if name in ("scores", "decisions") else None
        if not isinstance(array, zarr.Array) or array.ndim != 3:
            raise NotThere(f"the session has no {name}")
        return np.asarray(array[frame, start:stop])

    def _group(self, session: str, frame: int) -> zarr.Group:
        group = self._groups.get(session)
        if group is None:
            raise NotThere(f"there is no session {session!r}")
        if not 0 <= frame < self._shape(session)[0]:
            raise NotThere(f"session {session} has no frame {frame}")
        return group

    def _shape(self, session: str) -> tuple[int, int, int]:
        arrays = (array for _, array in self._groups[session].arrays())
        found = next((array.shape[:3] for array in arrays if array.ndim >= 3), (0, 0, 0))
        return found[0], found[1], found[2]

    def _session(self, name: str) -> Session | None:
        if self.archive is None or name not in self.archive:
            return None
        return self.archive.session(name)


def palette() -> list[list[int]]:
    """Colours of scores, from low to high."""
    table = colormaps["magma"](np.linspace(0, 1, 256))[:, :3]
    return np.rint(table * 255).astype(int).tolist()  # type: ignore[no-any-return]


def _archive(given: str | os.PathLike[str] | None, named: str) -> Archive | None:
    try:
        return Archive(given or named)
    except (StoreError, ConfigError):
        if given is not None:
            raise
        return None


def _step(height: int, width: int) -> int:
    return max(1, -(-max(height, width) // _SIDE))


def _squares(part: NDArray[Any], step: int) -> NDArray[Any]:
    if step == 1:
        return part
    if part.dtype.kind == "f":
        return pooled(part, np.fmax, step)
    # What is flagged wins; a square is invalid if all of it is.
    found = pooled(np.where(part == INVALID_DECISION, 0, part), np.maximum, step)
    found[pooled(part, np.minimum, step) == INVALID_DECISION] = INVALID_DECISION
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
