"""Making a session and writing its blocks."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zarr
from numpy.typing import NDArray

from hsi_batch.archive import chunk_writer
from hsi_batch.archive.chunk_layout import store_path
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.packing import row_array
from hsi_batch.archive.session import Session
from hsi_batch.archive.storage import preset_of
from hsi_batch.archive.store import create_array, create_group
from hsi_batch.errors import StoreError
from hsi_batch.patience import is_transient
from hsi_batch.readers.protocol import SourceInfo
from hsi_batch.statistics.moments import is_exact
from hsi_batch.statistics.quality import Quality

__all__ = [
    "LineWriter",
    "copy_frame_arrays",
    "create_session",
    "disk_errors",
    "write_lines",
    "write_row",
]

_LABELLED = ("", "_normal")


def create_session(
    root: zarr.Group,
    name: str,
    info: SourceInfo,
    geometry: Geometry,
    *,
    classes: Mapping[int, str] | None,
    attrs: Mapping[str, Any],
    preset: str | None = None,
) -> Session:
    """Make the group of a session with all its arrays, empty; replaces one of that name.

    Parameters
    ----------
    root : zarr.Group
        Of the archive, writable.
    name : str
    info : SourceInfo
    geometry : Geometry
    classes : mapping of int to str, optional
        Names of the label classes; None if the session has no labels.
    attrs : mapping
        Further attributes.
    preset : str, optional
        How it is stored, see :mod:`hsi_batch.archive.storage`.
    """
    stored = preset_of(preset)
    together = geometry.shard if stored.sharded else None
    height, width, channels = geometry.shape
    frames, lines = geometry.frames, geometry.lines
    group = create_group(
        root,
        name,
        {
            **_session_attrs(info),
            **geometry.to_attrs(),
            "preset": stored.name,
            **attrs,
        },
    )
    coordinates = _channel_arrays(group, info)
    create_array(
        group,
        "cube",
        shape=(frames, height, width, channels),
        chunks=(1, lines, width, channels),
        preset=stored,
        shards=together and (*together, 1, 1),
        dtype=geometry.dtype,
        dims=("frame", "y", "x", "channel"),
        attrs={
            **{k: v for k, v in _value_attrs(info).items() if v is not None},
            "coordinates": " ".join(coordinates),
            **({} if info.geography is None else {"grid_mapping": "spatial_ref"}),
        },
    )
    if info.geography is not None:
        _spatial_ref(group, info.geography)
    flags = [flag for flag in Quality if flag.name]
    create_array(
        group,
        "quality",
        shape=(frames, height, width),
        chunks=(1, lines, width),
        preset=stored,
        shards=together and (*together, 1),
        dtype="uint8",
        dims=("frame", "y", "x"),
        attrs={
            "standard_name": "quality_flag",
            "flag_masks": [int(flag) for flag in flags],
            "flag_meanings": " ".join(str(flag.name).lower() for flag in flags),
        },
    )
    if classes is not None:
        create_array(
            group,
            "label",
            shape=(frames, height, width),
            chunks=(1, lines, width),
            preset=stored,
            shards=together and (*together, 1),
            dtype="int16",
            dims=("frame", "y", "x"),
            fill=-1,
            attrs={"classes": {str(k): v for k, v in classes.items()}, "unlabelled": -1},
        )
    exact = is_exact(geometry.dtype)
    each = geometry.row_frames is None
    row, row_name = ("block", row_array) if each else ("row", str)
    for variant in _LABELLED if classes is not None else _LABELLED[:1]:
        create_array(
            group,
            row_name(f"moments{variant}"),
            shape=(geometry.rows, geometry.terms),
            chunks=(1, geometry.terms),
            dtype="int64" if exact else "float64",
            dims=(row, "term"),
            attrs={
                "terms": "count, sum, packed sum of products"
                if exact
                else "count, mean, packed scatter"
            },
        )
        create_array(
            group,
            row_name(f"extrema{variant}"),
            shape=(geometry.rows, 2, channels),
            chunks=(1, 2, channels),
            dtype=geometry.dtype,
            dims=(row, "bound", "channel"),
            attrs={"bounds": "minimum, maximum"},
        )
    picks = geometry.leaves * geometry.picks_per_leaf
    per_block = -(-lines // geometry.leaf_lines) * geometry.picks_per_leaf
    create_array(
        group,
        "sample",
        shape=(frames, picks, channels),
        chunks=(1, min(per_block, picks), channels),
        preset=stored,
        shards=together and (*together, 1),
        dtype=geometry.dtype,
        dims=("frame", "pick", "channel"),
        attrs={"long_name": "spectra at fixed places of every leaf"},
    )
    return Session(name, group)


def _spatial_ref(group: zarr.Group, geography: Mapping[str, Any]) -> None:
    """The grid mapping of CF, as rioxarray and GDAL read it."""
    numbers = " ".join(repr(float(v)) for v in geography["transform"])
    crs = geography.get("crs")
    attrs = {"GeoTransform": numbers, **({} if crs is None else {"crs_wkt": crs})}
    create_array(group, "spatial_ref", shape=(), chunks=(), dtype="int64", dims=(), attrs=attrs)


def _channel_arrays(group: zarr.Group, info: SourceInfo) -> list[str]:
    named = {
        "wavelength": (
            info.wavelength,
            "float64",
            {"units": "nm", "standard_name": "radiation_wavelength"},
        ),
        "fwhm": (info.fwhm, "float64", {"units": "nm", "long_name": "full width at half maximum"}),
        "good_band": (info.good_band, "bool", {"long_name": "not marked as bad by the source"}),
    }
    made = []
    for name, (values, dtype, attrs) in named.items():
        if values is None:
            continue
        array = create_array(
            group,
            name,
            shape=(info.shape[2],),
            chunks=(info.shape[2],),
            dtype=dtype,
            dims=("channel",),
            attrs=attrs,
        )
        array[:] = values
        made.append(name)
    return made


def _value_attrs(info: SourceInfo) -> dict[str, Any]:
    """What the stored numbers mean; our own names, so that no reader decodes them unasked."""
    return {
        "quantity": info.quantity,
        "units": info.units,
        "scale": info.scale,
        "offset": info.offset,
        "nodata": info.nodata,
        "saturation": info.saturation,
    }


def _session_attrs(info: SourceInfo) -> dict[str, Any]:
    return {
        **_value_attrs(info),
        "sensor": info.sensor,
        **({} if info.geography is None else {"geography": dict(info.geography)}),
        "processing_mode": info.mode,
        "reader": info.reader,
        "reader_version": info.reader_version,
        "metadata": dict(info.metadata),
    }


def copy_frame_arrays(session: Session, group: zarr.Group) -> list[str]:
    """Copy what a session knows of its frames into another group; returns the names."""
    made = []
    for name in ("time", "frame_id", "integration_time"):
        array = session.optional(name) if session.holds(name) else None
        if array is not None:
            copy = create_array(
                group,
                name,
                shape=array.shape,
                chunks=array.shape,
                dtype=str(array.dtype),
                dims=("frame",),
                fill=array.fill_value,
                attrs=dict(array.attrs),
            )
            copy[:] = array[:]
            made.append(name)
    return made


@contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turn a full disk, a quota, missing permission or a disk that fails into one clear error.

    Parameters
    ----------
    path : str
        The store that is written to.
    """
    try:
        yield
    except PermissionError as error:
        raise StoreError(
            f"writing is not permitted ({error}).",
            path=path,
            hint="Choose another place, or change the permissions.",
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if not is_transient(error):
                raise
            raise StoreError(
                f"it could not be written to or read from ({error.strerror or error}).",
                path=path,
                hint="Check the disk or the network share, and run the same command again; what is"
                " written stays.",
            ) from error
        raise StoreError(
            f"there is no space left to write to ({error.strerror}).",
            path=path,
            hint="Make space and run the same command again; what is written stays.",
        ) from None


class LineWriter(chunk_writer.LineWriter):
    """Writes blocks; those of one shard appear together, at :meth:`commit`.

    A disk that is full, or may not be written to, is a :class:`~hsi_batch.errors.StoreError`.
    """

    def put(
        self,
        array: zarr.Array[Any],
        key: BlockKey,
        values: NDArray[Any],
        *,
        keep_empty: bool = True,
    ) -> str:
        """Write the whole chunk of a block; gives its tail, as :meth:`write` does."""
        return self.put_lines(array, key.frame, key.start, key.stop, values, keep_empty=keep_empty)

    def put_lines(
        self,
        array: zarr.Array[Any],
        frame: int,
        start: int,
        stop: int,
        values: NDArray[Any],
        *,
        keep_empty: bool = True,
    ) -> str:
        """Write lines of a frame, or what takes their place in an array."""
        with disk_errors(store_path(array)):
            return self.write(array, frame, start, stop, values, keep_empty=keep_empty)


def write_lines(
    array: zarr.Array[Any], key: BlockKey, values: NDArray[Any], *, keep_empty: bool = True
) -> None:
    """Write the whole chunk of a block; atomic on local file systems."""
    with disk_errors(store_path(array)):
        chunk_writer.write_lines(
            array, key.frame, key.start, key.stop, values, keep_empty=keep_empty
        )


def write_row(array: zarr.Array[Any], index: int, values: NDArray[Any]) -> None:
    """Write one row of an array of two dimensions or more; no chunk is kept of nothing."""
    with disk_errors(store_path(array)):
        chunk_writer.write_lines(array, index, 0, array.shape[1], values, keep_empty=False)
