"""Train, val and test by the selectors of the cuvis-ai family."""

from __future__ import annotations

import fnmatch
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.data.ids import frame_numbers
from hsi_batch.documents import Document
from hsi_batch.errors import ConfigError, DataWarning, SelectionError
from hsi_batch.validation import validate

__all__ = ["DataSplitConfig", "SplitConstraint", "SplitSelector", "resolve_splits"]

_STAGES = ("train", "val", "test")
#: The one field that each kind of selector has; file_indices has two.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "files": ("paths",),
    "file_indices": ("source", "ids"),
    "dir_indices": ("ids",),
    "stems": ("stems",),
    "glob": ("pattern",),
    "categories": ("any_of",),
    "all": (),
    "union": ("of",),
    "except": ("of",),
    "intersect": ("of",),
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SplitSelector(_Model):
    """One rule that chooses frames.

    ``files(paths)``, ``file_indices(source, ids)``, ``dir_indices(ids)`` (positions among all
    frames), ``stems(stems)``, ``glob(pattern)`` (stem or source), ``categories(any_of)`` (names of
    label classes that occur in the frame), ``all``, and of other selectors ``union(of)``,
    ``except(of)`` (the first without the others), ``intersect(of)``.
    """

    kind: Literal[
        "files",
        "file_indices",
        "dir_indices",
        "stems",
        "glob",
        "categories",
        "all",
        "union",
        "except",
        "intersect",
    ]
    paths: list[str] | None = None
    source: str | None = None
    ids: list[int | str] | None = None
    stems: list[str] | None = None
    pattern: str | None = None
    any_of: list[str] | None = None
    of: list[SplitSelector] | None = None

    @model_validator(mode="after")
    def _fields(self) -> Self:
        wanted = _FIELDS[self.kind]
        given = {k for k in type(self).model_fields if k != "kind" and getattr(self, k) is not None}
        if given != set(wanted):
            raise ValueError(
                f"{self.kind} takes {', '.join(wanted) or 'nothing'}; found"
                f" {', '.join(sorted(given)) or 'nothing'}"
            )
        if self.kind in ("except", "intersect") and len(self.of or ()) < 2:
            raise ValueError(f"{self.kind} needs at least two selectors")
        return self


class SplitConstraint(_Model):
    """A rule that the splits must obey.

    ``no_split_overlap``: no frame in two splits; ``no_source_overlap``: no recording in two;
    ``no_train_anomalous``: no recording of train has a labelled anomaly (a class other than 0).
    """

    kind: Literal["no_split_overlap", "no_source_overlap", "no_train_anomalous"]
    severity: Literal["error", "warn"] = "error"


class DataSplitConfig(_Model):
    """Selectors of each split.

    Parameters
    ----------
    splits_path : str, optional
        JSON file of the same form; what is given here wins, split by split.
    universe_hash : str, optional
        Kept for files that name it; it is not checked.
    train, val, test, predict : list of SplitSelector
        Their union.
    constraints : list of SplitConstraint
        What must not be in two parts at once.

    Examples
    --------
    >>> DataSplitConfig.of({}).train
    []
    """

    splits_path: str | None = None
    universe_hash: str | None = None
    train: list[SplitSelector] = Field(default_factory=list)
    val: list[SplitSelector] = Field(default_factory=list)
    test: list[SplitSelector] = Field(default_factory=list)
    predict: list[SplitSelector] = Field(default_factory=list)
    constraints: list[SplitConstraint] = Field(default_factory=list)

    @classmethod
    def of(cls, value: DataSplitConfig | Mapping[str, Any]) -> DataSplitConfig:
        """From a mapping, with the file that it names read."""
        config = (
            value if isinstance(value, cls) else validate(cls, Document(dict(value), {}, "splits"))
        )
        if config.splits_path is None:
            return config
        base = _read(config.splits_path)
        own = {k: getattr(config, k) for k in ("train", "val", "test", "predict", "constraints")}
        return base.model_copy(update={k: v for k, v in own.items() if v})


def _read(path: str) -> DataSplitConfig:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the splits cannot be read: {error}.",
            path=path,
            hint="Check the path, and that the file is JSON.",
        ) from None
    return validate(DataSplitConfig, Document(data, {}, path))


class _Frame(NamedTuple):
    session: str
    number: int


