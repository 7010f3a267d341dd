"""Applying a fitted pipeline lazily to any labelled cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import NotFittedError, PlanError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.nodes.gaussian import single_thread
from hsi_batch.pipeline.cache import Packed, evaluator, pack
from hsi_batch.pipeline.channels import check_channels, tolerance_of
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.pipeline.groups import group_of
from hsi_batch.pipeline.maps import MapSpec, as_stored, map_spec
from hsi_batch.pipeline.program import compile_program, frame_nodes
from hsi_batch.statistics.leaves import block_lines, leaf_lines
from hsi_batch.statistics.quality import flag_pixels

if TYPE_CHECKING:
    import xarray as xr

    from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["apply", "axis_of", "check_cube"]

_DIMS = ("frame", "y", "x", "channel")
#: A frame that must be seen whole is held in memory; a larger one is for the score stage.
MAX_FRAME_BYTES = 2 * 2**30


def axis_of(cube: xr.DataArray) -> ChannelAxis:
    """Channel axis of a cube, with the wavelengths of its coordinate ``wavelength``."""
    if "wavelength" not in cube.coords:
        return ChannelAxis(cube.sizes["channel"])
    plain = ChannelAxis.of(cube.coords["wavelength"].to_numpy())
    mapped = cube.coords.get("wavelength_map")
    if mapped is None or mapped.dims != ("x", "channel"):
        return plain
    return ChannelAxis(plain.size, plain.wavelength, mapped.to_numpy().astype(np.float64))


def apply(
    pipeline: Pipeline,
    cube: xr.DataArray,
    outputs: str | Sequence[str] = "scores",
    *,
    valid: xr.DataArray | None = None,
    group: str | None = None,
) -> xr.DataArray | xr.Dataset:
    """Apply a fitted pipeline to a cube with ``dask.array.map_blocks``; nothing is computed.

    Blocks give the bits that the score stage gives. The cube is rechunked to whole spectra and
    whole lines; if the pipeline holds frame-scope nodes, to whole frames.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    cube : xarray.DataArray
        With dimensions ``y, x, channel`` or ``frame, y, x, channel``, stored values. Its
        attributes ``nodata`` and ``saturation`` are honoured.
    outputs : str or sequence of str
        One output gives a DataArray, several a Dataset.
    valid : xarray.DataArray of bool, optional
        Pixels that are valid, without the channel dimension; taken from the values by default.
    group : str, optional
        Background to use, of a pipeline that holds several. By default the cube's attributes say
        it (``session``, ``sensor``, or the one that groups are named by).

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        float32 with NaN, or uint8 with 255, where pixels are invalid.

    Raises
    ------
    hsi_batch.errors.NotFittedError
        The pipeline is not fitted.
    hsi_batch.errors.ConfigError
        The background is not known.
    hsi_batch.errors.PlanError
        Other dimensions, other channels than the pipeline was fitted on, or a frame that must be
        seen whole and is larger than 2 GiB.
    """
    import xarray as xr

    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not pipeline.fitted:
        raise NotFittedError(
            f"the pipeline {pipeline.name!r} is not fitted.", hint="Call hb.fit first."
        )
    check_cube(cube)
    tolerance = tolerance_of(pipeline)
    if group is not None:
        pipeline = pipeline.for_group(group)
    elif pipeline.groups is not None:
        pipeline = _for_cube(pipeline, pipeline.groups.by, cube.attrs)
    check_channels(pipeline, axis_of(cube), "the cube", tolerance)
    specs = [map_spec(pipeline, name) for name in names]
    if valid is not None:
        _check_labelled(valid, "`valid`", ("y", "x"))
    if valid is not None and (valid.dims != cube.dims[:-1] or valid.shape != cube.shape[:-1]):
        raise PlanError(
            f"`valid` has dimensions {dict(valid.sizes)}; expected those of the cube without"
            f" channel, {dict(zip(cube.dims[:-1], cube.shape, strict=False))}.",
            hint="Rename and transpose it.",
        )
    maps = _mapped(pipeline, cube, valid, specs)
    arrays = {}
    for spec, data in zip(specs, maps, strict=True):
        kept = _DIMS[:3] if spec.channels == 1 else (*_DIMS[:3], f"{spec.name}_channel")
        array = xr.DataArray(data, dims=kept, name=spec.name)
        array = array if "frame" in cube.dims else array.isel(frame=0)
        arrays[spec.name] = array.assign_coords(
            {k: v for k, v in cube.coords.items() if set(v.dims) <= set(_DIMS[:3])}
        )
    return next(iter(arrays.values())) if isinstance(outputs, str) else xr.Dataset(arrays)


def _for_cube(pipeline: Pipeline, by: str, attrs: Mapping[Any, Any]) -> Pipeline:
    session = attrs.get("session")
    if group_of(by, str(session or ""), attrs):
        return pipeline.for_session(str(session or "of the cube"), attrs)
    raise PlanError(
        f"the pipeline {pipeline.name!r} holds one background per {by}, and the attributes of the"
        " cube do not say which is its own.",
        hint="Name it: pipeline.apply(cube, group=...), or hand on what the archive knows:"
        " cube.assign_attrs(dataset.attrs).",
    )


def check_cube(cube: object) -> None:
    """Refuse what is no labelled cube ``(frame,) y, x, channel``.

    Raises
    ------
    hsi_batch.errors.PlanError
        An array without names of dimensions, or with other ones.
    """
    _check_labelled(cube, "the cube", _DIMS[1:])
    dims = tuple(getattr(cube, "dims", ()))
    if dims not in (_DIMS, _DIMS[1:]):
        raise PlanError(
            f"the cube has dimensions {dims}; expected (frame, y, x, channel) or (y, x, channel).",
            hint="Rename and transpose it.",
        )


def _check_labelled(array: object, name: str, dims: tuple[str, ...]) -> None:
    import xarray as xr

    if isinstance(array, xr.DataArray):
        return
    if isinstance(array, xr.Dataset):
        hint = "Take the array out of it, for example dataset.cube."
    else:
        named = ", ".join(f'"{dim}"' for dim in dims)
        hint = f"Wrap it: xarray.DataArray(array, dims=({named}))."
    kind = f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
    raise PlanError(
        f"{name} is a {kind}; an xarray.DataArray with named dimensions was expected.",
        hint=hint,
    )


def _mapped(
    pipeline: Pipeline, cube: xr.DataArray, valid: xr.DataArray | None, specs: list[MapSpec]
) -> list[Any]:
    import dask.array as da
    from dask.delayed import delayed

    height, width, channels = cube.shape[-3:]
    refs = tuple(spec.ref for spec in specs)
    by_frame = bool(frame_nodes(pipeline, refs))
    frame_bytes = height * width * channels * cube.dtype.itemsize
    if by_frame and frame_bytes > MAX_FRAME_BYTES:
        raise PlanError(
            f"{', '.join(frame_nodes(pipeline, refs))} must see a frame whole, and a frame has"
            f" {frame_bytes / 2**30:.1f} GiB; at most {MAX_FRAME_BYTES / 2**30:.0f} GiB are held"
            " in memory here.",
            hint="Score the archive instead (hb.score), which works by blocks.",
        )
    lines = height if by_frame else block_lines((height, width, channels), cube.dtype.itemsize)
    reach = 0
    if not by_frame:
        program = compile_program(pipeline, refs, precision=pipeline.precision)
        reach = program.reach(leaf_lines(width))
    rows = _rows(height, max(lines, reach), reach)
    # A frame in one block has no neighbours, and may be lower than what they would lend.
    reach = reach if len(rows) > 1 else 0
    data = _chunked(cube, rows)
    arguments = [data]
    if valid is not None:
        arguments.append(_chunked(valid.astype(bool).expand_dims(channel=1, axis=-1), rows))
    if reach:
        arguments = [
            da.overlap.overlap(a, {1: reach}, boundary="none", allow_rechunk=False)
            for a in arguments
        ]
    scored = da.map_blocks(
        _score_block,
        *arguments,
        packed=delayed(pack(pipeline), pure=True),
        specs=specs,
        starts=tuple(int(s) for s in np.cumsum([0, *data.chunks[1]])),
        reach=reach,
        limits=(cube.attrs.get("nodata"), cube.attrs.get("saturation")),
        drop_axis=[2, 3],
        chunks=(data.chunks[0], (1,) * len(data.chunks[1])),
        dtype=object,
        meta=np.empty((0, 0), dtype=object),
    )
    return [
        da.map_blocks(
            _pick,
            scored,
            index=index,
            new_axis=[2] if spec.channels == 1 else [2, 3],
            chunks=(*data.chunks[:2], (width,), *([(spec.channels,)] if spec.channels > 1 else [])),
            dtype=spec.dtype,
            meta=np.empty((0,) * (3 if spec.channels == 1 else 4), dtype=spec.dtype),
        )
        for index, spec in enumerate(specs)
    ]


def _chunked(array: xr.DataArray, rows: tuple[int, ...]) -> Any:
    """``(frame, y, x, channel)`` in chunks of whole lines; what is not loaded yet stays so."""
    chunks: dict[str, Any] = {"frame": 1, "y": rows, "x": -1, "channel": -1}
    data = array.chunk({dim: chunks[str(dim)] for dim in array.dims}).data
    return data if "frame" in array.dims else data[None]


def _rows(height: int, lines: int, reach: int) -> tuple[int, ...]:
    """Heights of the blocks of a frame; none is lower than the overlap it must lend."""
    full, rest = divmod(height, lines)
    rows = [lines] * full
    if rest and rest < reach and rows:
        rows[-1] += rest
    elif rest:
        rows.append(rest)
    return tuple(rows)


def _score_block(
    cube: NDArray[Any],
    flags: NDArray[np.bool_] | None = None,
    *,
    packed: Packed,
    specs: list[MapSpec],
    starts: tuple[int, ...],
    reach: int,
    limits: tuple[float | None, float | None],
    block_info: Any = None,
) -> NDArray[np.object_]:
    """All maps of one block, as one object; ``cube`` has ``reach`` more lines on inner sides."""
    index = block_info[0]["chunk-location"][1]
    start, stop, height = starts[index], starts[index + 1], starts[-1]
    top = max(start - reach, 0)
    lines = cube[0]
    valid = flags[0, :, :, 0] if flags is not None else None
    if valid is None:
        marks = flag_pixels(lines, nodata=limits[0], saturation=limits[1])
        valid = None if marks is None else marks == 0
    source = FrameSource(
        lines=lambda a, b: lines[a - top : b - top],
        valid=lambda a, b: None if valid is None else valid[a - top : b - top],
        shape=(height, *lines.shape[1:]),
        dtype=lines.dtype,
        blocks=((start, stop),),
    )
    refs = tuple(spec.ref for spec in specs)
    with single_thread():
        values = evaluator(packed, refs, source).block(start, stop)
    found = np.empty((1, 1), dtype=object)
    kept = source.valid(start, stop)
    found[0, 0] = [as_stored(values[spec.ref], kept, spec) for spec in specs]
    return found


def _pick(scored: NDArray[np.object_], *, index: int) -> NDArray[Any]:
    picked: NDArray[Any] = scored[0, 0][index][None]
    return picked
