"""Files by name: what a path, a folder or a glob pattern stands for, and their natural order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hsi_batch.files import expand_home

__all__ = ["files_named", "natural_key"]

# Stores of this project, and others like them: folders full of files, none of them a recording.
_STORES = (".zarr", ".hsi-batch")


def files_named(pattern: str, suffixes: Collection[str]) -> list[tuple[str, str | None]]:
    """Files that a pattern names, each with the reason if it cannot be used, else None.

    Parameters
    ----------
    pattern : str
        A file, whatever its suffix; a folder, searched with all folders below it, links to folders
        included; or a glob pattern. Hidden files and folders are passed over, stores are not
        entered.
    suffixes : collection of str
        Lower-case suffixes that count inside folders and for glob patterns.

    Returns
    -------
    list of (str, str or None)
        Absolute paths, possibly with repetitions; empty if nothing matches.
    """
    try:
        return list(_candidates(str(expand_home(pattern)), suffixes))
    except OSError as error:
        return [(os.path.abspath(pattern), f"cannot be reached: {error.strerror}.")]  # noqa: PTH100


def _candidates(pattern: str, suffixes: Collection[str]) -> Iterator[tuple[str, str | None]]:
    path = _absolute(Path(pattern))
    if path.is_dir():
        yield from _below(path, suffixes)
    elif path.is_file() or path.is_symlink():
        yield str(path), _broken(path)
    elif glob.has_magic(pattern):
        fixed = len(_fixed(Path(pattern)))
        # Path.glob would match hidden files as well.
        for match in map(Path, glob.iglob(pattern, recursive=True)):  # noqa: PTH207
            found = _absolute(match)
            if any(part.lower().endswith(_STORES) for part in match.parts[fixed:]):
                continue
            if found.is_dir():
                yield from _below(found, suffixes)
            elif found.suffix.lower() in suffixes:
                yield str(found), _broken(found)


def _absolute(path: Path) -> Path:
    if ".." not in path.parts:
        return path.absolute()
    # Behind a link to a folder, ".." is not the folder that the text suggests.
    if path.is_dir():
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


def _fixed(path: Path) -> list[str]:
    """The leading parts of a glob pattern that hold no wildcard."""
    parts = list(path.parts)
    return parts[: next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))]


def _below(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Files with a known suffix below a folder, hidden ones and stores left out."""
    if folder.name.lower().endswith(_STORES):
        yield str(folder), "a store, not a folder of recordings"
        return
    unreadable: list[tuple[str, str]] = []
    seen = set()
    walk = os.walk(
        folder,
        followlinks=True,
        onerror=lambda e: unreadable.append((str(e.filename), f"cannot be read: {e.strerror}")),
    )
    for root, folders, files in walk:
        place = os.path.realpath(root)
        if place in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and not f.lower().endswith(_STORES)
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                path = Path(root, name)
                yield str(path), _broken(path)
    yield from unreadable


def _broken(path: Path) -> str | None:
    if path.exists():
        return None
    return f"a broken symbolic link to {path.readlink()}" if path.is_symlink() else "no such file"


def natural_key(text: str) -> tuple[Any, ...]:
    """Sort key by which numbers in names count as numbers.

    Examples
    --------
    >>> sorted(["scan_10", "scan_9", "Scan_1"], key=natural_key)
    ['Scan_1', 'scan_9', 'scan_10']
    """
    parts = []
    for component in text.split("/"):
        pieces = re.split(r"([0-9]+)", component.casefold())
        parts.append(tuple((int(p), "") if i % 2 else (0, p) for i, p in enumerate(pieces)))
    return (tuple(parts), text)
