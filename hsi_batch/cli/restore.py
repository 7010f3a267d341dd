"""``restore-pipeline`` and ``restore-trainrun``, with the options of the cuvis-ai commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsi_batch.cli.options import (
    Cluster,
    Frames,
    Json,
    MaxFailed,
    Quiet,
    Workers,
    client_of,
    finish,
    show,
)
from hsi_batch.cli.progress import observing

if TYPE_CHECKING:
    from hsi_batch.data.module import DataModule

__all__ = ["register"]

_Override = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="A.B=C", help="Override a setting; repeatable."),
]
_Weights = Annotated[
    Path | None,
    typer.Option("--weights-path", metavar="F.pt", help="Weights; those beside the YAML."),
]
_Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="Kept; the CPU does the work.")
]
_Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugins-dir", metavar="DIR", help="Kept; manifests are not needed."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("restore-pipeline")(restore_pipeline)
    app.command("restore-trainrun")(restore_trainrun)


def _kept(device: str, plugins: list[Path] | None) -> None:
    from hsi_batch.errors import ConfigError

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device!r} is not one of auto, cpu, cuda.")
    if device == "cuda":
        typer.echo("--device cuda: the work is done on the CPU.", err=True)
    if plugins:
        typer.echo("--plugins-dir: without effect.", err=True)


def _data(
    cu3s: Path | None,
    annotation: Path | None,
    mode: str,
    archive: Path | None,
    module: str | None,
    arguments: list[str] | None,
) -> DataModule | None:
    """The data that the options name; None if they name none."""
    from hsi_batch.data.archive import ArchiveDataModule
    from hsi_batch.data.config import DataConfig, data_module
    from hsi_batch.data.recordings import SingleCu3sDataModule
    from hsi_batch.documents import Document, set_value
    from hsi_batch.errors import ConfigError

    if sum(given is not None for given in (cu3s, archive, module)) > 1:
        raise ConfigError(
            "several sources of data are named.",
            hint="Give one of --cu3s-file-path, --archive, --data-module.",
        )
    if archive is not None:
        return ArchiveDataModule(archive)
    if cu3s is not None:
        return SingleCu3sDataModule(cu3s, annotation, processing_mode=mode)
    if module is None:
        if arguments:
            raise ConfigError("--data-arg needs --data-module.")
        return None
    params = Document({}, {})
    for assignment in arguments or ():
        params = set_value(params, assignment)
    return data_module(DataConfig(data_module=module, params=params.data))


def restore_pipeline(
    pipeline_path: Annotated[
        Path, typer.Option("--pipeline-path", metavar="F.yaml", help="The saved pipeline.")
    ],
    cu3s_file_path: Annotated[
        Path | None, typer.Option("--cu3s-file-path", metavar="C.cu3s", help="A recording.")
    ] = None,
    annotation_json_path: Annotated[
        Path | None, typer.Option("--annotation-json-path", metavar="F.json", help="Its labels.")
    ] = None,
    processing_mode: Annotated[
        str, typer.Option("--processing-mode", metavar="MODE", help="SDK processing mode.")
    ] = "Reflectance",
    archive: Annotated[
        Path | None, typer.Option("--archive", metavar="STORE", help="An archive.")
    ] = None,
    data_module: Annotated[
        str | None,
        typer.Option("--data-module", metavar="cu3s|cu3s_multi|archive", help="A data module."),
    ] = None,
    data_arg: Annotated[
        list[str] | None,
        typer.Option("--data-arg", metavar="K=V", help="Argument of it; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="SCORES", help="Scores; F_scores.zarr here by default."),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="PORT", help="Port to store; repeatable."),
    ] = None,
    frames: Frames = None,
    weights_path: _Weights = None,
    device: _Device = "auto",
    override: _Override = None,
    plugins_dir: _Plugins = None,
    pipeline_vis_ext: Annotated[
        str | None,
        typer.Option("--pipeline-vis-ext", metavar="md", help="Write the graph beside the YAML."),
    ] = None,
    profile_sync: Annotated[
        bool, typer.Option("--profile-sync", help="Kept; nothing is profiled.")
    ] = False,
    cluster: Cluster = None,
    workers: Workers = None,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a saved pipeline takes and gives; with data, score them and keep the scores.

    Example: hsi-batch restore-pipeline --pipeline-path fitted/rx.yaml --cu3s-file-path scene.cu3s
    """
    from hsi_batch.errors import ConfigError
    from hsi_batch.files import write_atomically
    from hsi_batch.training import restore

    del profile_sync
    _kept(device, plugins_dir)
    if pipeline_vis_ext not in (None, "md"):
        raise ConfigError(
            f"--pipeline-vis-ext {pipeline_vis_ext!r} is not md.",
            hint="Pictures are made by hsi-batch graph.",
        )
    data = _data(
        cu3s_file_path, annotation_json_path, processing_mode, archive, data_module, data_arg
    )
    pipeline = restore.read_pipeline(pipeline_path, weights_path, override or ())
    if pipeline_vis_ext is not None:
        page = pipeline_path.with_suffix(f".{pipeline_vis_ext}")
        write_atomically(page, restore.mermaid(pipeline))
    if data is None:
        show(restore.describe(pipeline), as_json=as_json, quiet=quiet)
        return
    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result: Any = restore.restore_pipeline(
            pipeline,
            data,
            out or Path(f"{pipeline_path.stem}_scores.zarr"),
            frames=frames,
            outputs=output,
            client=client,
            workers=workers,
            observer=observer,
        )
    show(result, as_json=as_json, quiet=quiet)
    if not (as_json or quiet):
        typer.echo(f"scores: {result.store}")
    finish(result, max_failed)


def restore_trainrun(
    trainrun_path: Annotated[
        Path, typer.Option("--trainrun-path", metavar="F.yaml", help="The trainrun.")
    ],
    mode: Annotated[
        str, typer.Option("--mode", metavar="info|train|validate|test", help="What to do.")
    ] = "info",
    checkpoint_path: Annotated[
        Path | None,
        typer.Option("--checkpoint-path", metavar="F.ckpt", help="State of a gradient training."),
    ] = None,
    weights_path: _Weights = None,
    device: _Device = "auto",
    override: _Override = None,
    plugins_dir: _Plugins = None,
    cluster: Cluster = None,
    workers: Workers = None,
    max_failed: MaxFailed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at a trainrun, run it, or give the metrics of what came of it.

    Example: hsi-batch restore-trainrun --trainrun-path outputs/trainrun.yaml --mode train
    """
    from hsi_batch.errors import ConfigError
    from hsi_batch.training.restore import restore_trainrun as run

    _kept(device, plugins_dir)
    if mode not in ("info", "train", "validate", "test"):
        raise ConfigError(f"--mode {mode!r} is not one of info, train, validate, test.")
    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run(
            trainrun_path,
            mode,  # type: ignore[arg-type]  # of Click's choices
            weights_path=weights_path,
            checkpoint_path=checkpoint_path,
            overrides=override or (),
            client=client,
            workers=workers,
            observer=observer,
        )
    show(result, as_json=as_json, quiet=quiet)
    finish(result, max_failed)
