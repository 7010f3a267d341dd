"""What a pipeline has seen of the sessions that its scores are measured on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.session import Session
from hsi_batch.errors import ConfigError, HsiBatchError
from hsi_batch.pipeline.groups import group_of
from hsi_batch.stages.backgrounds import groups_of_sessions
from hsi_batch.stages.moved import archive_of

__all__ = ["check_split", "fitted_sessions", "own_thresholds", "parts_of_split"]

#: Deciders that take a quantile of the frame that they decide on.
_OWN = ("QuantileBinaryDecider", "TwoStageBinaryDecider")


def check_split(split: str) -> None:
    """Refuse what names no split.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is none of ``session``, ``sensor`` and ``attr:NAME``.
    """
    if split in ("session", "sensor") or split.removeprefix("attr:").strip() not in ("", split):
        return
    raise ConfigError(
        f"split {split!r} is not one of session, sensor, attr:NAME.",
        hint="Write for example attr:lot for the attribute `lot` of the sessions.",
    )


def fitted_sessions(fit: Mapping[str, Any], archive: Archive) -> set[str]:
    """Sessions of an archive that a pipeline was fitted on, whole or in part.

    Those of the same archive are known by name, those of another one by the path of their source.

    Parameters
    ----------
    fit : mapping
        Provenance of the pipeline.
    archive : Archive
    """
    named = set(fit.get("inputs") or ())
    sources = set(fit.get("sources") or ())
    same = archive_of(fit)
    if same is not None and same.path.absolute() == archive.path.absolute():
        if int(fit.get("sessions") or 0) > len(named):
            # Of thousands only the first are written down; the selection names them all.
            with contextlib.suppress(HsiBatchError):
                named |= set(archive.select(str(fit.get("selection") or "") or None).sessions)
    else:
        named = set()
    if not sources:
        return named & set(archive)
    paths = {row["session"]: row.get("source") for row in archive.catalog.to_dict("records")}
    return {str(n) for n, path in paths.items() if n in named or str(path) in sources}


def parts_of_split(
    split: str, sessions: Mapping[str, Session], archive: Archive, trained: Iterable[str]
) -> dict[str, Literal["train", "test"]]:
    """Whether each session is of a unit that the fit has seen.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Sessions that lack the attribute.
    """
    units = groups_of_sessions(split, sessions)
    held = archive.sessions(trained)
    seen = {group_of(split, name, session.attrs) for name, session in held.items()}
    return {name: "train" if unit in seen else "test" for name, unit in units.items()}


def own_thresholds(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """Nodes of the pipeline behind scores that take thresholds from what they decide on."""
    return tuple(
        str(node.get("name"))
        for node in (attrs.get("pipeline") or {}).get("nodes", ())
        if str(node.get("class_name", "")).rpartition(".")[2] in _OWN
    )
