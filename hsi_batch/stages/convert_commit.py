"""Beginning and finishing a conversion: everything that only one process may write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from hsi_batch._version import __version__
from hsi_batch.archive.catalog import forget_catalog, save_catalog
from hsi_batch.archive.chunk_writer import remove_partial
from hsi_batch.archive.gathering import consolidate, session_heads
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.leftovers import remove_leftovers
from hsi_batch.archive.masks import forget_masks
from hsi_batch.archive.packing import ROWS, pack_rows, row_array, sweep_rows, unpack_rows
from hsi_batch.archive.partials import load_partial, partials_of
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import ARCHIVE, create_array, member, open_root, plain_group
from hsi_batch.archive.writer import create_session, disk_errors
from hsi_batch.errors import IncompleteError, StoreError
from hsi_batch.places import place, remove_tree
from hsi_batch.readers.cropped import Crop
from hsi_batch.readers.registry import resolved
from hsi_batch.stages.convert_plan import ConvertPlan, PlannedSession
from hsi_batch.stages.convert_positions import write_positions
from hsi_batch.stages.convert_references import (
    PreparedReferences,
    ReferenceMeans,
    write_references,
)
from hsi_batch.stages.convert_scan import settings_of
from hsi_batch.stages.convert_sources import signature
from hsi_batch.stages.convert_sums import forget_sums, write_sums
from hsi_batch.stages.workflow_text import workflow_written
from hsi_batch.statistics import Bundle, Extrema
from hsi_batch.statistics.quality import Quality

__all__ = ["Finished", "accept_touched", "begin", "finish_session", "publish"]

_FRAME_ARRAYS = {
    "time": (
        "time_ms",
        "float64",
        np.nan,
        {
            "units": "milliseconds since 1970-01-01 00:00:00",
            "calendar": "proleptic_gregorian",
            "standard_name": "time",
        },
    ),
    "frame_id": ("frame_id", "int64", -1, {"long_name": "number of the frame in the recording"}),
    "integration_time": ("integration_time_ms", "float64", np.nan, {"units": "ms"}),
}


@dataclass(frozen=True)
class Finished:
    """How a session ended.

    Attributes
    ----------
    name : str
    frames, failed : int
        Frames in all, and frames that could not be converted.
    problem : str, optional
        Why the session is not in the archive.
    flags : dict of int
        Pixels by flag.
    pixels : int
    """

    name: str
    frames: int
    failed: int
    problem: str | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    pixels: int = 0


def begin(root: zarr.Group, plan: ConvertPlan, means: ReferenceMeans) -> None:
    """Make the groups of new sessions; nothing is complete until :func:`finish_session`."""
    with disk_errors(plan.archive):
        # A run that is killed must not leave sessions listed that are no more, or others unlisted.
        forget_catalog(plan.archive)
        made = any(planned.status in ("new", "replace") for planned in plan.todo)
        workflow = workflow_written(root) if made else {}
        for planned in plan.todo:
            if planned.status in ("new", "replace"):
                assert planned.info is not None
                assert planned.geometry is not None
                forget(plan.archive, planned.name)
                prepared = _prepared(planned, means)
                session = create_session(
                    root,
                    planned.name,
                    planned.info,
                    planned.geometry,
                    classes=planned.classes,
                    preset=plan.options.preset,
                    attrs={
                        "source": {
                            "path": planned.path,
                            "resolved": resolved(planned.path),
                            "files": planned.signature,
                        },
                        "annotation": planned.annotation,
                        "settings": settings_of(plan.options),
                        "software": f"hsi_batch {__version__}",
                        **workflow,
                        "complete": False,
                    },
                )
                if prepared is not None:
                    write_references(session, prepared)
                if planned.positions is not None:
                    crop = None if plan.options.crop is None else Crop.parse(plan.options.crop)
                    write_positions(session, planned.positions, planned.info, crop)
                # Last: without it a session was never wholly made, and is made again.
                session.group.attrs["digest"] = planned.digest
            elif planned.status == "retry":
                # Arrays will come and go.
                group = plain_group(member(root, planned.name))
                group.attrs["complete"] = False
                forget_sums(Session(planned.name, group))
            if planned.status in ("retry", "resume") and planned.todo:
                forget_masks(Session(planned.name, plain_group(member(root, planned.name))))
                _unpack(root, planned)


def _unpack(root: zarr.Group, planned: PlannedSession) -> None:
    session = Session(planned.name, member(root, planned.name))
    if session.geometry.row_frames is None:
        keys = [*planned.todo, *(failure.key for failure in planned.earlier)]
        unpack_rows(session, {session.geometry.index(key) for key in keys})


def _prepared(planned: PlannedSession, means: ReferenceMeans) -> PreparedReferences | None:
    """Averages of the references of a scan; bands without any good ones become bad bands."""
    if planned.references is None:
        return None
    assert planned.info is not None
    assert planned.raw is not None
    prepared = means.of(planned.references, planned.raw)
    good, lost = planned.info.good_band, prepared.calibration.bad_bands
    if lost.any() and not lost.all():
        good = ~lost if good is None else good & ~lost
        planned.info = replace(planned.info, good_band=good)
    return prepared


def forget(archive: str, session: str) -> None:
    """Remove what the run state holds of a session (its partial statistics)."""
    remove_tree(partials_of(archive, session))


def finish_session(
    root: zarr.Group,
    plan: ConvertPlan,
    planned: PlannedSession,
    records: Mapping[BlockKey, BlockRecord],
    checksums: Mapping[str, str] | None,
    *,
    torn: bool = False,
) -> Finished:
    """Check that all blocks are there, write what needs the whole session, mark it complete.

    Chunks that were half written are removed where workers died (``torn``), or an earlier run.

    Raises
    ------
    hsi_batch.errors.IncompleteError
        A block has no record.
    """
    session = Session(planned.name, member(root, planned.name))
    geometry = session.geometry
    keys = list(geometry.keys(planned.name))
    known = {k: records[k] for k in keys if k in records and records[k].digest == planned.digest}
    missing = [key for key in keys if key not in known]
    if missing:
        raise IncompleteError(
            f"{len(missing)} of {len(keys)} blocks were not converted, the first is {missing[0]}.",
            path=plan.archive,
            session=planned.name,
            hint="Run the same command again.",
        )
    failed = _failed_frames(known)
    if torn or planned.status in ("resume", "retry"):
        remove_partial(session.group)
    if signature(planned.signature) != planned.signature:
        return _discard(root, plan, planned, "the source changed while it was read")
    if len(failed) == geometry.frames:
        return _discard(root, plan, planned, next(iter(failed.values())))
    with disk_errors(plan.archive):
        _write_frame_arrays(session, known)
        _write_checksums(session, keys, known)
        if geometry.row_frames is not None:
            _write_rows(session, plan.archive, known, failed)
        _blank_failed(session, keys, known, failed)
        if geometry.row_frames is None:
            pack_rows(session)
        write_sums(session, plan.archive, known, failed)
        flags: Counter[int] = Counter()
        for record in known.values():
            flags.update({int(bits): n for bits, n in record.info.get("flags", {}).items()})
        if not flags and not failed:
            del session.group["quality"]
        source = dict(session.attrs["source"])
        if checksums and planned.info is not None:
            # In order, whichever was summed up first.
            ordered = dict(sorted(checksums.items()))
            source |= {"checksums": ordered, "sha256": ordered.get(planned.info.pixels, "")}
        source |= _marks(planned)
        session.group.update_attributes(
            {
                "source": source,
                "failed_frames": {str(k): v for k, v in failed.items()},
                "flagged_pixels": sum(flags.values()),
                "flags": _flag_names(flags),
                "labelled_frames": _labelled_frames(known),
                "complete": True,
            }
        )
    height, width, _ = geometry.shape
    pixels = geometry.frames * height * width
    named = _flag_names(flags)
    return Finished(planned.name, geometry.frames, len(failed), None, named, pixels)


def _marks(planned: PlannedSession) -> dict[str, Any]:
    main = next(iter(planned.signature.values()))
    return {"files": planned.signature, "size": main[0], "mtime": main[1] / 1e9}


def accept_touched(archive: str, touched: Sequence[PlannedSession]) -> None:
    """Keep the modification times of files that have the bytes that were converted."""
    with disk_errors(archive):
        root = open_root(archive, ARCHIVE, mode="r+")
        for planned in touched:
            session = Session(planned.name, member(root, planned.name))
            session.group.attrs["source"] = {**session.attrs["source"], **_marks(planned)}
        consolidate(root)
        save_catalog(archive, root)


def _failed_frames(known: Mapping[BlockKey, BlockRecord]) -> dict[int, str]:
    failed: dict[int, str] = {}
    for key, record in sorted(known.items(), key=lambda pair: pair[0]):
        if record.outcome == "failed":
            failed.setdefault(key.frame, record.reason)
    return failed


def _discard(root: zarr.Group, plan: ConvertPlan, planned: PlannedSession, why: str) -> Finished:
    frames = planned.geometry.frames if planned.geometry else 0
    del root[planned.name]
    forget(plan.archive, planned.name)
    return Finished(planned.name, frames, frames, why)


def _labelled_frames(known: Mapping[BlockKey, BlockRecord]) -> int:
    return len({key.frame for key, record in known.items() if record.info.get("labelled")})


def _flag_names(flags: Mapping[int, int]) -> dict[str, int]:
    """Pixels per flag; a pixel with two flags counts in both."""
    return {
        str(flag.name).lower(): total
        for flag in Quality
        if (total := sum(n for bits, n in flags.items() if bits & flag))
    }


def _write_frame_arrays(session: Session, known: Mapping[BlockKey, BlockRecord]) -> None:
    frames = session.geometry.frames
    by_frame: dict[int, Mapping[str, Any]] = {}
    for key, record in known.items():
        if record.outcome == "done":
            by_frame.setdefault(key.frame, record.info)
    made = []
    for name, (entry, dtype, absent, attrs) in _FRAME_ARRAYS.items():
        values = [by_frame.get(frame, {}).get(entry) for frame in range(frames)]
        if all(value is None for value in values):
            continue
        array = create_array(
            session.group,
            name,
            shape=(frames,),
            chunks=(frames,),
            dtype=dtype,
            dims=("frame",),
            fill=absent,
            attrs=attrs,
        )
        array[:] = np.array([absent if v is None else v for v in values], dtype=dtype)
        made.append(name)
    listed = str(session.cube.attrs.get("coordinates", "")).split()
    if not set(made) <= set(listed):
        session.cube.attrs["coordinates"] = " ".join(dict.fromkeys([*listed, *made]))


def _write_checksums(
    session: Session, keys: list[BlockKey], known: Mapping[BlockKey, BlockRecord]
) -> None:
    array = create_array(
        session.group,
        "checksum",
        shape=(len(keys),),
        chunks=(len(keys),),
        dtype="uint32",
        dims=("block",),
        attrs={"long_name": "CRC32C of the values of each block, 0 for failed ones"},
    )
    array[:] = np.array([known[key].checksum for key in keys], dtype=np.uint32)


def _write_rows(
    session: Session,
    archive: str,
    known: Mapping[BlockKey, BlockRecord],
    failed: Mapping[int, str],
) -> None:
    """Merge the statistics of small blocks into the rows that cover many of them."""
    half_done = {k.frame for k, r in known.items() if r.outcome == "done"} & set(failed)
    if half_done:
        # A row cannot leave out the good blocks of a frame that counts as failed.
        for name in ROWS:
            if session.optional(name) is not None:
                del session.group[name]
        return
    folder = partials_of(archive, session.name)
    used = {str(r.info["partial"]) for r in known.values() if "partial" in r.info}
    merged = Bundle()
    for name in sorted(used):
        # A name of a record, never a path.
        partial = load_partial(folder / Path(name).name)
        if partial is None:
            raise StoreError(
                f"the statistics in {folder / name} are damaged.",
                session=session.name,
                hint="Convert the session again with --force.",
            )
        merged = merged.merge(partial)
    for name, forest in merged.items():
        kind, _, row = name.rpartition(":")
        if kind not in ROWS:
            continue
        value = forest.result()
        array = session.optional(kind)
        assert array is not None
        array[int(row)] = value.row if kind.startswith("moments") else value.bounds


def _blank_failed(
    session: Session,
    keys: Iterable[BlockKey],
    known: Mapping[BlockKey, BlockRecord],
    failed: Mapping[int, str],
) -> None:
    """Make failed frames read as "no data", and their statistics as those of no pixels."""
    quality = session.optional("quality")
    geometry = session.geometry
    for frame in failed:
        if quality is not None:
            for start, stop in geometry.ranges():
                quality[frame, start:stop] = int(Quality.NODATA)
    if geometry.row_frames is not None or not failed:
        return
    nothing = Extrema.empty(geometry.shape[2], geometry.dtype).bounds
    for key in keys:
        if known[key].outcome == "failed":
            for name in ("extrema", "extrema_normal"):
                array = session.optional(row_array(name))
                if array is not None:
                    array[geometry.index(key)] = nothing


def publish(
    root: zarr.Group, archive: str, records: Records, converted: Iterable[str] = ()
) -> None:
    """Consolidate metadata, write the catalog, pack the records."""
    with disk_errors(archive):
        for name in converted:
            sweep_rows(Session(name, member(root, name)))
        consolidate(root)
        save_catalog(archive, root)
        present = session_heads(place(archive))
        kept = [record for key, record in records.load().items() if key.session in present]
        records.pack(kept)
        for folder in partials_of(archive, "").glob("*"):
            name = folder.name
            if name not in present or present[name]["attributes"].get("complete"):
                remove_tree(folder)
        remove_leftovers(archive)
