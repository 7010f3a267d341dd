"""Comparing sources with an archive, to plan a conversion; nothing is read but metadata."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as replace_fields
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.catalog import is_published
from hsi_batch.archive.chunk_layout import chunk_tail
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.names import session_names
from hsi_batch.archive.partials import partials_of
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.session import Session
from hsi_batch.archive.storage import preset_of
from hsi_batch.archive.store import ARCHIVE, open_root, state_folder
from hsi_batch.engine.tasks import batches
from hsi_batch.engine.window import run_window
from hsi_batch.errors import ConfigError, DataWarning, HsiBatchError, Problem, StoreError
from hsi_batch.files import digest_json
from hsi_batch.places import place
from hsi_batch.readers.annotations import find_annotation, open_annotation
from hsi_batch.readers.cropped import Crop
from hsi_batch.readers.paths import natural_key
from hsi_batch.readers.protocol import SourceInfo
from hsi_batch.readers.registry import discover, open_source, resolved
from hsi_batch.stages.convert_places import check_places
from hsi_batch.stages.convert_plan import ConvertOptions, ConvertPlan, PlannedSession, Status
from hsi_batch.stages.convert_positions import (
    SessionPositions,
    choose_positions,
    with_mapped_wavelengths,
)
from hsi_batch.stages.convert_references import (
    SessionReferences,
    as_calibrated,
    choose_references,
)
from hsi_batch.stages.convert_sources import present_files, recorded, signature, why_changed
from hsi_batch.stages.run import Failure, Run

__all__ = ["plan_convert", "settings_of", "unchanged"]

#: Settings that every archive has; those of before there were others are of their defaults.
_ALWAYS = ("mode", "nodata", "saturation", "annotations", "block_lines")
_LATER = {f.name: f.default for f in fields(ConvertOptions) if f.name not in _ALWAYS}
#: Skipped files that are named where nothing else was given.
_SHOWN = 20


@dataclass(frozen=True)
class Described:
    """What a worker found out about a source without reading its pixels."""

    path: str
    info: SourceInfo | None = None
    annotation: str | None = None
    classes: Mapping[int, str] | None = None
    error: str | None = None
    references: SessionReferences | None = None
    positions: SessionPositions | None = None


def describe(path: str, options: ConvertOptions) -> Described:
    """Metadata of a source, its references and labels; an error is part of the answer."""
    try:
        with open_source(path, mode=options.mode) as source:
            info = source.info
        if options.quantity is not None:
            info = replace_fields(info, quantity=options.quantity)  # type: ignore[arg-type]
        references = choose_references(path, info, options)
        if references is not None:
            info = replace_fields(info, notes=(*info.notes, *references.notes))
            references = references if references.files else None
        annotations = options.annotations
        found = find_annotation(path) if annotations == "sibling" else annotations
        if found == "none":
            found = None
        classes = None
        if found is not None:
            with open_annotation(found, shape=info.shape[:2], frames=info.frames) as labels:
                classes = labels.classes
        positions = choose_positions(path, info, options)
        info = with_mapped_wavelengths(info, positions)
        if options.crop is not None:
            info = Crop.parse(options.crop).info(info)
        check_places(path, info.shape, options.roi, options.dead_columns)
    except HsiBatchError as error:
        if isinstance(error, ConfigError) or error.exit_code == 2:
            raise
        return Described(path, error=str(error))
    return Described(path, info, found, classes, references=references, positions=positions)


def describe_all(items: Iterable[str], _key: str, options: ConvertOptions) -> Any:
    """On a worker: describe a batch of sources."""
    return [describe(path, options) for path in items]


def plan_convert(
    run: Run,
    sources: Iterable[str],
    archive: str,
    options: ConvertOptions,
    *,
    root: str | None = None,
    replace: bool = False,
    force: bool = False,
    only_failed: bool = False,
) -> ConvertPlan:
    """Compare sources with the archive.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No source at all, or a setting that the sources cannot fulfil.
    hsi_batch.errors.StoreError
        The archive's place holds something else.
    """
    found = discover(list(sources))
    if found.missing or not (found.recordings or found.skipped):
        named = ", ".join(found.missing) or "the given places"
        raise ConfigError(
            f"no recordings were found in {named}.",
            hint="Give files, folders or globs of .cu3s, ENVI .hdr or .npz files.",
        )
    if not found.recordings:
        raise _all_skipped(found.skipped)
    existing = _existing_sessions(archive)
    owners = _owners(found.recordings, existing)
    names = session_names(found.recordings, root=root, taken=owners)
    records = Records(state_folder(archive) / "records" / "convert").load() if existing else {}
    by_session: dict[str, list[BlockRecord]] = {}
    for record in records.values():
        by_session.setdefault(record.key.session, []).append(record)

    plan = ConvertPlan(archive, options, [], skipped=list(found.skipped))
    unknown: list[str] = []
    asked = [existing[names[path]] for path in found.recordings if names[path] in existing]
    present = {} if force else present_files(asked)
    for path in found.recordings:
        session, marks = existing.get(names[path]), present.get(names[path])
        if session is None or marks is None or not unchanged(session, path, options):
            unknown.append(path)
            continue
        plan.sessions.append(
            _known(archive, session, path, marks, by_session.get(names[path], []), only_failed)
        )
        if plan.sessions[-1].status != "done":
            unknown.append(path)
    begun = {planned.name: planned for planned in plan.sessions}
    for described in _describe(run, unknown, options):
        name = names[described.path]
        _place(plan, described, begun.get(name), existing.get(name), name, replace or force)
    plan.sessions.sort(key=lambda s: natural_key(s.name))
    _warn(plan)
    return plan


def _warn(plan: ConvertPlan) -> None:
    """Say once what the recordings to convert state and the archive will not apply."""
    noted: dict[str, list[str]] = {}
    for planned in plan.todo:
        for note in planned.info.notes if planned.info is not None else ():
            noted.setdefault(note, []).append(planned.path)
    for note, paths in noted.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        warnings.warn(f"{paths[0]}{more}: {note}", DataWarning, stacklevel=4)


def _all_skipped(skipped: Sequence[tuple[str, str]]) -> ConfigError:
    problems = [
        Problem(
            f"this is no recording: {reason.rstrip('.')}.",
            path=path,
            hint="Give .cu3s, ENVI .hdr or .npz files of recordings, or folders of them.",
        )
        for path, reason in skipped[:_SHOWN]
    ]
    if len(skipped) > _SHOWN:
        problems.append(
            Problem(
                f"and {len(skipped) - _SHOWN} more files that are no recordings.",
                hint="Look at their names.",
            )
        )
    return ConfigError.collect(problems)


def _existing_sessions(archive: str) -> dict[str, Session]:
    if not place(archive).exists():
        return {}
    if is_published(archive):
        held = Archive(archive)
        found = held.sessions(held)
        return found | {name: Session.open(archive, name) for name in held.incomplete}
    group = open_root(archive, ARCHIVE)
    found = {}
    for name, child in group.groups():
        session = Session(name, child)
        try:
            session.geometry  # noqa: B018
        except StoreError:
            # Died while it was made; it will be made again.
            continue
        if session.complete or session.attrs.get("digest"):
            found[name] = session
    return found


def _owners(paths: Sequence[str], existing: Mapping[str, Session]) -> dict[str, str]:
    """Path of each session's recording, as it is named now if that is one of ``paths``."""
    sources = {name: session.attrs.get("source", {}) for name, session in existing.items()}
    owners = {name: str(source.get("path")) for name, source in sources.items()}
    left = set(paths).difference(owners.values())
    if not left:
        return owners
    # Reached through a link, a recording is none but the one that is there already.
    asked = set(paths)
    held = {
        str(source.get("resolved") or resolved(owners[name])): name
        for name, source in sources.items()
        if owners[name] not in asked
    }
    for path in sorted(left, key=natural_key):
        name = held.pop(resolved(path), None)
        if name is not None:
            owners[name] = path
    return owners


