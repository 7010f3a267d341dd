"""Recordings that a data module names, converted into an archive on first use."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsi_batch.archive.archive import Archive
from hsi_batch.errors import DataWarning, SourceError
from hsi_batch.files import digest_json, expand_home
from hsi_batch.stages.convert import ConvertResult, convert

__all__ = ["Cached", "Converted", "cache_folder", "cached", "converted"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Cached:
    """Recordings and the archive that they are, or will be, converted into.

    Attributes
    ----------
    paths : tuple of str
    target : Path
        The archive.
    options : mapping
        Of :func:`hsi_batch.convert`.
    """

    paths: tuple[str, ...]
    target: Path
    options: Mapping[str, Any]

    def plan(self) -> ConvertResult:
        """What a conversion would do; takes no lock, so any number of processes may ask."""
        return convert(self.paths, self.target, dry_run=True, **self.options)


@dataclass(frozen=True)
class Converted:
    """An archive and the recordings in it.

    Attributes
    ----------
    archive : Archive
    sessions : mapping
        Name of the session of each recording, by absolute path; without those that failed.
    """

    archive: Archive
    sessions: Mapping[str, str]


def cache_folder() -> Path:
    """Where converted recordings are kept.

    ``$HSI_BATCH_CACHE``, else ``$XDG_CACHE_HOME/hsi_batch``, else ``~/.cache/hsi_batch``. Workers
    on other machines must see it under the same path. What is in it may be deleted at any time.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> cache_folder().is_absolute()
    True
    """
    named = os.environ.get("HSI_BATCH_CACHE")
    if named:
        return expand_home(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The specification says that relative paths are to be ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "hsi_batch"


def cached(
    sources: Sequence[Path],
    place: Path,
    *,
    mode: str | None,
    annotations: str,
    folder: str | os.PathLike[str] | None = None,
) -> Cached:
    """Where some recordings are converted to, and how.

    There is one archive per place, processing mode and annotation.

    Parameters
    ----------
    sources : sequence of Path
        The recordings.
    place : Path
        The file or folder that was named; gives the archive its name.
    mode : str, optional
        Processing mode of the vendor's SDK.
    annotations : str
        ``sibling``, ``none`` or a file.
    folder : path, optional
        Instead of :func:`cache_folder`.
    """
    labels = annotations if annotations in ("sibling", "none") else str(Path(annotations).resolve())
    key = digest_json([str(place.resolve()), mode, labels])[:12]
    base = cache_folder() if folder is None else Path(folder)
    stem = _UNSAFE.sub("_", place.stem)[:80]
    target = base / f"{stem}-{key}.zarr"
    root = place if place.is_dir() else place.parent
    options = {"mode": mode, "root": root, "annotations": annotations, "replace": True}
    return Cached(tuple(str(source.absolute()) for source in sources), target, options)


def converted(cache: Cached) -> Converted:
    """The archive of some recordings: converted if that was not done before, else as it is.

    A recording or annotation whose path, size and modification time are those of its conversion is
    not converted again; one that changed replaces what was there. A conversion that was interrupted
    is finished.

    Raises
    ------
    hsi_batch.errors.SourceError
        None of the recordings can be read.
    hsi_batch.errors.StoreError
        Another process converts them right now, or they cannot be written.
    """
    result = cache.plan()
    if result.plan is not None and result.plan.todo:
        result = convert(cache.paths, cache.target, **cache.options)
    broken = dict(result.broken)
    if broken:
        text = "; ".join(f"{path}: {reason}" for path, reason in list(broken.items())[:5])
        if len(broken) == len(cache.paths):
            raise SourceError(f"no recording can be read: {text}", hint="Mend or remove them.")
        warnings.warn(f"recordings were left out: {text}", DataWarning, stacklevel=4)
    assert result.plan is not None
    archive = Archive(cache.target)
    names = {s.path: s.name for s in result.plan.sessions if s.name in archive}
    return Converted(archive, names)
