"""Words for people."""

from __future__ import annotations

__all__ = ["counted", "sized"]


def counted(count: int, noun: str) -> str:
    """A number and its noun, in the plural where there is not one.

    Examples
    --------
    >>> counted(1, "pass"), counted(2, "pass"), counted(0, "block")
    ('1 pass', '2 passes', '0 blocks')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


def sized(count: float) -> str:
    """Bytes with a unit.

    Examples
    --------
    >>> sized(512), sized(5_529_600), sized(2e9)
    ('0.5 kB', '5.5 MB', '2.00 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
