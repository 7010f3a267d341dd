"""Recordings that a data module names, converted into an archive on first use."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsi_batch.archive.archive import Archive
from hsi_batch.errors import DataWarning, SourceError
from hsi_batch.files import digest_json
from hsi_batch.stages.convert import convert

__all__ = ["Converted", "cache_folder", "converted"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


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
    """
    named = os.environ.get("HSI_BATCH_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The specification says that relative paths are to be ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "hsi_batch"


def converted(
    sources: Sequence[Path],
    place: Path,
    *,
    mode: str | None,
    annotations: str,
    folder: str | os.PathLike[str] | None = None,
) -> Converted:
    """The archive of some recordings: converted if that was not done before, else as it is.

    There is one archive per place, processing mode and annotation. A recording or annotation whose
    path, size and modification time are those of its conversion is not converted again; one that
    changed replaces what was there. A conversion that was interrupted is finished.

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

    Raises
    ------
    hsi_batch.errors.SourceError
        None of the recordings can be read.
    hsi_batch.errors.StoreError
        Another process converts them right now, or they cannot be written.
    """
    labels = annotations if annotations in ("sibling", "none") else str(Path(annotations).resolve())
    key = digest_json([str(place.resolve()), mode, labels])[:12]
    base = cache_folder() if folder is None else Path(folder)
    stem = _UNSAFE.sub("_", place.stem)[:80]
    target = base / f"{stem}-{key}.zarr"
    root = place if place.is_dir() else place.parent
    options = {"mode": mode, "root": root, "annotations": annotations, "replace": True}
    paths = [str(source.absolute()) for source in sources]
    # Planning takes no lock, so that any number of processes may use what is there.
    result = convert(paths, target, dry_run=True, **options)  # type: ignore[arg-type]
    if result.plan is not None and result.plan.todo:
        result = convert(paths, target, **options)  # type: ignore[arg-type]
    broken = dict(result.broken)
    if broken:
        text = "; ".join(f"{path}: {reason}" for path, reason in list(broken.items())[:5])
        if len(broken) == len(sources):
            raise SourceError(f"no recording can be read: {text}", hint="Mend or remove them.")
        warnings.warn(f"recordings were left out: {text}", DataWarning, stacklevel=4)
    assert result.plan is not None
    archive = Archive(target)
    names = {s.path: s.name for s in result.plan.sessions if s.name in archive}
    return Converted(archive, names)
