"""``check``, ``schema``: mistakes in files, before anything runs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hsi_batch.cli.options import Json, Quiet

__all__ = ["register"]

_WRONG = 2


class FileKind(StrEnum):
    """What a file is."""

    PIPELINE = "pipeline"
    WORKFLOW = "workflow"
    CLUSTER = "cluster"
    TRAINRUN = "trainrun"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("check")(check)
    app.command("schema")(schema)


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    kind: Annotated[
        FileKind | None, typer.Option("--kind", help="What the files are, if it is not plain.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check pipelines (ours, or of cuvis-ai), workflows, trainruns and cluster files.

    They are read as a run would read them.

    All mistakes are listed with their lines; the exit code is 2 if there is one.

    Example: hsi-batch check workflows/quickstart.yaml workflows/pipelines/*.yaml
    """
    from hsi_batch.checking import check_file

    found = [check_file(path, None if kind is None else kind.value) for path in files]
    if as_json:
        typer.echo(json.dumps({"files": [each.to_dict() for each in found]}, indent=2))
    else:
        for each in found:
            if not (quiet and each.good):
                typer.echo(str(each))
    if not all(each.good for each in found):
        raise typer.Exit(_WRONG)


def schema(
    kind: Annotated[FileKind, typer.Argument(metavar="pipeline|workflow|cluster|trainrun")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the JSON Schema of a kind of file, for editors that complete and check.

    Example: hsi-batch schema pipeline > pipeline.schema.json
    """
    from hsi_batch.checking import schema as schema_of

    del as_json
    if not quiet:
        typer.echo(json.dumps(schema_of(kind.value), indent=2))
