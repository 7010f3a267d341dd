"""A session as people see it, in a terminal and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsi_batch.markup import card, table
from hsi_batch.wording import sized

if TYPE_CHECKING:
    from hsi_batch.archive.session import Session

__all__ = ["session_card", "session_text"]


def session_text(session: Session) -> str:
    """A few lines."""
    lines = [f"  {name}: {value}" for name, value in _facts(session).items()]
    state = "" if session.complete else ", not finished"
    return "\n".join([f"<hsi_batch.Session {session.name}{state}>", *lines])


def session_card(session: Session) -> str:
    """A card of HTML."""
    state = "" if session.complete else " (not finished)"
    failed = [(f"frame {frame}", why) for frame, why in session.failed_frames.items()]
    return card(
        "Session",
        session.name + state,
        table(_facts(session).items()),
        table(failed, ("failed", "why")),
    )


def _facts(session: Session) -> dict[str, object]:
    geometry, nm, bad = session.geometry, session.wavelength, session.good_band
    height, width, channels = geometry.shape
    known = {
        "frames": geometry.frames,
        "size": f"{height} lines x {width} samples x {channels} bands, {geometry.dtype}",
        "blocks": f"{geometry.blocks} of {geometry.lines} lines,"
        f" {sized(geometry.frames * geometry.frame_bytes)}",
        "wavelengths": None if nm is None else f"{nm[0]:g} .. {nm[-1]:g} nm",
        "bad bands": None if bad is None else int((~bad).sum()) or None,
        **{name: session.attrs.get(name) for name in ("sensor", "quantity")},
        "flagged pixels": session.attrs.get("flagged_pixels") or None,
        "labelled frames": session.attrs.get("labelled_frames") or None,
        "masks": ", ".join(session.masks) or None,
        "failed frames": len(session.failed_frames) or None,
        "source": dict(session.attrs.get("source") or {}).get("path"),
    }
    return {name: value for name, value in known.items() if value is not None}
