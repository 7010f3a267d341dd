"""Options that several commands share, and how results are shown."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsi_batch.cli.warned import hush
from hsi_batch.wording import printable

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Bands",
    "Cluster",
    "CropOption",
    "Dark",
    "DeadColumns",
    "DryRun",
    "ExcludeBands",
    "Force",
    "Frames",
    "Gps",
    "Igm",
    "Json",
    "MaxFailed",
    "OnlyFailed",
    "Panel",
    "QuantityOption",
    "Quiet",
    "RawValues",
    "Replace",
    "Roi",
    "Set",
    "WavelengthMap",
    "White",
    "Workers",
    "Yes",
    "asked",
    "client_of",
    "finish",
    "show",
]

Cluster = Annotated[
    Path | None, typer.Option("--cluster", metavar="FILE", help="Cluster YAML; local by default.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, metavar="N", help="Number of local workers.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Do everything again.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Convert sources again that changed since.")
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help="Do not ask before sessions are converted again that scores refer to."
    ),
]
OnlyFailed = Annotated[bool, typer.Option("--only-failed", help="Try again what failed before.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=hush, help="Print errors only.")]
Frames = Annotated[
    list[str] | None,
    typer.Option(
        "--frames",
        metavar="SEL",
        help="Selection: name, name[0:10], glob:PATTERN, where:'...', @file; !term takes away.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a setting of the file; repeatable."),
]
White = Annotated[
    str,
    typer.Option(
        "--white",
        metavar="sibling|none|FILE[:FRAME]",
        help="White reference; by default the one beside each scan, paired by its name.",
    ),
]
Dark = Annotated[
    str,
    typer.Option(
        "--dark",
        metavar="sibling|none|FILE[:FRAME]",
        help="Dark reference; with none, a dark signal of zero.",
    ),
]
Panel = Annotated[
    str | None,
    typer.Option(
        "--panel", metavar="FILE|VALUE", help="Reflectance of the white panel; 1 by default."
    ),
]
CropOption = Annotated[
    str | None,
    typer.Option("--crop", metavar="T,B,L,R", help="Lines and columns that are cut off."),
]
QuantityOption = Annotated[
    str | None,
    typer.Option(
        "--quantity",
        metavar="dn|reflectance|radiance",
        help="What the numbers are, where the sources do not say it.",
    ),
]
Roi = Annotated[
    str | None,
    typer.Option(
        "--roi",
        metavar="x0:x1|POLYGON",
        help="Flag what is outside: 100:900, x=100:900,y=0:50, 'polygon (x,y) (x,y) (x,y)'.",
    ),
]
DeadColumns = Annotated[
    str | None,
    typer.Option("--dead-columns", metavar="LIST", help="Flag these columns: 31,47,100-102."),
]
Igm = Annotated[
    str,
    typer.Option("--igm", metavar="sibling|none|FILE", help="Where pixels are: an ENVI IGM."),
]
Gps = Annotated[
    str,
    typer.Option("--gps", metavar="sibling|none|FILE", help="Where lines are: a table of fixes."),
]
WavelengthMap = Annotated[
    str | None,
    typer.Option(
        "--wavelength-map", metavar="FILE", help="Wavelengths in nm, a row for each column."
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        "--bands",
        metavar="good|all|RANGES",
        help="Bands that are used; by default all that are not marked as bad.",
    ),
]
ExcludeBands = Annotated[
    str | None,
    typer.Option(
        "--exclude-bands",
        metavar="RANGES|water|constant",
        help="Bands that are left out: 1350-1450,1800-1950nm, or channels 3,17,40-44.",
    ),
]
RawValues = Annotated[
    bool | None,
    typer.Option(
        "--raw-values/--physical-values",
        help="Nodes see stored values instead of stored x scale + offset.",
    ),
]
MaxFailed = Annotated[
    int, typer.Option("--max-failed", min=0, metavar="N", help="Failed frames that are accepted.")
]


@contextmanager
def client_of(cluster: Path | None, workers: int | None) -> Iterator[Client | None]:
    """The client that ``--cluster`` asks for; without it, stages start local workers on need."""
    if cluster is None:
        yield None
        return
    from hsi_batch.cluster import connect

    with connect(cluster, workers=workers) as client:
        yield client


def plain(value: Any) -> Any:
    """JSON values of results."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
        if hasattr(value, "failed") and "failed" not in found:
            found["failed"] = value.failed
        return found
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def show(result: Any, *, as_json: bool, quiet: bool) -> None:
    """Print a result to stdout."""
    if as_json:
        typer.echo(json.dumps(plain(result), indent=2))
    elif not quiet:
        typer.echo(printable(str(result)))


def asked(question: str) -> bool:
    """Ask on a terminal; elsewhere nobody answers."""
    from hsi_batch.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(question, hint="Add --yes to convert them all the same.")
    return typer.confirm(f"{printable(question)} Go on?", err=True)


def finish(result: Any, max_failed: int = 0) -> None:
    """Exit with 1 if more failed than is accepted."""
    if result is not None and result.failed > max_failed:
        raise typer.Exit(1)
