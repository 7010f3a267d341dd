"""Fitting from file to file, skipping what is up to date."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.session import PixelChoice
from hsi_batch.archive.store import state_folder
from hsi_batch.archive.writer import disk_errors
from hsi_batch.documents import Document, read_yaml
from hsi_batch.engine.events import Observer
from hsi_batch.errors import ConfigError, HsiBatchWarning
from hsi_batch.files import digest_json
from hsi_batch.nodes import CU3SDataNode
from hsi_batch.pipeline.dialects import set_entry
from hsi_batch.pipeline.groups import ARCHIVE, check_background, one_background
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.written import Dialect, refuse_what_is_not_in
from hsi_batch.stages.agreement import agreed_axis, check_tolerance
from hsi_batch.stages.backgrounds import groups_of_sessions
from hsi_batch.stages.bands import BandChoice, see, view_of
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_partials import KeptFits, discard, tidy
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.stages.label_use import fits_on_labels, label_stamps
from hsi_batch.stages.outputs import check_place, held_store, sweep
from hsi_batch.stages.run import Failure

__all__ = ["check_name", "fit_file", "pipeline_from"]


def pipeline_from(
    source: str | os.PathLike[str] | Document, overrides: Sequence[str] = ()
) -> Pipeline:
    """Build the pipeline of a YAML file or document, with ``a.b=c`` overrides, unfitted."""
    document = source if isinstance(source, Document) else read_yaml(source, collect=True)
    for assignment in overrides:
        document = set_entry(document, assignment)
    return Pipeline.from_document(document)


def check_name(out: Path, source: str | os.PathLike[str] | None) -> None:
    """Refuse a name that a fitted pipeline cannot have.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is no YAML, or the file that it is fitted from.
    """
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            "the fitted pipeline is a YAML file; this name has another suffix.",
            path=str(out),
            hint=f"Write for example {out.with_suffix('.yaml').name}.",
        )
    if source is not None and out.resolve() == Path(source).resolve():
        raise ConfigError(
            "the fitted pipeline would overwrite the file it is fitted from.",
            path=str(out),
            hint="Choose another --out.",
        )


def kept_beside(out: Path) -> Path:
    """Where a fit keeps its statistics until it ends: in the run state beside what it writes.

    Not beside the archive, which may be read-only, and which others may fit to.
    """
    state = state_folder(out)
    assert isinstance(state, Path), "check_place lets no URL through"
    return state / "fit"


def fit_file(
    source: str | os.PathLike[str] | Document,
    archive: Archive | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    frames: str | Sequence[str] | None = None,
    pixels: PixelChoice = "valid",
    background: str = ARCHIVE,
    fallback: str | None = None,
    bands: str | None = None,
    exclude_bands: str | None = None,
    raw_values: bool | None = None,
    wavelength_tolerance: float | None = None,
    dialect: Dialect = "hsi-batch",
    force: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> FitResult:
    """Fit the pipeline of a YAML file and write the fitted YAML and its weights.

    If ``out`` was fitted from the same pipeline, selection and data before, nothing is done. A fit
    that was killed goes on where it was, from the statistics it kept in ``<out>.hsi-batch``.

    Parameters
    ----------
    source : path or Document
        The pipeline.
    archive : Archive or path
    out : path
        YAML to write; the weights go beside it.
    overrides : sequence of str
        ``nodes.rx.hparams.eps=0`` and the like.
    frames, pixels, background, fallback, raw_values, wavelength_tolerance
    dry_run, client, workers, observer
        As for :func:`~hsi_batch.stages.fit.fit`.
    bands, exclude_bands : str, optional
        As for :func:`~hsi_batch.stages.fit.fit`. For cuvis-ai, which knows neither bad bands nor
        physical values, all bands and stored values are the default.
    dialect : {"hsi-batch", "cuvis-ai"}
        Write ``out`` in our own form, or so that cuvis-ai 0.19.3 loads it.
    force : bool
        Fit again in any case.
    only_failed : bool
        Fit again if blocks could not be read before.
    """
    pipeline = pipeline_from(source, overrides)
    if not isinstance(archive, Archive):
        archive = Archive(archive)
    target = Path(out)
    check_name(target, None if isinstance(source, Document) else source)
    check_place(target)
    content = pipeline.serialize()
    refuse_what_is_not_in(dialect, pipeline)
    check_background(background, fallback)
    if dialect == "cuvis-ai":
        one_background(background, fallback)
    parts = [content["nodes"], content["connections"], _data(archive, frames), pixels]
    if background != ARCHIVE:
        parts += [background, fallback, _groups(archive, frames, background)]
    if dialect == "cuvis-ai":
        raw_values = True if raw_values is None else raw_values
        bands = bands or "all"
    tolerance = check_tolerance(wavelength_tolerance)
    choice = BandChoice(bands or "good", exclude_bands, raw_values, tolerance)
    if pixels.startswith("mask:"):
        parts += _masks(archive, frames, pixels.removeprefix("mask:"))
    if fits_on_labels(pipeline, pixels):
        # Nothing for labels of the conversion, which the digests of the sessions hold.
        stamps = label_stamps(archive.sessions(archive.select(frames).sessions))
        parts += [stamps] if stamps else []
    parts += _view(pipeline, archive, frames, choice, background)
    digest = digest_json(parts if dialect == "hsi-batch" else [*parts, dialect])
    known = provenance_of(target)
    left_out = known.get("left_out") or ()
    again = force or dry_run or (only_failed and left_out)
    if not again and known.get("digest") == digest:
        # A file in another form may ask for the same, and yet be refused.
        selection = archive.select(frames)
        sessions = archive.sessions(selection.sessions)
        pipeline.resolve(agreed_axis(sessions, background, choice.tolerance))
        sweep(target, lambda: discard(kept_beside(target)))
        return FitResult(
            passes=0,
            pixels=int(known["pixel_count"]),
            sessions=int(known["sessions"]),
            frames=int(known["frames"]),
            background=background,
            groups=int(known.get("groups", 0)),
            earlier=tuple(Failure(BlockKey(*key), reason) for *key, reason in left_out),
            up_to_date=True,
        )
    keep = kept_beside(target)
    held = contextlib.nullcontext() if dry_run else held_store(os.fspath(target), "fit")
    with held:
        try:
            result = fit(
                pipeline,
                archive,
                frames=frames,
                pixels=pixels,
                background=background,
                fallback=fallback,
                bands=choice.bands,
                exclude_bands=exclude_bands,
                raw_values=raw_values,
                wavelength_tolerance=wavelength_tolerance,
                client=client,
                workers=workers,
                # The statistics stay until the result is safe.
                keep=KeptFits(keep),
                dry_run=dry_run,
                observer=observer,
            )
            if dry_run:
                return result
            pipeline.provenance["digest"] = digest
            with disk_errors(str(target)):
                pipeline.save(target, dialect)
        finally:
            # Statistics that are kept stay for the next run.
            tidy(keep)
        discard(keep)
    return replace(result, out=str(target))


def _data(archive: Archive, frames: str | Sequence[str] | None) -> object:
    selection = archive.select(frames)
    sessions = archive.sessions(selection.sessions)
    digests = [str(session.attrs.get("digest")) for session in sessions.values()]
    return [digests, [list(item) for item in selection]]


def _view(
    pipeline: Pipeline,
    archive: Archive,
    frames: str | Sequence[str] | None,
    choice: BandChoice,
    background: str,
) -> list[object]:
    """What else of the data a fit depends on; nothing where all of them is used as stored."""
    selection = archive.select(frames)
    sessions = archive.sessions(selection.sessions, "good_band")
    axis = agreed_axis(sessions, background, choice.tolerance)
    see(pipeline, view_of(pipeline, choice, sessions, selection, axis))
    node = pipeline.source
    plain = not isinstance(node, CU3SDataNode) or node.view.plain
    return [] if plain else [node.hparams]


def _masks(archive: Archive, frames: str | Sequence[str] | None, name: str) -> list[object]:
    sessions = archive.sessions(archive.select(frames).sessions)
    return [session.masks.get(name) for session in sessions.values()]


def _groups(archive: Archive, frames: str | Sequence[str] | None, by: str) -> object:
    return groups_of_sessions(by, archive.sessions(archive.select(frames).sessions))


def provenance_of(fitted: Path) -> dict[str, Any]:
    """What a fitted pipeline was fitted on; empty if there is none of this name."""
    if not fitted.exists() or not fitted.with_suffix(".pt").exists():
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HsiBatchWarning)
            pipeline = Pipeline.from_yaml(fitted)
    except ConfigError:
        # Something else has this name; fitting writes over it.
        return {}
    return pipeline.provenance if pipeline.fitted else {}
