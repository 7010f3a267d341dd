"""Whether sessions may be put into one fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hsi_batch.archive.session import Session
from hsi_batch.errors import ConfigError, PlanError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline.channels import TOLERANCE_NM, apart, differ, same_channel_nm
from hsi_batch.pipeline.groups import ARCHIVE
from hsi_batch.stages.backgrounds import groups_of_sessions
from hsi_batch.statistics.moments import is_exact

__all__ = ["agreed_axis", "axis_of", "check_tolerance", "common_axis", "spread"]


#: Names of sessions that people would type.
_TYPED = 6


def axis_of(session: Session) -> ChannelAxis:
    """Channel axis of a session."""
    columns = session.wavelength_map
    return ChannelAxis(session.geometry.shape[2], session.wavelength, columns)


def check_tolerance(tolerance: float | None) -> float:
    """The tolerance of wavelengths in nm, or its default.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is negative, or no number.
    """
    if tolerance is None:
        return TOLERANCE_NM
    if not 0 <= tolerance < float("inf"):
        raise ConfigError(f"wavelength tolerance {tolerance} nm must be 0 or more.")
    return max(float(tolerance), TOLERANCE_NM)


def agreed_axis(
    sessions: Mapping[str, Session], by: str = ARCHIVE, tolerance: float = TOLERANCE_NM
) -> ChannelAxis:
    """The channel axis that all sessions share, or those of each background by themselves.

    Sessions of one background must agree to the tolerance. Backgrounds may be of cameras of one
    kind: their channels may be a quarter of the smallest spacing apart.

    Raises
    ------
    hsi_batch.errors.PlanError
        As :func:`common_axis`.
    """
    if by == ARCHIVE:
        return common_axis(sessions, tolerance)
    members: dict[str, dict[str, Session]] = {}
    for name, group in groups_of_sessions(by, sessions).items():
        members.setdefault(group, {})[name] = sessions[name]
    for part in members.values():
        common_axis(part, tolerance)
    firsts = {name: part[name] for part in members.values() for name in list(part)[:1]}
    first = axis_of(next(iter(firsts.values())))
    return common_axis(firsts, max(tolerance, same_channel_nm(first)))


def spread(sessions: Mapping[str, Session]) -> float:
    """Nanometres between the channels of any session and those of the first, at most."""
    axes = [axis_of(session) for session in sessions.values()]
    return max((apart(axes[0], axis) for axis in axes[1:]), default=0.0)


def common_axis(sessions: Mapping[str, Session], tolerance: float = TOLERANCE_NM) -> ChannelAxis:
    """The channel axis that all sessions share.

    Raises
    ------
    hsi_batch.errors.PlanError
        Sessions differ in the number of channels, in wavelengths by more than the tolerance, in
        what their numbers are (quantity, scale), or mix integers with floats; the message groups
        them.
    """

    def same_sensor(a: Session, b: Session) -> str | None:
        why = differ(axis_of(a), axis_of(b), tolerance)
        return None if why is None else f"{a.name} and {b.name}: {why}"

    groups = _grouped(sessions, lambda a, b: same_sensor(a, b) or _difference(a, b))
    if len(groups) == 1:
        # A session that knows those of its columns speaks for the others of its sensor.
        mapped = (s for s in sessions.values() if s.wavelength_map is not None)
        return axis_of(next(mapped, groups[0][0]))
    described = "; ".join(f"{_shown(names)} ({_what(session)})" for session, names, _ in groups[:6])
    first = groups[0][0]
    raise PlanError(
        f"the selected sessions cannot be put into one fit: {groups[1][2]}. Groups that agree:"
        f" {described}.",
        hint=_ways_out(first, [group[0] for group in groups[1:]], groups[0][1], tolerance),
    )


def _grouped(
    sessions: Mapping[str, Session], difference: Callable[[Session, Session], str | None]
) -> list[tuple[Session, list[str], str]]:
    """The first of each group, names of all of it, and how it differs from the first group."""
    groups: list[tuple[Session, list[str], str]] = []
    for name, session in sessions.items():
        for first, names, _ in groups:
            if difference(first, session) is None:
                names.append(name)
                break
        else:
            why = difference(groups[0][0], session) if groups else ""
            groups.append((session, [name], why or ""))
    return groups


def _ways_out(first: Session, others: list[Session], names: list[str], tolerance: float) -> str:
    one = f"Select one group, for example --frames {_selection(names)}."
    axes = [axis_of(session) for session in (first, *others)]
    if any(_difference(first, other) for other in others) or len({a.size for a in axes}) > 1:
        return one
    far = max(apart(axes[0], axis) for axis in axes[1:])
    if far <= tolerance:
        return one
    sensors = len({str(s.attrs.get("sensor")) for s in (first, *others)}) == len(axes)
    ways = []
    if far <= same_channel_nm(axes[0]):
        by = "sensor" if sensors and first.attrs.get("sensor") else "session"
        ways.append(f"give each {by} its own background (--background {by})")
    ways.append(f"count them as equal (--wavelength-tolerance {far:.3g})")
    alone = f"fit each group by itself (--frames {_selection(names)})"
    ways.append(f"{alone}, behind SpectralResample if the results are to be on one grid")
    text = "; or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


def _difference(a: Session, b: Session) -> str | None:
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
