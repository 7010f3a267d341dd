"""A trainrun, from its file to the trained pipeline: statistical fit, then gradient stage."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.archive.store import state_folder
from hsi_batch.data.config import data_module
from hsi_batch.data.module import DataModule, Split
from hsi_batch.engine.events import silent
from hsi_batch.errors import ConfigError, DataWarning
from hsi_batch.files import digest_json, remove_unfinished
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit import fit
from hsi_batch.stages.fit_file import provenance_of
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.stages.label_use import label_stamps
from hsi_batch.stages.outputs import check_place, held_store, sweep
from hsi_batch.stages.status import observed
from hsi_batch.training.assembly import (
    check_trainable,
    gradient_trainer,
    in_archive,
    trained_nodes,
    trainer_of,
)
from hsi_batch.training.calibration import Calibrated, calibrate_deciders, check_calibration
from hsi_batch.training.comparison import compared, measure
from hsi_batch.training.evaluation import StageResults
from hsi_batch.training.gradient import GradientTrainer, import_lightning
from hsi_batch.training.plan import TrainPlan, TrainSketch, plan_of, sketch_of
from hsi_batch.training.results import TrainResult
from hsi_batch.training.statistical import StatisticalTrainer
from hsi_batch.training.trainrun import (
    TrainRunConfig,
    build_pipeline,
    read_trainrun,
    set_tags,
)

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.engine.events import Observer
    from hsi_batch.stages.convert import ConvertResult

__all__ = ["TrainedRun", "plan", "train"]


@dataclass(frozen=True)
class TrainedRun:
    """What came of a trainrun.

    Attributes
    ----------
    name : str
    out : str
        The trained pipeline.
    fit : FitResult, optional
    train : TrainResult, optional
    before, after : dict of str to StageResults
        Metrics of val and test, of the pipeline as it was fitted and as it was trained; of train
        where no frames are named for them.
    up_to_date : bool
        Whether it was there already, and nothing was done.
    calibrated : tuple of Calibrated
        Thresholds that were set on the val frames, as fitted and as trained.
    """

    name: str
    out: str
    fit: FitResult | None = None
    train: TrainResult | None = None
    before: dict[str, StageResults] = field(default_factory=dict)
    after: dict[str, StageResults] = field(default_factory=dict)
    up_to_date: bool = False
    calibrated: tuple[Calibrated, ...] = ()

    @property
    def failed(self) -> int:
        """Frames that could not be read."""
        return sum(part.failed for part in (self.fit, self.train) if part is not None)

    @property
    def failures(self) -> tuple[Any, ...]:
        """Frames that could not be read, with the reason."""
        return () if self.train is None else self.train.failures

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.name,
            "out": self.out,
            "up_to_date": self.up_to_date,
            "fit": self.fit and {"pixels": self.fit.pixels, "passes": self.fit.passes},
            "train": self.train and self.train.to_dict(),
            "before": {split: found.metrics for split, found in self.before.items()},
            "after": {split: found.metrics for split, found in self.after.items()},
            "calibrated": [vars(cut) for cut in self.calibrated],
            "failed": self.failed,
        }

    def __str__(self) -> str:
        if self.up_to_date:
            return f"{self.name}: up to date, {self.out}"
        lines = [f"{self.name}: {self.train}", *map(str, self.calibrated)]
        for split, found in self.after.items():
            was = self.before[split].metrics if split in self.before else {}
            lines.append(f"{split}, {found.frames} frames, fitted -> trained:")
            lines += [
                f"  {name}: {was[name]:.6g} -> {value:.6g}"
                if name in was
                else f"  {name}: {value:.6g}"
                for name, value in found.metrics.items()
            ]
        return "\n".join([*lines, f"written: {self.out}"])


def train(
    path: str | os.PathLike[str],
    *,
    archive: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> TrainedRun:
    """Fit the pipeline of a trainrun, train it, and write it.

    A training that was interrupted goes on from the end of the last whole epoch, and ends with the
    weights that it would have had; one that is there already is left alone.

    Parameters
    ----------
    path : path
        The trainrun; it has a section ``training``.
    archive : path, optional
        Take the data from this archive, whatever the trainrun names.
    out : path, optional
        YAML to write; ``<output_dir>/trained_models/<name>.yaml`` by default.
    overrides : sequence of str
        ``training.optimizer.lr=0.01`` and the like.
    force : bool
        Begin anew.
    client, workers, observer
        As for :func:`hsi_batch.fit`.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The trainrun is wrong; nothing was started.

    Returns
    -------
    TrainedRun

    Examples
    --------
    >>> run = "workflows/trainruns/channel_selector.yaml"
    >>> frames = ["data.params.train=scene_000", "data.params.val=scene_001"]
    >>> short = ["training.trainer.max_epochs=2", "training.trainer.enable_progress_bar=false"]
    >>> found = train(run, archive="archive.zarr", out="trained.yaml", overrides=frames + short)
    >>> found.up_to_date, sorted(p.name for p in Path().glob("trained.*"))
    (False, ['trained.pt', 'trained.yaml'])
    """
    config, pipeline, data, target = _read(path, archive, out, overrides)
    if config.calibrate:
        check_calibration(pipeline, data)
    digest = _digest(config, pipeline, data)
    if not force and _digest_of(target) == digest:
        sweep(target, lambda: _discard(_kept_at(target, digest)))
        there = Pipeline.from_yaml(target)
        if set_tags(there, config.tags):
            there.save(target)
        return TrainedRun(config.name, str(target), up_to_date=True)
    with warnings.catch_warnings():
        # What is wrong is told before the fit; what is only doubtful, once, by the training.
        warnings.simplefilter("ignore", DataWarning)
        trainer_of(config, pipeline, data).check_settings()
    if config.resources:
        from hsi_batch.training.elsewhere import check_offered

        check_offered(client, config.resources)
    with held_store(os.fspath(target), "train"):
        resume = _resume_point(target, digest, force=force)
        fitted = StatisticalTrainer(
            pipeline, data, client=client, workers=workers, observer=observer
        ).fit()
        told = observed(observer or silent)
        trainer = gradient_trainer(config, pipeline, data, path, observer=told, client=client)
        _remove_unfinished(trainer)
        # Before as after, or what calibration is worth would pass for what training is worth.
        cuts = calibrate_deciders(pipeline, data, "as fitted") if config.calibrate else []
        before = measure(trainer)
        result = trainer.fit(last=resume)
        cuts += calibrate_deciders(pipeline, data, "as trained") if config.calibrate else []
        after = measure(trainer)
        pipeline.provenance["training"] |= {
            "digest": digest,
            "compared": compared(before, after, pipeline),
        }
        set_tags(pipeline, config.tags)
        pipeline.save(target)
        _discard(resume)
    with contextlib.suppress(OSError):
        resume.parent.parent.rmdir()
    results = before.results, after.results
    return TrainedRun(config.name, str(target), fitted, result, *results, calibrated=tuple(cuts))


def plan(
    path: str | os.PathLike[str],
    *,
    archive: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    first: ConvertResult | None = None,
) -> TrainPlan | TrainSketch:
    """What :func:`train` would do; nothing is converted, fitted, trained or written.

    Where recordings are to be converted first (those of the data module, or what ``first`` plans),
    little is known.
    """
    config, pipeline, data, target = _read(path, archive, out, overrides)
    trainer = trainer_of(config, pipeline, data)
    first = first or data.conversion()
    if first is not None:
        return sketch_of(trainer, trained_nodes(config), first)
    if config.calibrate:
        check_calibration(pipeline, data)
    digest = _digest(config, pipeline, data)
    done = not force and _digest_of(target) == digest
    resume = _kept_at(target, digest)
    trainer.check_settings()
    fitted = fit(
        pipeline,
        data.archive,
        frames=data.frames("train"),
        raw_values=True,
        client=client,
        workers=workers,
        dry_run=True,
    )
    resumed = 0
    if resume.exists() and not force:
        from hsi_batch.training.checkpoints import STATE, state_in

        resumed = len(state_in(resume)[STATE]["history"])
    return plan_of(trainer, fitted, trained_nodes(config), resumed, up_to_date=done)


def _read(
    path: str | os.PathLike[str],
    archive: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    overrides: Sequence[str],
) -> tuple[TrainRunConfig, Pipeline, DataModule, Path]:
    """A trainrun, checked, with its pipeline, its data and what is written."""
    config, _ = read_trainrun(path, overrides)
    if config.training is None:
        raise ConfigError(
            "the trainrun has no section `training`: there is nothing to train.",
            path=str(path),
            hint="Add one, or fit the pipeline only (hsi-batch fit).",
        )
    pipeline = build_pipeline(config, path)
    data = data_module(config.data if archive is None else in_archive(config.data, archive))
    folder = Path(config.output_dir)
    target = Path(out) if out is not None else folder / "trained_models" / f"{config.name}.yaml"
    check_place(target)
    # Everything that can be wrong is found before the fit.
    import_lightning()
    check_trainable(config, pipeline, path)
    return config, pipeline, data, target


def _digest_of(target: Path) -> str | None:
    found = provenance_of(target).get("training", {}).get("digest")
    return None if found is None else str(found)


def _kept_at(target: Path, digest: str) -> Path:
    state = state_folder(target)
    assert isinstance(state, Path), "check_place lets no URL through"
    return state / "train" / f"{digest[:16]}.ckpt"


def _resume_point(target: Path, digest: str, *, force: bool) -> Path:
    """Where the state of this training is kept while it runs; that of any other is removed."""
    kept = _kept_at(target, digest)
    remove_unfinished(kept.parent, "*.ckpt")
    for other in kept.parent.glob("*.ckpt"):
        if force or other != kept:
            other.unlink(missing_ok=True)
    return kept


def _discard(resume: Path) -> None:
    resume.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        resume.parent.rmdir()


def _remove_unfinished(trainer: GradientTrainer) -> None:
    callbacks = trainer.trainer_config.callbacks
    if callbacks is not None and callbacks.checkpoint is not None:
        remove_unfinished(Path(callbacks.checkpoint.dirpath), "*.ckpt")


def _digest(config: TrainRunConfig, pipeline: Pipeline, data: DataModule) -> str:
    """What a training depends on."""
    splits: tuple[Split, ...] = ("train", "val", "test")
    chosen = {
        split: [list(map(str, item)) for item in data.selection(split)]
        for split in splits
        if data.has(split)
    }
    sessions = {name for rows in chosen.values() for name, *_ in rows}
    opened = {name: data.archive.session(name) for name in sessions}
    stamps = label_stamps(opened)
    contents = {
        name: [digest, stamps[name]] if name in stamps else digest
        for name, session in opened.items()
        for digest in [session.attrs.get("digest")]
    }
    content = pipeline.serialize()
    given = config.model_dump(
        mode="json", exclude={"pipeline", "data", "name", "tags", "resources"}
    )
    return digest_json(
        [content["nodes"], content["connections"], given, chosen, contents, data.batch_size]
    )