def settings_of(options: ConvertOptions) -> dict[str, Any]:
    """Settings as they are kept with a session."""
    later = {n: v for n, default in _LATER.items() if (v := getattr(options, n)) != default}
    return {name: getattr(options, name) for name in _ALWAYS} | later


def unchanged(session: Session, path: str, options: ConvertOptions) -> bool:
    """Whether a session was made with these settings, and no labels came since."""
    source = session.attrs.get("source", {})
    files = source.get("files", {})
    if options.annotations == "sibling":
        annotation = find_annotation(path)
        if annotation is not None and annotation not in files:
            # The same file may have been named through a link.
            annotation = os.path.realpath(annotation)
            if annotation not in map(os.path.realpath, files):
                return False
    return bool(session.attrs.get("settings") == settings_of(options))


def _known(
    archive: str,
    session: Session,
    path: str,
    marks: dict[str, Any],
    records: list[BlockRecord],
    only_failed: bool,
) -> PlannedSession:
    """A session whose source and settings are those of before."""
    name = session.name
    planned = PlannedSession(
        name,
        path,
        "done" if session.complete else "resume",
        marks,
        digest=str(session.attrs.get("digest", "")),
        geometry=session.geometry,
        touched=marks != recorded(session),
        shard=session.shard,
    )
    broken = [r for r in records if r.outcome == "failed" and r.digest == planned.digest]
    failed = [record.key for record in broken]
    if session.complete and only_failed and failed:
        # Rows that cover many blocks cannot be mended in part.
        shared = session.geometry.row_frames is not None
        planned.status = "replace" if shared else "retry"
        planned.todo = list(session.geometry.keys(name)) if shared else failed
    elif not session.complete:
        planned.todo = missing_blocks(archive, session, planned.digest, records)
        if only_failed:
            planned.todo = sorted({*planned.todo, *failed})
    left = set(failed).difference(planned.todo)
    planned.earlier = tuple(Failure(r.key, r.reason) for r in broken if r.key in left)
    return planned


