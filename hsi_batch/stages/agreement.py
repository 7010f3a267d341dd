"""Whether sessions may be put into one fit."""

from __future__ import annotations

from collections.abc import Mapping

from hsi_batch.archive.session import Session
from hsi_batch.errors import PlanError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline.channels import differ
from hsi_batch.statistics.moments import is_exact

__all__ = ["axis_of", "common_axis"]


#: Names of sessions that people would type.
_TYPED = 6


def axis_of(session: Session) -> ChannelAxis:
    """Channel axis of a session."""
    return ChannelAxis(session.geometry.shape[2], session.wavelength)


def common_axis(sessions: Mapping[str, Session]) -> ChannelAxis:
    """The channel axis that all sessions share.

    Raises
    ------
    hsi_batch.errors.PlanError
        Sessions differ in the number of channels, in wavelengths, in what their numbers are
        (quantity, scale), or mix integers with floats; the message groups them.
    """
    groups: list[tuple[Session, list[str], str]] = []
    for name, session in sessions.items():
        for first, names, _ in groups:
            if _difference(first, session) is None:
                names.append(name)
                break
        else:
            why = _difference(groups[0][0], session) if groups else ""
            groups.append((session, [name], why or ""))
    if len(groups) == 1:
        return axis_of(groups[0][0])
    described = "; ".join(f"{_shown(names)} ({_what(session)})" for session, names, _ in groups[:6])
    raise PlanError(
        f"the selected sessions cannot be put into one fit: {groups[1][2]}. Groups that agree:"
        f" {described}.",
        hint=f"Select one group, for example --frames {_selection(groups[0][1])}.",
    )


def _difference(a: Session, b: Session) -> str | None:
    why = differ(axis_of(a), axis_of(b))
    if why is not None:
        return f"{a.name} and {b.name}: {why}"
    for key in ("quantity", "scale", "offset"):
        if a.attrs.get(key) != b.attrs.get(key):
            return (
                f"{a.name} and {b.name} differ in {key} ({a.attrs.get(key)} against"
                f" {b.attrs.get(key)})"
            )
    if is_exact(a.geometry.dtype) != is_exact(b.geometry.dtype):
        return f"{a.name} holds {a.geometry.dtype} and {b.name} holds {b.geometry.dtype} values"
    return None


def _what(session: Session) -> str:
    axis = axis_of(session)
    parts = [f"{axis.size} channels", session.geometry.dtype]
    if axis.wavelength is not None:
        parts.append(f"{axis.wavelength[0]:g}..{axis.wavelength[-1]:g} nm")
    parts.extend(
        str(session.attrs[key]) for key in ("sensor", "quantity") if session.attrs.get(key)
    )
    return ", ".join(parts)


def _selection(names: list[str]) -> str:
    """What selects these sessions, as people would type it."""
    text = ",".join(names[:_TYPED])
    return text if len(names) <= _TYPED else f"@group.txt (a file of its {len(names)} names)"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
