"""Selections of sessions, frames and lines, from the text that people type."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hsi_batch.archive.where import matches
from hsi_batch.errors import SelectionError, did_you_mean
from hsi_batch.readers.paths import natural_key

__all__ = ["Lines", "Selection", "select"]

#: Lines of a frame, or None for all of them.
Lines = tuple[int, int] | None

_TERM = re.compile(
    r"""^(?P<head>[^\[\]]+)
        (?:\[(?P<frames>[^\]=]*)\])?
        (?:\[y=(?P<y>[^\]]*)\])?$""",
    re.VERBOSE,
)
_NUMBER = r"\s*(-?[0-9]{1,18})?\s*"
_SLICE = re.compile(rf"^{_NUMBER}(?::{_NUMBER}(?::{_NUMBER})?)?$")
_MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Selection:
    """Frames of sessions, in order.

    Attributes
    ----------
    frames : mapping
        ``{session: {frame: lines}}`` with sessions in natural order and frames ascending; lines is
        None for whole frames.
    whole : frozenset of str
        Sessions all frames of which (that could be read) are selected whole.
    text : str
        As it was asked for.
    """

    frames: Mapping[str, Mapping[int, Lines]]
    whole: frozenset[str]
    text: str = ""

    def __iter__(self) -> Iterator[tuple[str, int, Lines]]:
        for session, frames in self.frames.items():
            for frame, lines in frames.items():
                yield session, frame, lines

    def __len__(self) -> int:
        return sum(len(frames) for frames in self.frames.values())

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions."""
        return tuple(self.frames)

    def place(
        self, session: str, frame: int, frames: int
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Place of a frame in the fixed tree over sessions and frames.

        Frames of a session that is selected whole are counted as in the session, so that stored
        rows that cover many frames fit; others by their position in the selection.
        """
        at = (self._rank[session], len(self.frames))
        if session in self.whole:
            return at, (frame, frames)
        return at, (self._positions[session][frame], len(self.frames[session]))

    @cached_property
    def _rank(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(self.frames)}

    @cached_property
    def _positions(self) -> Mapping[str, Mapping[int, int]]:
        return {s: {f: i for i, f in enumerate(fs)} for s, fs in self.frames.items()}


def select(
    text: str | Sequence[str] | None,
    sessions: Mapping[str, tuple[int, int]],
    *,
    failed: Mapping[str, Sequence[int]] | None = None,
    catalog: Mapping[str, Mapping[str, Any]] | None = None,
) -> Selection:
    """Resolve a selection.

    Terms are joined by commas: ``name``, ``name[3]``, ``name[0:10]``, ``name[0][y=0:5000]``,
    ``glob:lentils_*``, ``where:'sensor=="FX17"'``, ``@file.txt`` (one term per line); a term that
    begins with ``!`` takes away. If the first one takes away, it is from everything.

    Parameters
    ----------
    text : str or sequence of str, optional
        The terms; None selects everything.
    sessions : mapping
        Number of frames and of lines of each session.
    failed : mapping, optional
        Frames that could not be converted; they are left out.
    catalog : mapping, optional
        Row of each session, for ``where:``.

    Raises
    ------
    hsi_batch.errors.SelectionError
        A term that cannot be read, names a session that is not there, or matches nothing.

    Examples
    --------
    >>> chosen = select("glob:a*,!a2", {"a1": (2, 10), "a2": (2, 10), "b": (1, 10)})
    >>> chosen.sessions, len(chosen)
    (('a1',), 2)
    """
    texts = [text] if isinstance(text, str) else list(text or ())
    terms = [term for part in texts for term in _split(part)]
    bad = {name: set(frames) for name, frames in (failed or {}).items()}
    everything = {
        name: {f: None for f in range(frames) if f not in bad.get(name, ())}
        for name, (frames, _) in sessions.items()
    }
    resolver = _Resolver(sessions, catalog or {})
    chosen: dict[str, dict[int, Lines]] = {}
    if not terms or terms[0].startswith("!"):
        chosen = {name: dict(frames) for name, frames in everything.items()}
    for term in terms:
        taken = resolver.resolve(term.removeprefix("!").strip())
        for name, frames in taken.items():
            held = chosen.setdefault(name, {})
            for frame, lines in frames.items():
                if frame not in everything[name]:
                    continue
                height = sessions[name][1]
                span = lines or (0, height)
                if not term.startswith("!"):
                    parts = [held[frame] or (0, height), span] if frame in held else [span]
                    left = _joined(parts)
                elif frame in held:
                    left = _without(held.pop(frame) or (0, height), span)
                else:
                    continue
                if len(left) > 1:
                    runs = " and ".join(f"{start}:{stop}" for start, stop in left)
                    raise SelectionError(
                        f"with {term!r}, several runs of lines of frame {frame} of {name!r} would"
                        f" be selected ({runs}); a frame gives one run.",
                        hint="Select the runs one after the other, or whole frames.",
                    )
                if left:
                    held[frame] = None if left[0] == (0, height) else left[0]
    ordered = {
        name: dict(sorted(chosen[name].items()))
        for name in sorted(chosen, key=natural_key)
        if chosen[name]
    }
    if not ordered:
        raise SelectionError(
            f"the selection {','.join(terms) or 'of everything'!r} holds no frame.",
            hint="See the sessions with hsi-batch ls.",
        )
    whole = frozenset(
        name
        for name, frames in ordered.items()
        if frames.keys() == everything[name].keys() and all(v is None for v in frames.values())
    )
    return Selection(ordered, whole, ",".join(terms))


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Union of runs of lines, as few runs as can be."""
    runs: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(stop, runs[-1][1]))
        else:
            runs.append((start, stop))
    return runs


