"""Converting recordings into an archive."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from distributed import Client

from hsi_batch.archive.catalog import is_published
from hsi_batch.archive.leftovers import remove_leftovers
from hsi_batch.archive.records import Records
from hsi_batch.archive.storage import preset_of
from hsi_batch.archive.store import ARCHIVE, create_root, state_folder
from hsi_batch.archive.transactions import absorb, committed
from hsi_batch.engine.events import Observer, Progress
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.places import absolute, place, public
from hsi_batch.readers.protocol import Quantity
from hsi_batch.readers.references import Reference
from hsi_batch.stages.convert_blocks import convert_items
from hsi_batch.stages.convert_commit import Finished, accept_touched, begin, finish_session, publish
from hsi_batch.stages.convert_plan import ConvertOptions, ConvertPlan
from hsi_batch.stages.convert_positions import check_position_options
from hsi_batch.stages.convert_references import ReferenceMeans, check_options
from hsi_batch.stages.convert_result import ConvertResult
from hsi_batch.stages.convert_scan import plan_convert
from hsi_batch.stages.convert_slices import prepare_slices
from hsi_batch.stages.convert_tasks import convert_tasks, record_killed
from hsi_batch.stages.convert_work import item_keys
from hsi_batch.stages.memory import check_memory
from hsi_batch.stages.outputs import held_store
from hsi_batch.stages.referring import confirm_replacing
from hsi_batch.stages.run import (
    TASK_BYTES,
    BlockWork,
    Failure,
    Run,
    run_blocks,
)
from hsi_batch.stages.slices import (
    forget_slices,
    kept_hashes,
    refuse_missing,
)

__all__ = ["ConvertResult", "convert"]


def convert(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    archive: str | os.PathLike[str],
    *,
    mode: str | None = None,
    root: str | os.PathLike[str] | None = None,
    annotations: str = "sibling",
    nodata: float | None = None,
    saturation: float | None = None,
    block_lines: int | str | None = None,
    preset: str | None = None,
    white: str | os.PathLike[str] = "sibling",
    dark: str | os.PathLike[str] = "sibling",
    panel: str | float | os.PathLike[str] | None = None,
    crop: str | None = None,
    quantity: str | None = None,
    roi: str | None = None,
    dead_columns: str | None = None,
    igm: str | os.PathLike[str] = "sibling",
    gps: str | os.PathLike[str] = "sibling",
    wavelength_map: str | os.PathLike[str] | None = None,
    replace: bool = False,
    force: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    task_bytes: int = TASK_BYTES,
    observer: Observer | None = None,
    slices: int = 0,
    finalise: bool = False,
    confirm: Callable[[str], bool] | None = None,
    rescored: str | os.PathLike[str] | None = None,
) -> ConvertResult:
    """Convert recordings into an archive; what is there already and has not changed is left alone.

    Parameters
    ----------
    sources : path or iterable of paths
        Files, folders and globs of ``.cu3s``, ENVI ``.hdr``, ``.npz``, or what plug-ins read.
    archive : path
        Folder of the store; made if needed.
    mode : str, optional
        Processing mode of the vendor's SDK, such as ``"Reflectance"``.
    root : path, optional
        Sessions are named by their path below this folder; the common folder by default.
    annotations : str
        ``"sibling"`` (labels beside each recording), ``"none"``, or the path of one file.
    nodata, saturation : float, optional
        Stored values that mean "no data" and "saturated from here on"; win over the sources.
    block_lines : int or "frame", optional
        Height of blocks; chosen for 8 to 16 MB by default.
    preset : {"balanced", "fast", "small", "sharded"}, optional
        How blocks are stored: ``fast`` without compression, ``small`` takes longer to write,
        ``sharded`` puts blocks of about 128 MB into one file.
    white, dark : path
        References that turn counts into reflectance: ``"sibling"`` (those that lie beside a scan,
        paired by their names), ``"none"``, or ``FILE[:FRAME]`` for all. ``dark="none"`` with a
        white reference takes the dark signal for zero.
    panel : float or path, optional
        Reflectance of the white panel, one for all channels or a file with its spectrum.
    crop : str, optional
        ``"T,B,L,R"``: lines cut off at top and bottom, columns at left and right.
    quantity : {"dn", "reflectance", "radiance"}, optional
        What the numbers are, where the sources do not say it.
    roi : str, optional
        Region outside of which pixels are flagged ``outside_roi``: columns ``100:900``,
        ``x=100:900,y=0:50``, or ``polygon (x,y) (x,y) (x,y)``; positions count from 0, after
        ``crop``.
    dead_columns : str, optional
        Columns that are flagged ``dead``: ``31,47,100-102``.
    igm, gps : path
        Where pixels are (an ENVI file of two or three bands), and where the platform was at lines
        (a table): ``"sibling"`` (``scan_igm.hdr``, ``scan_gps.csv``), ``"none"``, or one file.
    wavelength_map : path, optional
        Wavelengths in nm, a row for each column: ``.csv``, ``.npy``, or ENVI.
    replace : bool
        Convert sources again that changed since, or were converted with other settings.
    force : bool
        Convert everything again.
    only_failed : bool
        Try again what failed before, and nothing else that is finished.
    dry_run : bool
        Plan only; the plan is in the result.
    client : distributed.Client, optional
        Workers to use; the client that is there, else workers started for this call.
    workers : int, optional
        Number of workers if they are started for this call.
    task_bytes : int
        Bytes of pixels per task.
    observer : callable, optional
        Called with :class:`~hsi_batch.engine.events.Progress`.
    slices : int
        Convert nothing: prepare so many slices (:func:`~.convert_slices.slice_convert`).
    finalise : bool
        Convert nothing: commit what slices have done, or fail if blocks are missing.
    confirm : callable, optional
        Asked before sessions are converted again that scores refer to, or that have labels or masks
        which were added to them; it gets a sentence, and says whether to go on.
    rescored : path, optional
        Scores that are made again after this; ``confirm`` is not asked about them.

    Returns
    -------
    ConvertResult
        A source or frame that fails does not raise; it is listed here and in the records.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Nothing to convert, or settings that do not fit.
    hsi_batch.errors.StoreError
        The archive is in use, is something else, or cannot be written to.

    Examples
    --------
    >>> result = convert("recordings/", "archive.zarr")
    >>> result.failed, [planned.name for planned in result.plan.sessions]
    (0, ['scene_000', 'scene_001'])
    """
    begun = time.monotonic()
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    target = absolute(archive)
    stored = preset_of(preset).name
    options = ConvertOptions(
        mode,
        _absolute(annotations),
        nodata,
        saturation,
        block_lines,
        stored,
        _reference(white),
        _reference(dark),
        _panel(panel),
        crop,
        quantity,
        roi,
        dead_columns,
        _absolute(os.fspath(igm)),
        _absolute(os.fspath(gps)),
        None if wavelength_map is None else str(Path(wavelength_map).absolute()),
    )
    _check_annotations(options.annotations)
    check_options(options)
    check_position_options(options)
    if quantity not in (None, *get_args(Quantity)):
        raise ConfigError(
            f"quantity {quantity!r} is not one of {', '.join(get_args(Quantity))}."
            f"{did_you_mean(str(quantity), get_args(Quantity))}"
        )
    with Run(client, workers=workers, observer=observer) as run:

        def planned() -> ConvertPlan:
            return plan_convert(
                run,
                [os.fspath(s) for s in given],
                target,
                options,
                root=None if root is None else str(Path(root).absolute()),
                replace=replace,
                force=force,
                only_failed=only_failed,
            )

        if dry_run:
            plan = planned()
            plan.tasks = sum(1 for _ in convert_tasks(plan, run.expected_threads, task_bytes))
            return _result(plan, begun)
        with held_store(target, "convert") as target:
            plan = planned()
            if confirm is not None:
                confirm_replacing(plan, confirm, rescored)
            touched = [s for s in plan.sessions if s.touched and s.status == "done"]
            if touched:
                accept_touched(target, touched)
            if finalise:
                refuse_missing(target, "convert", [k for s in plan.sessions for k in s.todo])
            if slices:
                return _prepare(run, plan, begun, slices)
            if not plan.todo:
                forget_slices(target)
                _publish_late(target)
                return _result(plan, begun)
            return _execute(run, plan, begun, task_bytes)


def _prepare(run: Run, plan: ConvertPlan, begun: float, slices: int) -> ConvertResult:
    root = create_root(plan.archive, ARCHIVE)
    records = Records(state_folder(plan.archive) / "records" / "convert").new_run()
    begin(root, plan, ReferenceMeans(run.client, plan.options))
    prepare_slices(plan, records, slices, uuid.uuid4().hex)
    return _result(plan, begun, prepared=slices)


def _publish_late(archive: str) -> None:
    """Do what an earlier run left undone that was killed at its very end."""
    if not place(archive).exists():
        return
    records = Records(state_folder(archive) / "records" / "convert")
    if records.unpacked or not is_published(archive):
        publish(create_root(archive, ARCHIVE), archive, records)
    remove_leftovers(archive)


def _absolute(annotations: str) -> str:
    return annotations if annotations in ("sibling", "none") else str(Path(annotations).absolute())


def _reference(given: str | os.PathLike[str]) -> str:
    text = os.fspath(given)
    return text if text in ("sibling", "none") else str(Reference.parse(text))


def _panel(given: str | float | os.PathLike[str] | None) -> str | None:
    if given is None:
        return None
    text = str(given) if isinstance(given, float | int) else os.fspath(given)
    try:
        return f"{float(text):g}"
    except ValueError:
        return str(Path(text).absolute())


def _check_annotations(annotations: str) -> None:
    if annotations not in ("sibling", "none") and not Path(annotations).exists():
        raise ConfigError(
            "there is no such file of annotations.",
            path=annotations,
            hint="Name a file, or write `sibling` or `none`.",
        )


def _result(plan: ConvertPlan, begun: float, **values: Any) -> ConvertResult:
    broken = (*plan.broken, *values.pop("broken", ()))
    return ConvertResult(
        archive=public(plan.archive),
        up_to_date=sum(s.status == "done" for s in plan.sessions),
        changed=tuple(s.name for s in plan.sessions if s.status == "changed"),
        broken=broken,
        earlier=tuple(f for s in plan.sessions for f in s.earlier),
        skipped=tuple(plan.skipped),
        seconds=time.monotonic() - begun,
        plan=plan,
        **values,
    )


def _execute(run: Run, plan: ConvertPlan, begun: float, task_bytes: int) -> ConvertResult:
    check_memory(run.client, plan.worker_bytes, "convert")
    root = create_root(plan.archive, ARCHIVE)
    records = Records(state_folder(plan.archive) / "records" / "convert")
    folder = records.new_run()
    begin(root, plan, ReferenceMeans(run.client, plan.options))
    root = committed(root, plan.archive)
    work = BlockWork(Progress("convert", plan.blocks, plan.bytes))
    run.observer(work.progress)
    hashes = kept_hashes(plan.archive)
    tasks = convert_tasks(plan, run.threads, task_bytes, hashes)
    for items, report in run_blocks(
        run, work, convert_items, tasks, str(folder), blocks_of=item_keys
    ):
        if report is None:
            record_killed(folder, items, work)
        else:
            absorb(plan.archive, report.changes)
            for name, found in report.hashes.items():
                hashes.setdefault(name, {}).update(found)
    root = committed(root, plan.archive)
    latest, torn = records.load(), run.lost_workers
    finished = [
        finish_session(root, plan, planned, latest, hashes.get(planned.name), torn=torn)
        for planned in plan.todo
    ]
    converted = tuple(f for f in finished if f.problem is None)
    # Only a run that goes on from another has what that one's workers wrote too late.
    late = [s.name for s in plan.todo if s.status == "resume"]
    publish(root, plan.archive, records, [f.name for f in converted if f.name in late])
    forget_slices(plan.archive)
    return _result(
        plan,
        begun,
        converted=converted,
        flags=_flags(converted),
        pixels=sum(f.pixels for f in converted),
        broken=tuple(
            (planned.path, f.problem)
            for planned, f in zip(plan.todo, finished, strict=True)
            if f.problem is not None
        ),
        failures=_of_kept(work.failures, finished),
        blocks=work.progress.done,
        bytes=work.progress.done_bytes,
        memory=run.memory(),
    )


def _flags(converted: Iterable[Finished]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for finished in converted:
        total.update(finished.flags)
    return dict(total)


def _of_kept(failures: Sequence[Failure], finished: Sequence[Finished]) -> tuple[Failure, ...]:
    """Failures of sessions that are in the archive; the others are reported as broken sources."""
    gone = {f.name for f in finished if f.problem is not None}
    return tuple(f for f in failures if f.key.session not in gone)
