"""Fitting a pipeline to a labelled array in memory or in Dask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from hsi_batch._version import __version__
from hsi_batch.errors import ConfigError, DataError, DataWarning
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.nodes.view import View
from hsi_batch.pipeline.cache import Packed, pack
from hsi_batch.pipeline.fitting import Fitting, plan_fit
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.pipeline.gather import Need, finished
from hsi_batch.pipeline.lazy import axis_of, check_cube
from hsi_batch.pipeline.passes import gather_frame, ports_of, whole_frames
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.program import compile_program
from hsi_batch.pipeline.reference import Reference
from hsi_batch.pipeline.stream import fit_by_stream, stream_inputs
from hsi_batch.stages.bands import BandChoice, chosen_view, see
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.statistics import Bundle
from hsi_batch.statistics.leaves import block_lines, leaf_lines
from hsi_batch.statistics.quality import flag_pixels

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["fit_array"]

_FAN_IN = 8
_SAMPLE = 4096


def fit_array(
    pipeline: Pipeline, cube: xr.DataArray, choice: BandChoice, *, dry_run: bool = False
) -> FitResult:
    """Fit a pipeline to a cube with dimensions ``(frame,) y, x, channel``; as :func:`.fit` does.

    Blocks are reduced and merged with ``dask.delayed`` under whatever scheduler is active.
    """
    begun = time.monotonic()
    check_cube(cube)
    whole = cube if "frame" in cube.dims else cube.expand_dims("frame")
    see(pipeline, _view(pipeline, cube, choice))
    pipeline.resolve(axis_of(cube))
    plan = plan_fit(pipeline)
    if dry_run:
        return FitResult(plan.passes, frames=whole.sizes["frame"], sessions=1, plan=plan)
    # Backgrounds of an earlier fit would be used instead of what is fitted now.
    pipeline.groups = None
    fitting = Fitting(pipeline, plan, lambda: _sample(whole))
    pixels = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        passes = 0
        reference = None
        while True:
            streamed, needs = fitting.stream(), fitting.needs()
            if streamed is None and not needs:
                break
            passes += 1
            if streamed is not None:
                frames = _stream(pipeline, whole, streamed)
                fitting.settle(streamed, fit_by_stream(pipeline.nodes[streamed], frames))
                continue
            found = _read(pipeline, whole, needs)
            pixels = max([pixels, *(int(getattr(s, "count", 0)) for s in found.values())])
            reference = found.get(Need(CUBE, "moments"), reference)
            fitting.supply(found)
    pipeline.reference = Reference.of(reference)
    pipeline.provenance = {
        "pixels": "valid",
        "pixel_count": pixels,
        "frames": whole.sizes["frame"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": f"hsi_batch {__version__}",
    }
    states = {name: node.state for name, node in pipeline.nodes.items()}
    return FitResult(
        passes=passes,
        pixels=pixels,
        sessions=1,
        frames=whole.sizes["frame"],
        rank={n: int(s["rank"]) for n, s in states.items() if "rank" in s},
        condition={n: float(s["condition"]) for n, s in states.items() if "condition" in s},
        precision={n: str(p) for n, p in pipeline.precision.items()},
        settled=pipeline.in_words(),
        warnings=tuple(str(w.message) for w in caught),
        seconds=time.monotonic() - begun,
        plan=plan,
    )


def _view(pipeline: Pipeline, cube: xr.DataArray, choice: BandChoice) -> View:
    """Bands and units of an array: its coordinate ``good_band``, attributes scale and offset."""
    axis = axis_of(cube)
    if choice.exclude is not None and "constant" in choice.exclude:
        raise ConfigError(
            "constant bands are known of archives only.", hint="Name the bands instead."
        )
    marks = [cube.coords["good_band"].to_numpy().astype(bool)] if "good_band" in cube.coords else []
    return chosen_view(pipeline, choice, marks, axis, cube.attrs)


def _sample(cube: xr.DataArray) -> NDArray[Any]:
    frames, height, width, channels = cube.shape
    step = max(1, int((frames * height * width / _SAMPLE) ** 0.5))
    picked = np.asarray(cube[:: max(1, frames // 8), ::step, ::step].data)
    flat = picked.reshape(-1, channels)
    flags = flag_pixels(flat[None], **_limits(cube))
    return flat if flags is None else flat[flags[0] == 0]


def _limits(cube: xr.DataArray) -> dict[str, Any]:
    return {key: cube.attrs.get(key) for key in ("nodata", "saturation")}


def _stream(
    pipeline: Pipeline, cube: xr.DataArray, name: str
) -> Iterator[tuple[dict[str, Any], bool]]:
    """The frames in order, computed one by one in this process."""
    packed, limits = pack(pipeline), _limits(cube)
    for frame in range(cube.sizes["frame"]):
        lines = np.asarray(cube.data[frame])
        ranges = ((0, len(lines)),)
        yield stream_inputs(packed, name, _source(lines, 0, len(lines), ranges, limits), ranges)


def _read(pipeline: Pipeline, cube: xr.DataArray, needs: tuple[Need, ...]) -> dict[Need, Any]:
    from dask.base import compute

    frames, height, width, channels = cube.shape
    lines = block_lines((height, width, channels), cube.dtype.itemsize)
    spans = [(s, min(s + lines, height)) for s in range(0, height, lines)]
    shared = delayed(pack(pipeline), pure=True)
    by_frame, reach = whole_frames(pipeline, needs), 0
    if not by_frame:
        halo = compile_program(pipeline, ports_of(pipeline, needs)).halo
        reach = -(-halo // leaf_lines(width)) * leaf_lines(width)
    parts = []
    for frame in range(frames):
        place = ((frame, frames),)
        groups = [tuple(spans)] if by_frame else [(s,) for s in spans]
        for group in groups:
            top, bottom = max(group[0][0] - reach, 0), min(group[-1][1] + reach, height)
            parts.append(
                delayed(_part, pure=False)(
                    shared,
                    needs,
                    cube.data[frame, top:bottom],
                    top,
                    height,
                    group,
                    place,
                    _limits(cube),
                )
            )
    while len(parts) > 1:
        parts = [
            delayed(_merge, pure=False)(parts[i : i + _FAN_IN])
            for i in range(0, len(parts), _FAN_IN)
        ]
    (bundle,) = compute(parts[0])
    statistics = finished(bundle)
    if any(statistics.get(str(need)) is None for need in needs):
        raise DataError("the cube has no pixels.", hint="Give an array that has some.")
    return {need: statistics[str(need)] for need in needs}


def _part(
    packed: Packed,
    needs: tuple[Need, ...],
    lines: NDArray[Any],
    top: int,
    height: int,
    ranges: tuple[tuple[int, int], ...],
    place: tuple[tuple[int, int], ...],
    limits: dict[str, Any],
) -> Bundle:
    source = _source(lines, top, height, ranges, limits)
    with single_thread():
        return gather_frame(packed, needs, source, ranges, place)


def _source(
    lines: NDArray[Any],
    top: int,
    height: int,
    ranges: tuple[tuple[int, int], ...],
    limits: dict[str, Any],
) -> FrameSource:
    flags = flag_pixels(lines, **limits)
    return FrameSource(
        lines=lambda a, b: lines[a - top : b - top],
        valid=lambda a, b: None if flags is None else flags[a - top : b - top] == 0,
        shape=(height, *lines.shape[1:]),
        dtype=lines.dtype,
        blocks=ranges,
    )


def _merge(parts: list[Bundle]) -> Bundle:
    merged = Bundle()
    for part in parts:
        merged = merged.merge(part)
    return merged
