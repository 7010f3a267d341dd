"""Versions of the labels of a session: added beside each other, one of them in force.

The first version is the array ``label``, later ones are ``label_v2`` and so on; none is ever
written over. The attribute ``labels`` says which one holds (``current``) and what each was made
from (``versions``). It is written last, in one piece: a run that is killed before leaves the
version that was in force. Sessions without the attribute have the labels of their conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zarr

from hsi_batch.archive.session import Session, label_array
from hsi_batch.archive.storage import preset_of
from hsi_batch.archive.store import create_array
from hsi_batch.errors import ConfigError

__all__ = ["begin_version", "enforce", "label_stamp", "label_versions", "next_version"]


def label_versions(session: Session) -> dict[int, dict[str, Any]]:
    """What each version was made from, by number; empty for a session without labels.

    Examples
    --------
    >>> from hsi_batch.archive.layout import Geometry
    >>> from hsi_batch.archive.outline import Outline
    >>> attrs = {"labels": {"current": 2, "versions": {"1": {"from": "a.json"}, "2": {}}}}
    >>> held = Outline(Geometry(1, (2, 2, 3), "uint8", 2), attrs, frozenset({"label"}))
    >>> sorted(label_versions(Session("a", outline=held)))
    [1, 2]
    """
    told: Any = session.attrs.get("labels")
    if told is not None:
        return {int(number): dict(entry) for number, entry in sorted(told["versions"].items())}
    if not session.holds(label_array(1)):
        return {}
    return {
        1: {
            "from": session.attrs.get("annotation"),
            "by": "convert",
            "labelled_frames": session.attrs.get("labelled_frames"),
        }
    }


def label_stamp(session: Session) -> str | None:
    """What results that depend on labels remember; None for those of the conversion.

    What those were made from is in the digest of the session.
    """
    told: Any = session.attrs.get("labels")
    if not told or not told.get("current"):
        return None
    current = str(told["current"])
    entry = told["versions"].get(current, {})
    return None if entry.get("by") == "convert" else f"{current}:{entry.get('digest')}"


def next_version(session: Session) -> int:
    """Number of the version that would be added."""
    return max(label_versions(session), default=0) + 1


def begin_version(
    group: zarr.Group, session: Session, classes: Mapping[int, str]
) -> tuple[int, zarr.Array[Any]]:
    """Make the array of a new version, all unlabelled; it holds once :func:`enforce` says so.

    Parameters
    ----------
    group : zarr.Group
        Of the session, plain and writable.
    session : Session
    classes : mapping of int to str
        Names of the classes.
    """
    geometry, number = session.geometry, next_version(session)
    height, width, _ = geometry.shape
    if number == 1:
        # An array `label` alone would be taken for labels of the conversion.
        group.attrs["labels"] = {"current": 0, "versions": {}}
    together = session.shard
    array = create_array(
        group,
        label_array(number),
        shape=(geometry.frames, height, width),
        chunks=(1, geometry.lines, width),
        preset=preset_of(session.attrs.get("preset")),
        shards=together and (*together, 1),
        dtype="int16",
        dims=("frame", "y", "x"),
        fill=-1,
        attrs={"classes": {str(k): v for k, v in classes.items()}, "unlabelled": -1},
    )
    return number, array


def enforce(
    group: zarr.Group, session: Session, number: int, entry: Mapping[str, Any] | None = None
) -> None:
    """Let a version hold from now on.

    Parameters
    ----------
    group : zarr.Group
        Of the session, plain and writable.
    session : Session
        As it was before.
    number : int
    entry : mapping, optional
        What a new version was made from.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no such version.
    """
    versions = label_versions(session)
    if entry is not None:
        versions[number] = dict(entry)
    if number not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise ConfigError(
            f"session {session.name} has no version {number} of labels; there are: {known}.",
            hint="See them with hsi-batch label STORE --list.",
        )
    group.update_attributes(
        {
            "labelled_frames": int(versions[number].get("labelled_frames") or 0),
            "labels": {"current": number, "versions": {str(k): v for k, v in versions.items()}},
        }
    )
