"""Which reader opens which file, and which recordings lie below a folder.

Readers of this package come first; other packages add formats through the entry-point group
``hsi_batch.readers``. Modules are imported when a file of their kind is opened.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from hsi_batch.errors import HsiBatchWarning, SourceError, did_you_mean
from hsi_batch.readers.paths import files_named, natural_key
from hsi_batch.readers.protocol import Reader, Source

__all__ = ["Discovery", "discover", "known_suffixes", "open_source", "reader_for", "resolved"]

_GROUP = "hsi_batch.readers"
_BUILTIN = {
    ".cu3s": "hsi_batch.readers.cu3s:Cu3sReader",
    ".hdr": "hsi_batch.readers.envi:EnviReader",
    ".npz": "hsi_batch.readers.npz:NpzReader",
}
# One file is the whole recording, so that a link to it is the same recording.
_SELF_CONTAINED = (".cu3s", ".npz")


@dataclass(frozen=True)
class Discovery:
    """What :func:`discover` found.

    Attributes
    ----------
    recordings : tuple of str
        Absolute paths, each once, in natural order.
    skipped : tuple of (str, str)
        Paths that were left out, each with the reason, in natural order.
    missing : tuple of str
        Patterns, as given, that matched neither a recording nor anything skipped.
    """

    recordings: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]


def reader_for(path: str | os.PathLike[str]) -> Reader:
    """The reader of a file, by its suffix in any case.

    Raises
    ------
    hsi_batch.errors.SourceError
        If no reader knows the suffix.

    Examples
    --------
    >>> reader_for("lentils_000/scan.HDR").name
    'envi'
    """
    suffix = Path(path).suffix.lower()
    reader = _reader(suffix)
    if reader is not None:
        return reader
    known = known_suffixes()
    raise SourceError(
        f"no reader for {suffix!r} files; known are {', '.join(known)}."
        if suffix
        else f"no reader for a file without suffix; known are {', '.join(known)}.",
        path=os.fspath(path),
        hint=_hint(Path(path), suffix, known),
    )


def open_source(path: str | os.PathLike[str], mode: str | None = None) -> Source:
    """Open a recording of any known format.

    Parameters
    ----------
    path : str or path-like
        The file that names it.
    mode : str, optional
        Processing mode for formats that have them, such as ``"Reflectance"`` for ``.cu3s``.

    Returns
    -------
    Source
        A context manager; see :class:`hsi_batch.readers.protocol.Source`.

    Raises
    ------
    hsi_batch.errors.SourceError
        Unknown suffix, missing file, or a file that its reader refuses.
    hsi_batch.errors.ConfigError
        If ``mode`` is given for a format without modes.
    """
    reader = reader_for(path)
    name = os.fspath(path)
    if not Path(name).exists():
        raise SourceError(
            "a broken symbolic link." if Path(name).is_symlink() else "no such file.",
            path=name,
            hint="Check the path.",
        )
    return reader.open(name, mode=mode)


def known_suffixes() -> tuple[str, ...]:
    """Suffixes of all formats that can be read here, sorted.

    Examples
    --------
    >>> {".cu3s", ".hdr", ".npz"} <= set(known_suffixes())
    True
    """
    return tuple(sorted({*_BUILTIN, *_plugins()}))


def discover(patterns: Sequence[str | os.PathLike[str]]) -> Discovery:
    """Find recordings named by files, folders and glob patterns.

    Folders are searched with all folders below them, links to folders included. Hidden files and
    folders are passed over, stores (``.zarr``, ``.hsi-batch``) are not entered. A file named in
    full is reported as skipped if no reader knows it; one that merely lies in a folder is not.

    Parameters
    ----------
    patterns : sequence of str or path-like
        Relative ones count from the current folder; ``~`` and ``**`` are expanded.

    Returns
    -------
    Discovery
        Nothing is opened but headers: reading a broken recording fails later, with its reason.
    """
    kept: dict[str, str] = {}  # resolved path -> path
    skipped: dict[str, str] = {}
    missing: list[str] = []
    for pattern in [os.fspath(p) for p in patterns]:
        candidates = files_named(pattern, known_suffixes())
        if not candidates:
            missing.append(pattern)
        for path, problem in candidates:
            reason = problem or _skip_reason(path)
            if reason is not None:
                skipped.setdefault(path, reason)
                continue
            # The same folder may be reached by several spellings and links.
            kept.setdefault(_place(path), path)
    for place, path in list(kept.items()):
        target = resolved(path)
        if target != place and target in kept:
            skipped[kept.pop(place)] = f"a link to {kept[target]}, which is taken already"
    return Discovery(
        tuple(sorted(kept.values(), key=natural_key)),
        tuple(sorted(skipped.items(), key=lambda item: natural_key(item[0]))),
        tuple(missing),
    )


def resolved(path: str) -> str:
    """The path of a recording with all links followed: the same for all names of one recording.

    A link to a file of which the recording is only a part (an ENVI header) is followed if it leads
    to the same pixels; else links to one header can stand beside different data files.
    """
    place, target = _place(path), os.path.realpath(path)
    if target == place or path.lower().endswith(_SELF_CONTAINED):
        return target
    return target if _same_pixels(place, target) else place


def _place(path: str) -> str:
    folder, name = os.path.split(path)
    return str(Path(os.path.realpath(folder), name))


def _same_pixels(header: str, other: str) -> bool:
    if not (header.lower().endswith(".hdr") and other.lower().endswith(".hdr")):
        return False
    from hsi_batch.readers.envi import find_data_file

    try:
        return Path(find_data_file(header)).samefile(find_data_file(other))
    except (SourceError, OSError):
        return False


def _reader(suffix: str) -> Reader | None:
    if suffix in _BUILTIN:
        module, _, name = _BUILTIN[suffix].partition(":")
        return cast(Reader, getattr(import_module(module), name)())
    return _plugins().get(suffix)


@cache
def _plugins() -> dict[str, Reader]:
    """Readers of other packages by suffix; one that cannot be loaded is named in a warning."""
    found: dict[str, Reader] = {}
    for entry in sorted(entry_points(group=_GROUP), key=lambda e: (e.name, e.value)):
        try:
            reader = _loaded(entry)
        except Exception as error:  # noqa: BLE001 - whatever it does must not break the others
            warnings.warn(
                f"the reader {entry.name!r} ({entry.value}) cannot be used: "
                f"{type(error).__name__}: {error}",
                HsiBatchWarning,
                stacklevel=2,
            )
            continue
        for suffix in reader.suffixes:
            found.setdefault(suffix.lower(), reader)
    return found


def _loaded(entry: EntryPoint) -> Reader:
    loaded = entry.load()
    reader = loaded() if isinstance(loaded, type) else loaded
    lacking = [n for n in ("name", "suffixes", "skip_reason", "open") if not hasattr(reader, n)]
    if lacking:
        raise TypeError(f"it is not a reader, it has no {', '.join(lacking)}")
    if isinstance(reader.suffixes, str) or not all(s.startswith(".") for s in reader.suffixes):
        raise TypeError(f"its suffixes are {reader.suffixes!r}; expected a tuple such as ('.abc',)")
    return cast(Reader, reader)


def _hint(path: Path, suffix: str, known: Sequence[str]) -> str | None:
    for header in (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")):
        if suffix != ".hdr" and header.is_file():
            return f"Name the ENVI header instead: {header.name}."
    return did_you_mean(suffix, known).strip() or None


def _skip_reason(path: str) -> str | None:
    try:
        reader = reader_for(path)
    except SourceError as error:
        return " ".join(filter(None, (error.message, error.hint)))
    try:
        return reader.skip_reason(path)
    except Exception:  # noqa: BLE001 - opening the recording will say what is wrong with it
        return None
