"""What a check of a store found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hsi_batch.archive.layout import BlockKey

__all__ = ["Damage", "VerifyResult"]


@dataclass(frozen=True)
class Damage:
    """Something that is not as it should be.

    Attributes
    ----------
    place : str
        Session, or block; empty for the store as a whole, or its run state.
    problem : str
    kind : {"block", "session", "metadata", "foreign", "state", "stale"}
        What must be mended: the block, all of the session, metadata, a file that is taken away, the
        run state; ``stale``: nothing is damaged, but other data or another pipeline was used.
    key : BlockKey, optional
        Of a block.
    file : str
        What does not belong there, relative to the store.
    """

    place: str
    problem: str
    kind: Literal["block", "session", "metadata", "foreign", "state", "stale"] = "session"
    key: BlockKey | None = field(default=None, repr=False)
    file: str = field(default="", repr=False)


@dataclass(frozen=True)
class VerifyResult:
    """What a check found.

    Attributes
    ----------
    store : str
    deep : bool
        Whether every chunk was decoded.
    sessions, blocks : int
        Looked at.
    damages : tuple of Damage
    seconds : float
    store_checked : bool
        False of a fitted pipeline.
    notes : tuple of str
        What could not be checked, and is no damage.
    """

    store: str
    deep: bool
    sessions: int
    blocks: int
    damages: tuple[Damage, ...]
    seconds: float
    store_checked: bool = True
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages

    def __str__(self) -> str:
        if not self.store_checked:
            if self.sound:
                vouched = "the YAML and its weights vouch for each other"
                return f"sound: {next(iter(self.notes), vouched)}; {self.seconds:.1f} s"
            return "\n".join(
                ["damaged:", *(f"  {d.place}: {d.problem}" for d in self.damages), "Fit it again."]
            )
        how = "decoded and compared with their checksums" if self.deep else "are present"
        head = f"{self.sessions} sessions, {self.blocks} blocks {how}; {self.seconds:.1f} s"
        if self.sound:
            return "\n".join([f"sound: {head}", *self.notes])
        shown = [f"  {d.place or 'store'}: {d.problem}" for d in self.damages[:50]]
        more = len(self.damages) - len(shown)
        if more > 0:
            shown.append(f"  and {more} more")
        return "\n".join(
            [
                f"damaged: {head}; {len(self.damages)} problems",
                *shown,
                *self.notes,
                f"Mend it with: hsi-batch repair {self.store}",
            ]
        )