class _Chooser:
    """Resolves selectors among the frames of an archive."""

    def __init__(self, archive: Archive, everything: Selection) -> None:
        self.archive = archive
        self.all = [_Frame(session, frame) for session, frame, _ in everything]
        self.sources = {
            name: str(archive.session(name).attrs.get("source", {}).get("path", name))
            for name in everything.sessions
        }

    def choose(self, selector: SplitSelector) -> list[_Frame]:
        """Frames that a selector chooses, at least one."""
        kind = selector.kind
        if kind in ("union", "except", "intersect"):
            parts = [self.choose(part) for part in selector.of or ()]
            found = _combined(kind, parts)
        elif kind == "dir_indices":
            found = [self.all[i] for i in self._numbers(selector, len(self.all))]
        elif kind == "file_indices":
            session = self._session(str(selector.source))
            chosen = set(self._numbers(selector, self.archive.session(session).geometry.frames))
            found = [f for f in self.all if f.session == session and f.number in chosen]
        else:
            matches = self._rule(selector)
            found = [frame for frame in self.all if matches(frame)]
        if not found:
            raise SelectionError(
                f"the selector {selector.model_dump(exclude_none=True)} matches no frame.",
                path=str(self.archive.path),
                hint="See the sessions with hsi-batch ls.",
            )
        return found

    def _rule(self, selector: SplitSelector) -> Callable[[_Frame], bool]:
        if selector.kind == "files":
            sessions = {self._session(path) for path in selector.paths or ()}
            return lambda frame: frame.session in sessions
        if selector.kind == "stems":
            stems = set(selector.stems or ())
            return lambda frame: self._stem(frame) in stems
        if selector.kind == "glob":
            pattern = str(selector.pattern)
            return lambda frame: any(
                fnmatch.fnmatchcase(text, pattern)
                for text in (self._stem(frame), self.sources[frame.session])
            )
        if selector.kind == "categories":
            names = set(selector.any_of or ())
            return lambda frame: bool(names & self._categories(frame))
        return lambda _: True

    def _stem(self, frame: _Frame) -> str:
        return PurePath(self.sources[frame.session]).stem

    def _numbers(self, selector: SplitSelector, count: int) -> list[int]:
        numbers = frame_numbers(selector.ids, f"ids of {selector.kind}") or ()
        beyond = [number for number in numbers if number >= count]
        if beyond:
            warnings.warn(
                f"{selector.kind}: there are {count} frames, so {beyond[:5]} match nothing.",
                DataWarning,
                stacklevel=2,
            )
        return [number for number in numbers if number < count]

    def _session(self, source: str) -> str:
        wanted = PurePath(os.path.normpath(source.replace("\\", "/")))
        for session, path in self.sources.items():
            same = PurePath(os.path.normpath(path)).parts[-len(wanted.parts) :] == wanted.parts
            if session == source or same or Path(path) == Path(source).absolute():
                return session
        raise SelectionError(
            f"no session was converted from {source!r}.",
            path=str(self.archive.path),
            hint=f"There are {', '.join(list(self.sources.values())[:5])}.",
        )

    def _categories(self, frame: _Frame) -> set[str]:
        classes = self.archive.session(frame.session).classes
        names = {number: name for name, number in classes.items()}
        return {names.get(number, f"class {number}") for number in self.labels(frame)}

    def labels(self, frame: _Frame) -> set[int]:
        """Class numbers other than background that occur in a frame."""
        session = self.archive.session(frame.session)
        found: set[int] = set()
        for start, stop in session.geometry.ranges():
            labels = session.labels(frame.number, start, stop)
            if labels is not None:
                found |= {int(number) for number in set(labels[labels > 0].tolist())}
        return found


def _combined(kind: str, parts: Sequence[Sequence[_Frame]]) -> list[_Frame]:
    if kind == "union":
        return list(dict.fromkeys(frame for part in parts for frame in part))
    others = [set(part) for part in parts[1:]]
    if kind == "except":
        return [f for f in parts[0] if not any(f in other for other in others)]
    return [f for f in parts[0] if all(f in other for other in others)]


def resolve_splits(
    config: DataSplitConfig, archive: Archive, everything: Selection
) -> Mapping[str, list[str]]:
    """Terms of a selection for each split.

    Raises
    ------
    hsi_batch.errors.SelectionError
        A selector matches nothing.
    hsi_batch.errors.ConfigError
        A constraint of severity ``error`` does not hold.
    """
    chooser = _Chooser(archive, everything)
    chosen = {
        stage: _combined("union", [chooser.choose(s) for s in getattr(config, stage)])
        for stage in (*_STAGES, "predict")
    }
    for constraint in config.constraints:
        why = _broken(constraint.kind, chosen, chooser)
        if why and constraint.severity == "error":
            raise ConfigError(f"{constraint.kind} does not hold: {why}.", hint="Mend the splits.")
        if why:
            warnings.warn(f"{constraint.kind} does not hold: {why}.", DataWarning, stacklevel=2)
    return {stage: [f"{f.session}[{f.number}]" for f in found] for stage, found in chosen.items()}


def _broken(kind: str, chosen: Mapping[str, list[_Frame]], chooser: _Chooser) -> str | None:
    if kind == "no_train_anomalous":
        sources = {frame.session for frame in chosen["train"]}
        for frame in chooser.all:
            if frame.session in sources and chooser.labels(frame):
                return f"frame {frame.number} of {frame.session} has labelled anomalies"
        return None
    for index, stage in enumerate(_STAGES):
        for other in _STAGES[index + 1 :]:
            if kind == "no_split_overlap":
                both = set(chosen[stage]) & set(chosen[other])
                shared = [f"frame {f.number} of {f.session}" for f in sorted(both)]
            else:
                names = ({f.session for f in chosen[s]} for s in (stage, other))
                shared = sorted(set.intersection(*names))
            if shared:
                return f"{shared[0]} is in {stage} and in {other}"
    return None
