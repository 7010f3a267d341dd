"""``ls`` and ``show`` of stores of scores."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import typer

from hsi_batch.cli.tables import facts, table, text

if TYPE_CHECKING:
    from hsi_batch.places import Place
    from hsi_batch.stages.score_listing import ScoredSession

__all__ = ["list_scores", "show_scores"]

_ROW = {
    "frame": "frame",
    "valid": "valid",
    "score_p50": "50 %",
    "score_p95": "95 %",
    "score_p99": "99 %",
    "score_p999": "99.9 %",
    "score_max": "highest",
    "flagged": "flagged",
    "auc": "AUC",
}
_FRAMES_SHOWN = 40


def list_scores(store: Place, *, as_json: bool, quiet: bool, details: bool = False) -> None:
    """List the sessions of a store of scores; with ``details`` how they were made as well."""
    from hsi_batch.stages.score_listing import list_scores as read

    listing = read(store)
    if as_json:
        typer.echo(json.dumps(_strict(listing.to_dict()), indent=2))
        return
    if quiet:
        return
    if details:
        typer.echo(str(listing))
        facts(listing.facts)
    cells = [_cells(session) for session in listing.sessions]
    columns = [c for c in cells[0] if any(row[c] is not None for row in cells)] if cells else []
    rows = [[text(row[column]) for column in columns] for row in cells]
    table("" if details else str(listing), columns, rows)
    if not details:
        typer.echo(f"{listing.facts['outputs']} of {listing.pipeline}, {listing.facts['made by']}")
    if listing.incomplete:
        names = ", ".join(listing.incomplete)
        typer.echo(f"not finished: {names}; run the same score command again", err=True)


def _cells(session: ScoredSession) -> dict[str, Any]:
    return {
        "session": session.name,
        "frames": session.frames,
        "scored": session.scored,
        "lines": session.lines,
        "samples": session.samples,
        "outputs": ", ".join(session.outputs),
        "highest": session.highest,
        "flagged": session.flagged,
        "failed": len(session.failed) or None,
        "complete": "yes" if session.complete else "no",
        "scored with": "another pipeline or outputs" if session.stale else None,
    }


def show_scores(store: Place, name: str, *, as_json: bool, quiet: bool) -> None:
    """Show one session of a store of scores: its maps, failures, and quantiles per frame."""
    from hsi_batch.stages.score_listing import list_scores as read

    session = read(store).session(name)
    if as_json:
        typer.echo(json.dumps(_strict(session.to_dict()), indent=2))
        return
    if quiet:
        return
    typer.echo(f"session {name} of {store}")
    facts(
        {
            **{
                output: f"{'x'.join(map(str, about['shape']))} {about['dtype']} ({about['port']})"
                for output, about in session.outputs.items()
            },
            "complete": "yes" if session.complete else "no",
            "scored with": "another pipeline or outputs" if session.stale else None,
            "failed frames": dict(session.failed),
            "source": session.source,
        }
    )
    if session.rows:
        columns = [c for c in _ROW if any(row.get(c) is not None for row in session.rows)]
        shown = session.rows[:_FRAMES_SHOWN]
        rows = [[text(row.get(column)) for column in columns] for row in shown]
        more = len(session.rows) - len(shown)
        title = f"scores per frame (the first {len(shown)})" if more else "scores per frame"
        table(title, [_ROW[column] for column in columns], rows)


def _strict(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, dict):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
