"""``ls``, ``show``, ``verify``, ``rm``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsi_batch.cli.options import Cluster, Json, Quiet, Workers, client_of, show
from hsi_batch.cli.progress import observing
from hsi_batch.cli.scores import list_scores, show_scores
from hsi_batch.cli.tables import facts, none, table, text

if TYPE_CHECKING:
    from hsi_batch.archive.session import Session
    from hsi_batch.errors import HsiBatchError
    from hsi_batch.places import Place

__all__ = ["register"]

_LS = {
    "session": "session",
    "frames": "frames",
    "lines": "lines",
    "samples": "samples",
    "bands": "bands",
    "dtype": "dtype",
    "quantity": "quantity",
    "sensor": "sensor",
    "megabytes": "MB",
    "flagged": "flagged",
    "labelled_frames": "labelled",
    "failed_frames": "failed",
}
_CHANNELS_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("ls")(ls)
    app.command("show")(show_store)
    app.command("verify")(verify)
    app.command("rm")(rm)


def ls(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the sessions of an archive, or of scores.

    Example: hsi-batch ls archive.zarr
    """
    from hsi_batch.archive import open_archive
    from hsi_batch.archive.store import holds_scores

    if holds_scores(store):
        list_scores(store, as_json=as_json, quiet=quiet)
        return
    archive = open_archive(store)
    rows = archive.catalog.to_dict("records")
    if as_json:
        clean = [{str(k): none(v) for k, v in row.items()} for row in rows]
        typer.echo(json.dumps({"sessions": clean, "incomplete": archive.incomplete}, indent=2))
        return
    if quiet:
        return
    shown = [c for c in _LS if any(none(row.get(c)) not in (None, 0) for row in rows)]
    cells = [[text(row.get(column)) for column in shown] for row in rows]
    table(str(archive).splitlines()[0].strip("<>"), [_LS[c] for c in shown], cells)
    if archive.incomplete:
        names = ", ".join(archive.incomplete)
        typer.echo(f"not finished: {names}; run the same convert command again", err=True)


