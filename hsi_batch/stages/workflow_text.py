"""The workflow that a stage runs for, kept with what the stage makes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import zarr

from hsi_batch.archive.session import Session
from hsi_batch.files import digest_of

__all__ = ["running", "workflow_told", "workflow_written", "workflows_of"]

#: Attribute of archives: workflows by digest.
_WORKFLOWS = "workflows"

_workflow: ContextVar[dict[str, Any] | None] = ContextVar("workflow", default=None)


@contextmanager
def running(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Iterator[None]:
    """Stages that run inside remember this workflow: its text, and the settings that win over it.

    Variables of the environment stay as they are written; what they hold may be secret.
    """
    file = Path(path)
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    token = _workflow.set({"path": str(file.absolute()), "text": text, "set": list(overrides)})
    try:
        yield
    finally:
        _workflow.reset(token)


def workflow_told() -> dict[str, Any]:
    """``{"workflow": ...}`` within :func:`running`, else nothing.

    Examples
    --------
    >>> workflow_told()
    {}
    >>> with running("rx.yaml", ["fit.pixels=valid"]):
    ...     workflow_told()["workflow"]["set"]
    ['fit.pixels=valid']
    """
    held = _workflow.get()
    return {} if held is None else {"workflow": held}


def workflow_written(root: zarr.Group) -> dict[str, str]:
    """Keep the workflow that runs in the metadata of an archive, once for all its sessions.

    Returns
    -------
    dict
        Attributes of a session that name it; none outside of :func:`running`.
    """
    held = _workflow.get()
    if held is None:
        return {}
    name = digest_of(json.dumps(held, sort_keys=True).encode())[:16]
    known: Any = root.attrs.get(_WORKFLOWS, {})
    if name not in known:
        root.attrs[_WORKFLOWS] = {**known, name: held}
    return {"workflow": name}


def workflows_of(root: zarr.Group, sessions: Iterable[Session]) -> dict[str, dict[str, Any]]:
    """The workflows that sessions of an archive were converted for, by digest."""
    known: Any = root.attrs.get(_WORKFLOWS, {})
    named = {str(session.attrs.get("workflow")) for session in sessions}
    return {name: known[name] for name in sorted(named & known.keys())}