def missing_blocks(
    archive: str, session: Session, digest: str, records: Iterable[BlockRecord]
) -> list[BlockKey]:
    """Blocks without a record, or whose record does not match the store."""
    geometry = session.geometry
    held, lost = {}, []
    for record in records:
        if record.digest != digest:
            continue
        index = (record.key.frame, record.key.start // geometry.lines, 0, 0)
        if record.outcome == "done" and chunk_tail(session.cube, index) != record.tail:
            lost.append(record)
            continue
        held[record.key] = record
    # A file of statistics over many blocks is lost as a whole if any of its blocks is.
    present = {file.name for file in partials_of(archive, session.name).glob("*.npz")}
    broken = {r.info["partial"] for r in held.values() if "partial" in r.info} - present
    broken |= {r.info.get("partial") for r in lost} - {None}
    return [
        key
        for key in geometry.keys(session.name)
        if key not in held or held[key].info.get("partial") in broken
    ]


def _describe(run: Run, paths: list[str], options: ConvertOptions) -> list[Described]:
    slow = [p for p in paths if p.lower().endswith(".cu3s")]
    if len(slow) < 2:
        return [describe(path, options) for path in paths]
    # The vendor's library takes seconds per file, and may be installed on the workers only.
    found = [describe(p, options) for p in paths if p not in set(slow)]
    tasks = batches(slow, lambda _: 1, threads=run.threads, target=4, prefix="describe")
    for outcome, _ in run_window(run.client, describe_all, tasks, options):
        if outcome.error is not None:
            found.extend(Described(path, error=outcome.error) for path in outcome.task.items)
        else:
            found.extend(outcome.result)
    return found


def _place(
    plan: ConvertPlan,
    described: Described,
    known: PlannedSession | None,
    held: Session | None,
    name: str,
    replace: bool,
) -> None:
    """Take a recording into the plan; what is ``known`` is there, and goes on with what is held."""
    info = described.info
    if info is None:
        plan.broken.append((described.path, described.error or "it cannot be opened"))
        if known is not None:
            plan.sessions = [s for s in plan.sessions if s is not known]
        return
    if known is not None:
        assert held is not None
        told = held.attrs.get("calibration")
        limits = held.attrs if told is None else told
        info = replace_fields(
            info, nodata=limits.get("nodata"), saturation=limits.get("saturation")
        )
        known.info = info
        if told is not None:
            known.raw = info
            known.info = replace_fields(as_calibrated(info), good_band=held.good_band)
        known.annotation = described.annotation
        known.classes = described.classes
        return
    references = described.references
    files = (*info.files, *([described.annotation] if described.annotation else []))
    files += references.files if references is not None else ()
    files += described.positions.files if described.positions is not None else ()
    nodata, saturation = plan.options.nodata, plan.options.saturation
    info = replace_fields(
        info,
        nodata=info.nodata if nodata is None else nodata,
        saturation=info.saturation if saturation is None else saturation,
    )
    raw = None
    if references is not None:
        raw, info = info, as_calibrated(info)
    geometry = Geometry.choose(info.frames, info.shape, info.dtype.name, plan.options.block_lines)
    status: Status = (
        "new" if held is None else "replace" if replace or not held.complete else "changed"
    )
    marks = signature(dict.fromkeys(files))
    planned = PlannedSession(
        name,
        described.path,
        status,
        marks,
        digest=digest_json([marks, settings_of(plan.options), geometry.to_attrs()]),
        info=info,
        geometry=geometry,
        annotation=described.annotation,
        classes=described.classes,
        shard=geometry.shard if preset_of(plan.options.preset).sharded else None,
        references=references,
        raw=raw,
        positions=described.positions,
    )
    if status == "changed" and held is not None:
        planned.why = why_changed(held, marks, settings_of(plan.options))
    else:
        planned.todo = list(geometry.keys(name))
    plan.sessions.append(planned)