def show_store(
    store: Annotated[Path, typer.Argument(metavar="STORE[/SESSION]")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a store, or one session: flags, labels, source, spectra; of scores their quantiles.

    Example: hsi-batch show archive.zarr/lentils_000
    """
    from hsi_batch.archive import open_archive
    from hsi_batch.archive.remove import split_path
    from hsi_batch.archive.store import holds_scores

    path, name = split_path(store)
    if holds_scores(path):
        if name is None:
            list_scores(path, as_json=as_json, quiet=quiet, details=True)
        else:
            show_scores(path, name, as_json=as_json, quiet=quiet)
        return
    archive = open_archive(path)
    if name is None:
        if as_json:
            ls(Path(str(path)), as_json=True)
        elif not quiet:
            typer.echo(repr(archive))
        return
    if name not in archive:
        raise _no_session(path, name, archive)
    session = archive.session(name)
    known = {**_facts(session), **_columns(session)}
    spectra = _spectra(session)
    if as_json:
        typer.echo(json.dumps({**known, "spectra": spectra}, indent=2, default=str))
        return
    if quiet:
        return
    typer.echo(f"session {name} of {path}")
    facts(known)
    if spectra:
        step = max(1, len(spectra) // _CHANNELS_SHOWN)
        rows = [[text(v) for v in row.values()] for row in spectra[::step]]
        title = f"spectra over all valid pixels (every {step}. channel)"
        table(title, list(spectra[0]), rows)


def _no_session(path: Place, name: str, known: Iterable[str]) -> HsiBatchError:
    from hsi_batch.errors import ConfigError, did_you_mean

    return ConfigError(
        f"there is no session {name!r}.{did_you_mean(name, list(known))}",
        path=str(path),
        hint="See the sessions with hsi-batch ls.",
    )


def _facts(session: Session) -> dict[str, Any]:
    attrs, geometry = session.attrs, session.geometry
    height, width, channels = geometry.shape
    pixels = geometry.frames * height * width
    flags = {
        name: f"{count} ({100 * count / pixels:.2f} %)"
        for name, count in attrs.get("flags", {}).items()
    }
    wavelength = session.wavelength
    source = attrs.get("source", {})
    return {
        "frames": geometry.frames,
        "size": f"{height} lines x {width} samples x {channels} bands, {geometry.dtype}",
        "blocks": f"{geometry.blocks} of {geometry.lines} lines",
        "wavelengths": None
        if wavelength is None
        else f"{wavelength[0]:g} .. {wavelength[-1]:g} nm",
        "bad bands": None if session.good_band is None else int((~session.good_band).sum()),
        "sensor": attrs.get("sensor"),
        "quantity": attrs.get("quantity"),
        "scale": attrs.get("scale"),
        "processing mode": attrs.get("processing_mode"),
        "nodata": attrs.get("nodata"),
        "saturation": attrs.get("saturation"),
        "flags": flags,
        "labelled frames": attrs.get("labelled_frames"),
        "annotation": attrs.get("annotation"),
        "failed frames": session.failed_frames,
        "on the ground": _placed(attrs),
        "source": source.get("path"),
        "sha256": source.get("sha256"),
        "reader": f"{attrs.get('reader')} {attrs.get('reader_version')}",
    }


def _placed(attrs: Mapping[str, Any]) -> str:
    """What says where the session is on the ground."""
    known = attrs.get("positions") or {}
    parts = ["map"] if attrs.get("geography") else []
    if known.get("igm"):
        parts.append("longitude and latitude of pixels (IGM)")
    if known.get("gps"):
        lacking = int(known.get("lines_without", 0))
        without = f", {lacking} lines without" if lacking else ""
        parts.append(f"positions of lines (GPS{without})")
    return "; ".join(parts) or "nothing says where"


def _columns(session: Session) -> dict[str, Any]:
    """What stands out among the columns, from the stored statistics."""
    from hsi_batch.archive.stored import stored_columns
    from hsi_batch.statistics.striping import striping

    columns = stored_columns(session)
    found = None if columns is None else striping(columns, session.good_band)
    if found is None:
        return {}
    told: dict[str, Any] = {"columns": str(found)}
    broken = sorted({*found.dead, *found.hot, *found.weak})
    if broken:
        from hsi_batch.nodes.view import spans

        told["advice"] = (
            f"leave columns out with convert --replace --dead-columns {spans(broken)}, or make"
            " them alike with the node Destripe"
        )
    return told


def _spectra(session: Session) -> list[dict[str, Any]]:
    """Mean, deviation and extrema per channel from the stored statistics."""
    import numpy as np

    from hsi_batch.archive.selection import select
    from hsi_batch.archive.stored import has_statistics, stored_statistic

    geometry = session.geometry
    sessions = {session.name: session}
    chosen = select(
        None,
        {session.name: (geometry.frames, geometry.shape[0])},
        failed={session.name: tuple(session.failed_frames)},
    )
    if not all(has_statistics(sessions, chosen, k, "valid") for k in ("moments", "extrema")):
        return []
    moments = stored_statistic(sessions, chosen, "moments", "valid")
    extrema = stored_statistic(sessions, chosen, "extrema", "valid")
    if moments is None or moments.count < 2:
        return []
    deviation = np.sqrt(moments.variance())
    wavelength = session.wavelength
    return [
        {
            "channel": channel,
            **({} if wavelength is None else {"nm": float(wavelength[channel])}),
            "mean": float(moments.mean[channel]),
            "std": float(deviation[channel]),
            "min": extrema.low[channel].item(),
            "max": extrema.high[channel].item(),
        }
        for channel in range(geometry.shape[2])
    ]


def verify(
    store: Annotated[Path, typer.Argument(metavar="STORE|FITTED.yaml")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every file and compare checksums.")
    ] = False,
    cluster: Cluster = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that a store is complete, and with --deep that nothing in it is damaged.

    Of a fitted pipeline, that the YAML and its weights are those that the fit wrote.

    Example: hsi-batch verify archive.zarr --deep
    """
    from hsi_batch.stages.verify import verify as run_verify
    from hsi_batch.stages.verify import verify_pipeline

    if store.suffix.lower() in (".yaml", ".yml") and store.is_file():
        result = verify_pipeline(store)
        show(result, as_json=as_json, quiet=quiet)
        raise typer.Exit(0 if result.sound else 3)
    with client_of(cluster, workers) as client, observing(quiet=quiet or as_json) as observer:
        result = run_verify(store, deep=deep, client=client, workers=workers, observer=observer)
    show(result, as_json=as_json, quiet=quiet)
    if not result.sound:
        raise typer.Exit(3)


def rm(
    session: Annotated[Path, typer.Argument(metavar="STORE/SESSION")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove a session from an archive.

    Example: hsi-batch rm archive.zarr/lentils_000
    """
    from hsi_batch.archive import open_archive
    from hsi_batch.archive.remove import remove_session, split_path
    from hsi_batch.errors import ConfigError

    path, name = split_path(session)
    if name is None:
        open_archive(path)
        raise ConfigError(
            "this is a store, not a session.", path=str(path), hint="Write STORE/SESSION."
        )
    remove_session(path, name)
    if as_json:
        typer.echo(json.dumps({"store": str(path), "removed": name}))
    elif not quiet:
        typer.echo(f"removed session {name} from {path}")
