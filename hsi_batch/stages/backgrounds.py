"""Which session has which background."""

from __future__ import annotations

from collections.abc import Mapping

from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import Session
from hsi_batch.errors import ConfigError, did_you_mean
from hsi_batch.pipeline.groups import ARCHIVE, POOLED, Groups, attributes, group_of
from hsi_batch.wording import some

__all__ = ["groups_of_sessions", "parts_of", "states_of"]


def groups_of_sessions(by: str, sessions: Mapping[str, Session]) -> dict[str, str]:
    """The group of each session.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Sessions that lack the attribute; all are named, and the attributes that there are.
    """
    found: dict[str, str] = {}
    lacking = []
    for name, session in sessions.items():
        group = group_of(by, name, session.attrs)
        if group is None:
            lacking.append(name)
        else:
            found[name] = group
    if lacking:
        wanted = by.removeprefix("attr:")
        there = sorted({key for session in sessions.values() for key in attributes(session.attrs)})
        raise ConfigError(
            f"background {by!r}: {some(lacking)} of {len(sessions)} sessions state no"
            f" {wanted!r}.{did_you_mean(wanted, there)}",
            hint=f"Attributes of the sessions are {', '.join(there) or 'none'}.",
        )
    return found


def parts_of(
    by: str, fallback: str | None, selection: Selection, sessions: Mapping[str, Session]
) -> dict[str, Selection]:
    """The frames that each background is fitted from, ``""`` being that of everything.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Sessions without the attribute, or a fallback that is no group.
    """
    if by == ARCHIVE:
        return {POOLED: selection}
    members: dict[str, list[str]] = {}
    for session, group in groups_of_sessions(by, sessions).items():
        members.setdefault(group, []).append(session)
    if fallback == ARCHIVE and ARCHIVE in members:
        raise ConfigError(
            f"the fallback {ARCHIVE!r} is the background of all pixels, and also the name of a"
            f" group: {some(members[ARCHIVE])}.",
            hint="Name another fallback, or another background.",
        )
    if fallback not in (None, ARCHIVE, *members):
        assert fallback is not None
        raise ConfigError(
            f"the fallback {fallback!r} is no group; there are {some(list(members))}."
            f"{did_you_mean(fallback, members)}",
            hint="Name one of them, or archive for the background of all pixels.",
        )
    parts = {
        group: Selection(
            {name: selection.frames[name] for name in names},
            selection.whole & frozenset(names),
            selection.text,
        )
        for group, names in members.items()
    }
    return {POOLED: selection, **parts} if fallback == ARCHIVE else parts


def states_of(groups: Groups, sessions: Mapping[str, Session]) -> dict[str, str]:
    """The group whose state each session is scored with, ``""`` being that of everything.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Sessions without the attribute, or with a background that is not known; all are named.
    """
    found: dict[str, str] = {}
    unseen: dict[str, str] = {}
    for name, group in groups_of_sessions(groups.by, sessions).items():
        state = groups.find(group)
        if state is None:
            unseen[name] = group
        else:
            found[name] = state
    if unseen:
        word = "session" if len(unseen) == 1 else "sessions"
        raise groups.unseen(f"{word} {some(list(unseen))}", unseen.values())
    return found
