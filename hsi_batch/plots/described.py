"""Spectra in numbers: of an archive without reading pixels, of a cube, of what a fit has seen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.session import PixelChoice
from hsi_batch.archive.stored import has_statistics, stored_sample, stored_statistic
from hsi_batch.errors import ConfigError, DataError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline import Pipeline
from hsi_batch.plots.planes import Cube, Given, cube_of, value_words
from hsi_batch.stages.agreement import common_axis
from hsi_batch.statistics.summary import Summary
from hsi_batch.wording import counted

__all__ = ["Described", "Source", "archive_of", "describe"]

#: What spectra are taken of.
Source: TypeAlias = Archive | str | os.PathLike[str] | Given | Pipeline

#: Spectra that percentiles are taken of, and values that are in memory at once.
_SAMPLED, _VALUES = 16384, 2**23


@dataclass(frozen=True)
class Described:
    """Spectra in numbers, in physical values.

    Attributes
    ----------
    count : int
        Pixels.
    mean : numpy.ndarray of float64, shape (C,)
    covariance : numpy.ndarray of float64, shape (C, C)
        Sample covariance (n - 1).
    axis : ChannelAxis
    what : str
        Of which pixels, in words.
    words : str
        What the numbers are.
    low, high : numpy.ndarray, shape (C,), optional
        Extrema of all pixels.
    sample : numpy.ndarray, shape (n, C), optional
        Some of the spectra.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    axis: ChannelAxis
    what: str
    words: str
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    sample: NDArray[np.float64] | None = None

    def scaled(self, scale: float, offset: float) -> Described:
        """In other units; ``scale`` is above 0."""

        def turned(values: NDArray[Any] | None) -> Any:
            return None if values is None else np.asarray(values, np.float64) * scale + offset

        return replace(
            self,
            mean=turned(self.mean),
            covariance=self.covariance * scale**2,
            low=turned(self.low),
            high=turned(self.high),
            sample=turned(self.sample),
        )


def archive_of(data: Archive | str | os.PathLike[str]) -> Archive:
    """An archive, or the one at a path."""
    return data if isinstance(data, Archive) else Archive(data)


def describe(
    data: Source, frames: str | Sequence[str] | None = None, pixels: PixelChoice = "valid"
) -> Described:
    """Describe the pixels of an archive, a session or cube, or of the fit of a pipeline.

    Of an archive and of a pipeline no pixel is read; those of a session or cube are.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The archive keeps no statistics of these frames, or the pipeline does not know its pixels.
    """
    if isinstance(data, (Pipeline, xr.Dataset, xr.DataArray)):
        if frames is not None or pixels != "valid":
            raise ConfigError(
                f"frames and pixels choose from an archive, not from a {type(data).__name__}.",
                hint="Give the archive, or choose with xarray: session.isel(frame=[0]).",
            )
        return _of_fit(data) if isinstance(data, Pipeline) else _of_pixels(cube_of(data))
    return _of_archive(archive_of(data), frames, pixels)


def _of_archive(
    archive: Archive, frames: str | Sequence[str] | None, pixels: PixelChoice
) -> Described:
    chosen = archive.select(frames)
    sessions = archive.sessions(chosen.sessions)
    axis = common_axis(sessions)
    for kind in ("moments", "extrema"):
        if not has_statistics(sessions, chosen, kind, pixels):
            raise ConfigError(
                f"the archive keeps no statistics of the pixels {pixels!r} of these frames alone.",
                path=str(archive.path),
                hint="Choose whole frames (of short ones, whole sessions), or give a session,"
                " archive['NAME'], whose pixels are read.",
            )
    moments = stored_statistic(sessions, chosen, "moments", pixels)
    if moments is None or moments.count < 2:
        raise DataError(
            "fewer than 2 pixels count.",
            hint="Select more frames, or check the quality flags (hsi-batch show).",
        )
    extrema = stored_statistic(sessions, chosen, "extrema", pixels)
    attrs = sessions[chosen.sessions[0]].attrs
    many = sum(len(chosen.frames[name]) for name in chosen.sessions)
    found = Described(
        moments.count,
        moments.mean,
        moments.covariance(),
        axis,
        f"{counted(many, 'frame')} of {counted(len(chosen.sessions), 'session')}",
        value_words(attrs),
        extrema.low,
        extrema.high,
        # The sample knows flags, but neither labels nor masks.
        stored_sample(sessions, chosen) if pixels == "valid" else None,
    )
    return found.scaled(float(attrs.get("scale") or 1.0), float(attrs.get("offset") or 0.0))


def _of_fit(pipeline: Pipeline) -> Described:
    known = pipeline.reference
    if known is None:
        held = "" if pipeline.groups is None else f" It holds {pipeline.groups}."
        raise ConfigError(
            f"it is not known what the pipeline {pipeline.name!r} was fitted on.{held}",
            hint="Fit it first (hb.fit); of several backgrounds take one:"
            " pipeline.for_group(NAME).",
        )
    axis = pipeline.axis
    if axis is None or axis.size != known.mean.size:
        axis = ChannelAxis(known.mean.size)
    what = f"the fit of {pipeline.name}"
    return Described(known.count, known.mean, known.covariance, axis, what, "value as recorded")


def _of_pixels(cube: Cube) -> Described:
    summary = Summary.empty(cube.axis.size, cube.values.dtype)
    sample = []
    every = max(1, int(np.prod(cube.values.shape[:3])) // _SAMPLED)
    for pixels in _runs(cube):
        summary = summary.update(pixels)
        sample.append(pixels[::every])
    moments, extrema = summary.moments, summary.extrema
    found = Described(
        moments.count,
        moments.mean,
        moments.covariance(),
        cube.axis,
        cube.name or counted(cube.values.shape[0], "frame"),
        cube.words,
        extrema.minimum,
        extrema.maximum,
        np.concatenate(sample),
    )
    return found.scaled(cube.scale, cube.offset)


def _runs(cube: Cube) -> Iterator[NDArray[Any]]:
    """Valid pixels ``(n, C)``, a run of lines after the other."""
    frames, height, width, channels = cube.values.shape
    step = max(1, _VALUES // (width * channels))
    for frame in range(frames):
        for start in range(0, height, step):
            lines = np.asarray(cube.values[frame, start : start + step].values)
            valid = np.isfinite(lines).all(axis=2)
            if cube.quality is not None:
                valid &= cube.quality[frame, start : start + step].values == 0
            yield np.ascontiguousarray(lines[valid])
