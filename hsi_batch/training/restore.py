"""Running again what files describe: a saved pipeline, a trainrun."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distributed import Client

from hsi_batch.data.config import data_module
from hsi_batch.data.module import DataModule
from hsi_batch.documents import read_yaml
from hsi_batch.engine.events import Observer
from hsi_batch.errors import ConfigError, HsiBatchWarning, did_you_mean
from hsi_batch.nodes import Node
from hsi_batch.pipeline.dialects import set_entry
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.fit_result import FitResult
from hsi_batch.stages.outputs import check_place
from hsi_batch.stages.score import ScoreResult, score
from hsi_batch.training.calibration import Calibrated, calibrate_deciders, check_calibration
from hsi_batch.training.evaluation import StageResults
from hsi_batch.training.gradient import import_lightning
from hsi_batch.training.results import TrainResult
from hsi_batch.training.statistical import StatisticalTrainer
from hsi_batch.training.trainrun import (
    TrainRunConfig,
    build_pipeline,
    read_trainrun,
    set_tags,
)
from hsi_batch.wording import counted

__all__ = [
    "PipelineInfo",
    "RestoredRun",
    "describe",
    "mermaid",
    "read_pipeline",
    "restore_pipeline",
    "restore_trainrun",
]

RunMode = Literal["info", "train", "validate", "test"]


@dataclass(frozen=True)
class PipelineInfo:
    """What a pipeline takes and gives.

    Attributes
    ----------
    name : str
    fitted : bool
    inputs : dict
        Inputs of the data node, in words.
    outputs : dict
        Outputs that no other node takes, in words.
    nodes : dict
        Class by name.
    backgrounds : str
        How many the pipeline holds, if not one.
    """

    name: str
    fitted: bool
    inputs: dict[str, str]
    outputs: dict[str, str]
    nodes: dict[str, str]
    backgrounds: str = ""

    def __str__(self) -> str:
        lines = [f"{self.name}: {'' if self.fitted else 'not '}fitted"]
        lines += [f"  {self.backgrounds}"] * bool(self.backgrounds)
        for title, ports in (("takes", self.inputs), ("gives", self.outputs)):
            lines += [f"  {title} {port}: {text}" for port, text in ports.items()]
        lines += [f"  node {name}: {cls}" for name, cls in self.nodes.items()]
        return "\n".join(lines)


def describe(pipeline: Pipeline) -> PipelineInfo:
    """What a pipeline takes and gives."""
    taken = {edge.source for edge in pipeline.edges}
    return PipelineInfo(
        pipeline.name,
        pipeline.fitted,
        {
            name: f"{spec.description}{' (optional)' if spec.optional else ''}"
            for name, spec in pipeline.source.INPUT_SPECS.items()
        },
        {
            f"{name}.{port}": spec.description
            for name, node in pipeline.nodes.items()
            if not node.is_source
            for port, spec in node.OUTPUT_SPECS.items()
            if node.outputs[port].ref not in taken
        },
        {name: type(node).__name__ for name, node in pipeline.nodes.items()},
        "" if pipeline.groups is None else str(pipeline.groups),
    )


def mermaid(pipeline: Pipeline) -> str:
    """The graph as a Markdown page with a Mermaid diagram."""
    number = {name: f"n{i}" for i, name in enumerate(pipeline.nodes)}
    lines = [f"# {pipeline.name}", "", "```mermaid", "graph LR"]
    for name, node in pipeline.nodes.items():
        lines.append(f'  {number[name]}["{name}<br>{type(node).__name__}"]')
    for source, target in pipeline.edges:
        label = source.port if source.port == target.port else f"{source.port} to {target.port}"
        lines.append(f"  {number[source.node]} -->|{label}| {number[target.node]}")
    return "\n".join([*lines, "```", ""])


def read_pipeline(
    path: str | os.PathLike[str],
    weights_path: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> Pipeline:
    """A pipeline file with its weights, and ``nodes.rx.hparams.eps=0`` overrides."""
    document = read_yaml(path)
    for assignment in overrides:
        document = set_entry(document, assignment)
    pipeline = Pipeline.from_document(document)
    beside = Path(path).with_suffix(".pt")
    if weights_path is not None or beside.exists():
        # What was overridden is not what was written; the weights still have to be.
        pipeline.load_weights(weights_path or beside, path if weights_path is None else None)
    return pipeline


def restore_pipeline(
    pipeline: Pipeline,
    datamodule: DataModule,
    out: str | os.PathLike[str],
    *,
    frames: str | Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> ScoreResult:
    """Score the frames of a data module with a fitted pipeline; see :func:`hsi_batch.score`."""
    check_place(out, folder=True)
    return score(
        pipeline,
        datamodule.archive,
        out,
        frames=datamodule.frames("predict") if frames is None else frames,
        outputs=outputs,
        client=client,
        workers=workers,
        observer=observer,
    )


@dataclass(frozen=True)
class RestoredRun:
    """What came of a trainrun.

    Attributes
    ----------
    name : str
    mode : {"info", "train", "validate", "test"}
    info : dict
        The trainrun as plain values, if it was only looked at.
    fit : FitResult, optional
    val, test : StageResults, optional
    out : str, optional
        The fitted pipeline that was written.
    train : TrainResult, optional
        The gradient training.
    calibrated : tuple of Calibrated
        Thresholds that were set on the val frames.
    """

    name: str
    mode: RunMode
    info: dict[str, Any] | None = None
    fit: FitResult | None = None
    val: StageResults | None = None
    test: StageResults | None = None
    out: str | None = None
    train: TrainResult | None = None
    calibrated: tuple[Calibrated, ...] = ()

    @property
    def failed(self) -> int:
        """Frames that could not be read."""
        parts = [self.fit.failed if self.fit else 0, self.train.failed if self.train else 0]
        parts += [len(found.failures) for found in (self.val, self.test) if found is not None]
        return sum(parts)

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        fitted = self.fit
        return {
            "name": self.name,
            "mode": self.mode,
            "info": self.info,
            "fit": fitted and {"pixels": fitted.pixels, "passes": fitted.passes},
            "train": self.train and self.train.to_dict(),
            "val": self.val and self.val.metrics,
            "test": self.test and self.test.metrics,
            "out": self.out,
            "calibrated": [vars(cut) for cut in self.calibrated],
            "failed": self.failed,
        }

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.mode}"]
        for key, value in (self.info or {}).items():
            lines.append(f"  {key}: {value}")
        if self.fit is not None:
            lines.append(f"  {self.fit}")
        if self.train is not None:
            lines += [f"  {line}" for line in str(self.train).splitlines()]
        lines += [f"  {cut}" for cut in self.calibrated]
        for split, found in (("val", self.val), ("test", self.test)):
            if found is not None:
                lines.append(f"  {split}, {counted(found.frames, 'frame')}:")
                lines += [f"    {name}: {value:.6g}" for name, value in found.metrics.items()]
        if self.out:
            lines.append(f"  written: {self.out}")
        return "\n".join(lines)


def restore_trainrun(
    path: str | os.PathLike[str],
    mode: RunMode = "info",
    *,
    weights_path: str | os.PathLike[str] | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    client: Client | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> RestoredRun:
    """Look at a trainrun, run it, or evaluate what came of it.

    ``train`` fits the pipeline to the train frames, trains it if there is a section ``training``
    (going on from ``checkpoint_path`` if that is given), writes it to
    ``<output_dir>/trained_models/<name>_restored.yaml`` and gives the metrics of the val and test
    frames, where there are any. ``validate`` and ``test`` take that file if it is there, or the
    pipeline of the trainrun with ``weights_path`` or the state of ``checkpoint_path``; without any
    of them they fit first.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The trainrun is wrong.
    """
    config, _ = read_trainrun(path, overrides)
    if checkpoint_path is not None and config.training is None:
        raise ConfigError(
            "checkpoints belong to gradient training, and the trainrun has no section `training`.",
            path=str(checkpoint_path),
            hint="Name the weights of a saved pipeline (--weights-path F.pt).",
        )
    if mode == "info":
        return RestoredRun(config.name, mode, info=_info(config, build_pipeline(config, path)))
    pipeline = build_pipeline(config, path)
    restored = Path(config.output_dir) / "trained_models" / f"{pipeline.name}_restored.yaml"
    if config.training is not None and (mode == "train" or checkpoint_path is not None):
        import_lightning()
        return _gradient(
            config,
            path,
            mode,
            restored,
            checkpoint_path,
            overrides,
            client=client,
            workers=workers,
            observer=observer,
        )
    if weights_path is not None:
        pipeline.load_weights(weights_path)
    elif mode != "train" and restored.with_suffix(".pt").exists():
        pipeline = Pipeline.from_yaml(restored)
    data = data_module(config.data)
    if mode == "train" and config.calibrate:
        check_calibration(pipeline, data)
    trainer = StatisticalTrainer(
        pipeline,
        data,
        _named(pipeline, config.metric_nodes, path) or None,
        client=client,
        workers=workers,
        observer=observer,
    )
    if mode == "train":
        check_place(restored)
        fitted = trainer.fit()
        cuts = _calibrated(config, pipeline, data)
        set_tags(pipeline, config.tags)
        written = pipeline.save(restored)
        val, test = _optional(trainer, "val"), _optional(trainer, "test")
        return RestoredRun(
            config.name, mode, None, fitted, val, test, str(written), calibrated=cuts
        )
    again = None
    if not pipeline.fitted:
        if config.training is not None:
            raise ConfigError(
                "a trained pipeline cannot be evaluated without its weights.",
                path=str(path),
                hint="Name them with --weights-path.",
            )
        warnings.warn(
            "no weights were found; the pipeline is fitted first.", HsiBatchWarning, stacklevel=2
        )
        again = trainer.fit()
    val = trainer.validate() if mode == "validate" else None
    test = trainer.test() if mode == "test" else None
    return RestoredRun(config.name, mode, None, again, val, test)


def _gradient(
    config: TrainRunConfig,
    path: str | os.PathLike[str],
    mode: RunMode,
    restored: Path,
    checkpoint: str | os.PathLike[str] | None,
    overrides: Sequence[str],
    **running: Any,
) -> RestoredRun:
    """Train, or evaluate the state of a checkpoint."""
    from hsi_batch.training.assembly import gradient_trainer
    from hsi_batch.training.trained_run import train

    if mode == "train" and checkpoint is None:
        run = train(path, out=restored, overrides=overrides, **running)
        val, test = run.after.get("val"), run.after.get("test")
        cuts = run.calibrated
        return RestoredRun(config.name, mode, None, run.fit, val, test, run.out, run.train, cuts)
    pipeline, data = build_pipeline(config, path), data_module(config.data)
    fitted = StatisticalTrainer(pipeline, data, **running).fit()
    trainer = gradient_trainer(config, pipeline, data, path, observer=running["observer"])
    if mode != "train":
        val = trainer.validate(checkpoint) if mode == "validate" else None
        test = trainer.test(checkpoint) if mode == "test" else None
        return RestoredRun(config.name, mode, None, fitted, val, test)
    check_place(restored)
    trained = trainer.fit(checkpoint)
    cuts = _calibrated(config, pipeline, data)
    set_tags(pipeline, config.tags)
    written = pipeline.save(restored)
    judge = StatisticalTrainer(pipeline, data, trainer.metrics)
    val, test = _optional(judge, "val"), _optional(judge, "test")
    return RestoredRun(config.name, mode, None, fitted, val, test, str(written), trained, cuts)


def _calibrated(
    config: TrainRunConfig, pipeline: Pipeline, data: DataModule
) -> tuple[Calibrated, ...]:
    return tuple(calibrate_deciders(pipeline, data)) if config.calibrate else ()


def _optional(trainer: StatisticalTrainer, split: Literal["val", "test"]) -> StageResults | None:
    """Metrics of a split that has frames of its own."""
    data = trainer.datamodule
    assert data is not None
    if data.undivided:
        return None
    try:
        data.frames(split)
    except ConfigError:
        return None
    return trainer.validate() if split == "val" else trainer.test()


def _named(pipeline: Pipeline, names: Sequence[str], path: str | os.PathLike[str]) -> list[Node]:
    unknown = [name for name in names if name not in pipeline.nodes]
    if unknown:
        raise ConfigError(
            f"metric_nodes: the pipeline has no node {unknown[0]!r}."
            f"{did_you_mean(unknown[0], pipeline.nodes)}",
            path=str(path),
            hint="Name a node of the pipeline.",
        )
    return [pipeline.nodes[name] for name in names]


def _info(config: TrainRunConfig, pipeline: Pipeline) -> dict[str, Any]:
    return {
        "pipeline": f"{pipeline.name}, {counted(len(pipeline.nodes), 'node')}",
        "to fit": [n for n, node in pipeline.nodes.items() if node.requires_initial_fit],
        "data": {"data_module": config.data.data_module, **config.data.params},
        "training": "gradient" if config.training is not None else "statistical",
        "loss_nodes": config.loss_nodes,
        "metric_nodes": config.metric_nodes,
        "unfreeze_nodes": config.unfreeze_nodes,
        "output_dir": config.output_dir,
    }