def _without(span: tuple[int, int], away: tuple[int, int]) -> list[tuple[int, int]]:
    """What is left of a run of lines when another is taken away."""
    left = [(span[0], min(span[1], away[0])), (max(span[0], away[1]), span[1])]
    return [(start, stop) for start, stop in left if start < stop]


def _split(text: str) -> list[str]:
    """Split at commas outside of quotes and brackets; read ``@file``."""
    terms: list[str] = []
    current, quote, depth = "", "", 0
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
        if letter == "," and not quote and depth <= 0:
            terms.append(current)
            current = ""
        else:
            current += letter
    terms.append(current)
    if quote:
        raise SelectionError(
            f"the quote {quote} in {text!r} is not closed.",
            hint="Close it with the same character.",
        )
    found: list[str] = []
    for term in (t.strip() for t in terms):
        minus = "!" if term.startswith("!") else ""
        plain = term.removeprefix("!").lstrip()
        if plain.startswith("@"):
            found.extend(minus + line for line in _from_file(plain[1:]))
        elif term:
            found.append(term)
    return found


def _from_file(path: str) -> list[str]:
    try:
        if Path(path).stat().st_size > _MAX_FILE_BYTES:
            raise SelectionError(
                "the file is larger than 64 MiB.",
                path=path,
                hint="Select with `glob:` or `where:` instead of naming each frame.",
            )
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SelectionError(
            f"cannot be read: {error}.", path=path, hint="Check the path and the permissions."
        ) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


class _Resolver:
    def __init__(
        self,
        sessions: Mapping[str, tuple[int, int]],
        catalog: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.sessions = sessions
        self.catalog = catalog

    def resolve(self, term: str) -> dict[str, dict[int, Lines]]:
        if term.startswith("where:"):
            expression = term.removeprefix("where:").strip()
            if expression[:1] in "'\"" and expression[-1:] == expression[:1]:
                expression = expression[1:-1]
            names = [n for n in self.sessions if matches(expression, self.catalog.get(n, {}))]
            if not names:
                raise SelectionError(
                    f"no session fulfils {expression!r}.", hint="See them with hsi-batch ls."
                )
            return {name: self._frames(name, None, None, term) for name in names}
        match = _TERM.match(term)
        if match is None:
            raise SelectionError(
                f"the term {term!r} cannot be read.",
                hint="Write name, name[0:10], name[0][y=0:5000], glob:PATTERN, where:'...' or"
                " @file.",
            )
        head = match["head"].strip()
        if head.startswith("glob:"):
            pattern = head.removeprefix("glob:")
            names = [n for n in self.sessions if fnmatch.fnmatchcase(n, pattern)]
            if not names:
                raise SelectionError(
                    f"no session matches {head!r}.", hint="See them with hsi-batch ls."
                )
        elif head in self.sessions:
            names = [head]
        else:
            raise SelectionError(
                f"there is no session {head!r}.{did_you_mean(head, self.sessions)}",
                hint="See them with hsi-batch ls.",
            )
        return {name: self._frames(name, match["frames"], match["y"], term) for name in names}

    def _frames(self, name: str, frames: str | None, y: str | None, term: str) -> dict[int, Lines]:
        count, height = self.sessions[name]
        lines: Lines = None
        if y is not None:
            span = _span(y, height, term)
            if span.step != 1:
                raise SelectionError(
                    f"{y!r} in {term!r} has a step; lines are a run a:b.",
                    hint="Leave the step out.",
                )
            lines = (span.start, span.stop)
            if lines == (0, height):
                lines = None
        chosen = range(count) if frames is None else _span(frames, count, term)
        return dict.fromkeys(chosen, lines)


def _span(text: str, size: int, term: str) -> range:
    match = _SLICE.match(text)
    if match is None:
        raise SelectionError(f"{text!r} in {term!r} is not a number or a range a:b.")
    first, last, step = match.groups()
    if ":" not in text:
        if first is None or not -size <= int(first) < size:
            raise SelectionError(
                f"{text!r} in {term!r} is outside 0..{size - 1}.",
                hint="Choose a number in it; `hsi-batch ls` shows how many there are.",
            )
        return range(size)[int(first) :][:1]
    if step is not None and int(step) == 0:
        raise SelectionError(
            f"{text!r} in {term!r} has a step of 0.", hint="Give a step of 1 or more."
        )
    chosen = range(size)[slice(*(int(part) if part else None for part in (first, last, step)))]
    if not len(chosen) or chosen.step < 0:
        raise SelectionError(
            f"{text!r} in {term!r} selects nothing of 0..{size - 1}.",
            hint="Give a range in it, the first number below the second.",
        )
    return chosen
