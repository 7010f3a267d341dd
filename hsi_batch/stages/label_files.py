"""Which file holds the labels of which session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from hsi_batch.archive.session import Session
from hsi_batch.errors import ConfigError
from hsi_batch.files import digest_json
from hsi_batch.readers.annotations import (
    LABEL_SUFFIXES,
    Annotation,
    find_annotation,
    names_of,
    open_annotation,
)
from hsi_batch.readers.cropped import Crop
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.labels_border import Rest
from hsi_batch.readers.labels_vector import is_vector
from hsi_batch.wording import some

__all__ = ["LabelFile", "label_files"]


@dataclass(frozen=True)
class LabelFile:
    """The file of a session, and how it is read.

    Attributes
    ----------
    session, path : str
    shape : tuple of int
        ``(y, x)`` of a frame before it was cropped.
    frames : int
    crop : Crop, optional
        What the conversion cut off.
    geography : Geography, optional
        Of the frames before they were cropped.
    rest : {"background", "unlabelled"}, optional
    ignore_border : int
    classes : dict of int to str
    digest : str
        Of the file and how it is read.
    sha256 : str
        Of what the labels are made from.
    """

    session: str
    path: str
    shape: tuple[int, int]
    frames: int
    crop: Crop | None
    geography: Geography | None
    rest: Rest | None
    ignore_border: int
    classes: Mapping[int, str]
    digest: str = ""
    sha256: str = ""

    def opened(self) -> Annotation:
        """The labels; a context manager."""
        return open_annotation(
            self.path,
            shape=self.shape,
            frames=self.frames,
            geography=self.geography,
            rest=self.rest,
            ignore_border=self.ignore_border,
        )

    @property
    def entry(self) -> dict[str, Any]:
        """What a version of labels says it was made from."""
        return {
            "from": self.path,
            "sha256": self.sha256,
            "digest": self.digest,
            "ignore_border": self.ignore_border,
            "rest": self.rest,
            "classes": {str(number): name for number, name in self.classes.items()},
        }


def label_files(
    sessions: Mapping[str, Session], annotations: str, ignore_border: int, rest: Rest | None
) -> dict[str, LabelFile]:
    """Find, open and check the file of each session; sessions of which nothing is said are absent.

    Raises
    ------
    hsi_batch.errors.ConfigError
        No file, or a file of which it is not clear whose labels it holds.
    hsi_batch.errors.SourceError
        A file cannot be read or does not fit its session.
    """
    found = {}
    for name, path in _paths(sessions, annotations).items():
        file = _described(sessions[name], path, ignore_border, rest)
        if file is not None:
            found[name] = file
    if not found:
        raise ConfigError(
            f"no labels were found for {some(list(sessions))}.",
            path=annotations,
            hint="Name a file that labels one of these sessions (--frames says which), or a folder"
            " of files that are named after the recordings.",
        )
    return found


def _paths(sessions: Mapping[str, Session], annotations: str) -> dict[str, str]:
    given = Path(annotations)
    if annotations == "sibling":
        found = {n: find_annotation(str(_source(n, s))) for n, s in sessions.items()}
        return {name: path for name, path in found.items() if path is not None}
    if given.is_dir():
        return _in_folder(sessions, given)
    if not given.exists():
        raise ConfigError(
            "there is no such file of annotations.",
            path=annotations,
            hint="Name a file or a folder, or write `sibling`.",
        )
    path = str(given.absolute())
    if is_vector(path) or len(sessions) == 1:
        return dict.fromkeys(sessions, path)
    stems = names_of(path)
    fitting = [name for name, session in sessions.items() if stems & _stems(name, session)]
    if len(fitting) != 1:
        which = some(fitting or list(sessions))
        raise ConfigError(
            f"it does not say which of {len(sessions)} sessions it labels ({which}).",
            path=annotations,
            hint="Say it with --frames SESSION, or name the file after the recording.",
        )
    return {fitting[0]: path}


def _in_folder(sessions: Mapping[str, Session], folder: Path) -> dict[str, str]:
    by_stem: dict[str, set[str]] = {}
    for file in sorted(folder.absolute().iterdir()):
        if file.suffix.lower() in LABEL_SUFFIXES:
            for stem in names_of(str(file)):
                by_stem.setdefault(stem, set()).add(str(file))
    found = {}
    for name, session in sessions.items():
        files = {file for stem in _stems(name, session) for file in by_stem.get(stem, ())}
        if len(files) > 1:
            raise ConfigError(
                f"several files could hold the labels of {name}: {some(sorted(files))}.",
                path=str(folder),
                hint="Keep one of them there, or name the file itself with --frames.",
            )
        if files:
            found[name] = files.pop()
    return found


def _source(name: str, session: Session) -> PurePath:
    return PurePath(str(session.attrs.get("source", {}).get("path", name)))


def _stems(name: str, session: Session) -> set[str]:
    source = _source(name, session)
    inner = PurePath(source.stem)  # x.raw.hdr
    return {name, PurePath(name).name, source.stem, inner.stem if inner.suffix else source.stem}


def _described(
    session: Session, path: str, ignore_border: int, rest: Rest | None
) -> LabelFile | None:
    settings: Any = session.attrs.get("settings") or {}
    crop = Crop.parse(str(settings["crop"])) if settings.get("crop") else None
    height, width, _ = session.geometry.shape
    place = Geography.of_attrs(session.attrs.get("geography"))
    if crop is not None:
        height, width = height + crop.top + crop.bottom, width + crop.left + crop.right
        place = None if place is None else place.shifted(-crop.left, -crop.top)
    frames = session.geometry.frames
    file = LabelFile(
        session.name, path, (height, width), frames, crop, place, rest, ignore_border, {}
    )
    with file.opened() as annotation:
        if not any(annotation.labels(frame, 0, 1) is not None for frame in range(frames)):
            return None
        told = [annotation.digest, rest, ignore_border, sorted(annotation.classes.items())]
        return replace(
            file,
            classes=annotation.classes,
            digest=digest_json(told),
            sha256=annotation.digest,
        )
