"""What commands say of plans and of failures."""

from __future__ import annotations

from typing import Any

import typer

from hsi_batch.cli.options import show
from hsi_batch.wording import printable

__all__ = ["list_failures", "plan_or_json"]


def plan_or_json(text: str, plan: Any, *, as_json: bool, quiet: bool) -> None:
    """Print a plan, for people or for machines."""
    if as_json:
        show(plan, as_json=True, quiet=quiet)
    elif not quiet:
        typer.echo(text)


def list_failures(result: Any) -> None:
    """List what failed, with reasons, on stderr."""
    failures = list(getattr(result, "failures", ()))
    earlier = list(getattr(result, "earlier", ()))
    for path, reason in getattr(result, "broken", ()):
        known = reason if path in reason else f"{path}: {reason}"
        typer.echo(printable(f"failed: {known}"), err=True)
    _changed(result)
    for failure in failures[:20]:
        typer.echo(printable(f"failed: {failure.key}: {failure.reason}"), err=True)
    for failure in earlier[:20]:
        text = f"failed in an earlier run: {failure.key}: {failure.reason}"
        typer.echo(printable(text), err=True)
    more = max(len(failures) - 20, 0) + max(len(earlier) - 20, 0)
    if more:
        typer.echo(f"failed: and {more} more; see the records", err=True)
    if earlier:
        typer.echo("Try them again with --only-failed.", err=True)


def _changed(result: Any) -> None:
    """List sessions whose sources changed, on stderr."""
    changed = set(getattr(result, "changed", ()))
    for planned in result.plan.sessions if changed else ():
        if planned.name in changed:
            typer.echo(
                f"changed: session {planned.name}: {planned.why}; the archive keeps what it has."
                " Use --replace to convert it again.",
                err=True,
            )
