"""White and dark references, recognised by the names that camera software gives them."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["reference_reason"]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_KINDS = ("white", "dark", "whitedark")
_REFERENCE_WORDS = {
    **{kind + "ref": kind for kind in _KINDS},
    **{kind + "reference": kind for kind in _KINDS},
}
# What may follow "white" or "dark" in the name of a reference.
_FOLLOWERS = {"ref", "reference", "references", "cal", "calib", "calibration", "current", "frame"}
_FOLLOWERS |= {"panel", "tile", "target", "board", "standard", "noise"}
# Words that only number or date a file.
_TRAILERS = {"before", "after", "start", "end", "pre", "post", "raw"}


def reference_reason(stem: str) -> str | None:
    """Why a file name means a white or dark reference, or None if it does not.

    The name is taken apart into words, so that ``whitefish_01``, ``white_rice_03`` and
    ``dark_chocolate`` are scenes: ``white`` and ``dark`` count only as the last word (numbers and
    dates aside) or before a word such as ``reference``, ``panel`` or ``calibration``.

    Parameters
    ----------
    stem : str
        File name without its suffix.

    Examples
    --------
    >>> reference_reason("WHITEREF_2021-05-04_003")
    'a white reference by its name (rename it if it is a scene)'
    >>> reference_reason("darkReference") is None, reference_reason("whitefish_01") is None
    (False, True)
    """
    words = [word.lower() for word in _WORD.findall(stem)]
    kind = next((_REFERENCE_WORDS[word] for word in words if word in _REFERENCE_WORDS), None)
    if kind is None:
        kind = next((a for a, b in pairwise(words) if a in _KINDS and b in _FOLLOWERS), None)
    if kind is None:
        names = [w for w in words if not w.isdigit() and len(w) > 1 and w not in _TRAILERS]
        kind = names[-1] if names and names[-1] in _KINDS else None
    if kind is None:
        return None
    kind = "white and dark" if kind == "whitedark" else kind
    return f"a {kind} reference by its name (rename it if it is a scene)"
