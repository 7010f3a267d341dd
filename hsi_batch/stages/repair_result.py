"""What a repair did."""

from __future__ import annotations

from dataclasses import dataclass

from hsi_batch.stages.verify_result import Damage

__all__ = ["RepairResult"]

_SHOWN = 50


@dataclass(frozen=True)
class RepairResult:
    """What a repair did, or would do.

    Attributes
    ----------
    store : str
    dry_run : bool
    found, left : tuple of Damage
        Before and after; after a dry run, the same.
    actions : tuple of str
    blocks : int
        Converted or scored again.
    hopeless : tuple of str
        What cannot be mended, and why.
    seconds : float
    """

    store: str
    dry_run: bool
    found: tuple[Damage, ...]
    left: tuple[Damage, ...]
    actions: tuple[str, ...] = ()
    blocks: int = 0
    hopeless: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.left

    def __str__(self) -> str:
        if not self.found and not self.actions:
            return f"sound: nothing to repair; {self.seconds:.1f} s"
        verb = "would" if self.dry_run else "did"
        lines = [f"{len(self.found)} problems; {verb}:"]
        lines += [f"  {action}" for action in self.actions[:_SHOWN]]
        if len(self.actions) > _SHOWN:
            lines.append(f"  and {len(self.actions) - _SHOWN} more")
        lines += [f"cannot be mended: {text}" for text in self.hopeless]
        if self.dry_run:
            return "\n".join(lines)
        if self.sound:
            return "\n".join([*lines, f"sound: {self.blocks} blocks redone; {self.seconds:.1f} s"])
        lines.append(f"still damaged ({len(self.left)} problems):")
        lines += [f"  {d.place or 'store'}: {d.problem}" for d in self.left[:_SHOWN]]
        return "\n".join(lines)
