"""The trainrun: pipeline, data and training in one file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hsi_batch.data.config import DataConfig
from hsi_batch.documents import Document, read_yaml, set_value
from hsi_batch.errors import ConfigError
from hsi_batch.files import expand_home
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.reference import FIT_TAGS
from hsi_batch.training.config import TrainingConfig, without_idle_momentum
from hsi_batch.training.settings import Settings
from hsi_batch.validation import validate

__all__ = ["TrainRunConfig", "build_pipeline", "read_trainrun", "set_tags"]


class TrainRunConfig(Settings):
    """What is trained on what, and how.

    Parameters
    ----------
    name : str
        Of the run, and of its files.
    pipeline : str or dict, optional
        Path of the pipeline's YAML, or what :meth:`.Pipeline.serialize` gives.
    data : DataConfig
        Frames and their splits.
    training : TrainingConfig, optional
        The gradient stage; without it there is a statistical fit only.
    loss_nodes, metric_nodes, freeze_nodes, unfreeze_nodes : list of str
        Names of nodes.
    calibrate : bool
        In the end, set the thresholds of deciders to those of the largest F1 score on the val
        frames.
    output_dir : str
        Folder that everything is written to.
    tags : dict
        Words about the run; the metadata of the pipeline that is written has them as
        ``key: value``, and its report shows them.
    resources : dict
        Train on a worker of the cluster that offers these (``GPU: 1``), not in the process that
        the command is given in.

    Examples
    --------
    >>> run = TrainRunConfig.from_dict({"name": "rx", "data": {"data_module": "archive"}})
    >>> run.training is None, run.output_dir
    (True, './outputs')
    """

    name: str
    pipeline: str | dict[str, Any] | None = None
    data: DataConfig
    training: TrainingConfig | None = None
    loss_nodes: list[str] = Field(default_factory=list)
    metric_nodes: list[str] = Field(default_factory=list)
    freeze_nodes: list[str] = Field(default_factory=list)
    unfreeze_nodes: list[str] = Field(default_factory=list)
    calibrate: bool = False
    output_dir: str = "./outputs"
    tags: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)


def read_trainrun(
    path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> tuple[TrainRunConfig, Document]:
    """Read a trainrun file, with ``a.b=c`` overrides.

    Raises
    ------
    hsi_batch.errors.ConfigError
        With file and line of every mistake.
    """
    document = read_yaml(path)
    if isinstance(document.data, dict) and "defaults" in document.data:
        document = _composed(document, Path(path))
    for assignment in overrides:
        document = set_value(document, assignment)
    config = validate(TrainRunConfig, document)
    for key in config.tags:
        if key in FIT_TAGS:
            raise ConfigError(
                f"tags: {key!r} is what a fit says of itself.",
                path=document.path,
                line=document.line(("tags", key)),
                hint="Name the tag otherwise.",
            )
    return config, document


def set_tags(pipeline: Pipeline, tags: Mapping[str, str]) -> bool:
    """Tag a pipeline as a trainrun says, instead of what one said before; whether that is new."""
    training = pipeline.provenance.get("training", {})
    was = [f"{key}: {value}" for key, value in training.get("tags", {}).items()]
    now = [f"{key}: {value}" for key, value in tags.items()]
    if was == now:
        return False
    kept = [tag for tag in pipeline.metadata.tags if tag not in was and tag not in now]
    pipeline.metadata.tags = [*kept, *now]
    pipeline.provenance = {
        **pipeline.provenance,
        "training": {**training, "tags": dict(tags)},
    }
    return True


def build_pipeline(
    config: TrainRunConfig, path: str | os.PathLike[str], weights: str | None = None
) -> Pipeline:
    """The pipeline that a trainrun names, unfitted unless weights are given.

    A path is looked for relative to the folder of the trainrun, its parent, then the working
    directory; ``.yaml`` is added if it is missing.
    """
    if config.pipeline is None:
        raise ConfigError(
            "the trainrun names no pipeline.", path=str(path), hint="Add the key `pipeline`."
        )
    if isinstance(config.pipeline, dict):
        document = Document(config.pipeline, {}, str(path))
    else:
        document = read_yaml(_find(config.pipeline, Path(path)))
    pipeline = Pipeline.from_document(document)
    if weights is not None:
        pipeline.load_weights(weights)
    return pipeline


def _composed(document: Document, path: Path) -> Document:
    """The trainrun that a file with ``defaults`` stands for; its groups are two levels above."""
    try:
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ImportError:
        raise ConfigError(
            "the file is composed of others (`defaults`), which needs Hydra.",
            path=document.path,
            line=document.line(("defaults",)),
            hint="Install it (pip install 'hsi-batch[hydra]'), or write the composed trainrun into"
            " one file.",
        ) from None
    whole = path.absolute()
    root = whole.parent.parent
    try:
        GlobalHydra.instance().clear()
        with (
            warnings.catch_warnings(),
            initialize_config_dir(config_dir=str(root), version_base=None),
        ):
            # Of its own upgrades.
            warnings.simplefilter("ignore")
            found = compose(config_name=str(whole.relative_to(root).with_suffix("")))
        data: Any = OmegaConf.to_container(found, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(
            f"the trainrun cannot be composed: {why}",
            path=document.path,
            line=document.line(("defaults",)),
            hint=f"Groups are looked for in {root}.",
        ) from None
    training = data.get("training")
    if isinstance(training, dict):
        # Only the cuvis-ai family composes trainruns.
        data["training"] = without_idle_momentum(training, foreign=True)
    return Document(data, {}, document.path)


def _find(named: str, trainrun: Path) -> Path:
    wanted = expand_home(named)
    if wanted.suffix.lower() not in (".yaml", ".yml"):
        wanted = wanted.with_name(wanted.name + ".yaml")
    folder = trainrun.absolute().parent
    places = [base / wanted for base in (folder, folder.parent, Path.cwd())]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"there is no pipeline {named!r}.",
        path=str(trainrun),
        hint=f"Looked for {', '.join(map(str, dict.fromkeys(places)))}.",
    )
