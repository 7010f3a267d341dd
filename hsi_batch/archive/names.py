"""Names of sessions: from paths to names that are safe and unique."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from hsi_batch.errors import ConfigError
from hsi_batch.readers.paths import natural_key

__all__ = ["session_names"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
#: Names of files in the root of a store.
_RESERVED = ("zarr.json",)
#: Longest name; file systems take 255 bytes, and things are named after sessions.
_LONGEST = 180


def session_names(
    paths: Iterable[str], root: str | None = None, taken: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Name each source by its path below the common root, without suffix.

    Characters other than letters, digits, ``.``, ``_`` and ``-`` become ``_``, folders are joined
    by ``-``, and a name longer than 180 is cut and ends in a digest. Names never collide: a second
    source of the same name gets a counter.

    Parameters
    ----------
    paths : iterable of str
        Absolute paths.
    root : str, optional
        Folder below which names are taken; the common folder by default.
    taken : mapping, optional
        Names that exist already, with the path each belongs to; a path keeps its name.

    Returns
    -------
    dict
        Name by path.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A path is not below ``root``.

    Examples
    --------
    >>> session_names(["/d/a/rec 1.hdr", "/d/b/rec 1.hdr"])
    {'/d/a/rec 1.hdr': 'a-rec_1', '/d/b/rec 1.hdr': 'b-rec_1'}
    """
    ordered = sorted(set(paths), key=natural_key)
    known = {path: name for name, path in (taken or {}).items()}
    used = {name.casefold() for name in (*(taken or {}), *_RESERVED)}
    base = PurePath(root) if root is not None else _common(ordered)
    names: dict[str, str] = {}
    for path in ordered:
        if path in known:
            names[path] = known[path]
            continue
        try:
            below = PurePath(path).relative_to(base).with_suffix("")
        except ValueError:
            raise ConfigError(
                f"{path} is not below the root {base}.", hint="Choose another --root."
            ) from None
        # Case is folded because some file systems do.
        plain = _short("-".join(_clean(part) for part in below.parts))
        name, count = plain, 1
        while name.casefold() in used:
            count += 1
            name = f"{plain}-{count}"
        used.add(name.casefold())
        names[path] = name
    return names


def _clean(part: str) -> str:
    # Hidden names, "..", and names that begin with two underscores (reserved by Zarr).
    return _UNSAFE.sub("_", part).lstrip("._") or "x"


def _short(name: str) -> str:
    """The name, its end replaced by a digest if it is longer than file systems take."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _common(paths: list[str]) -> PurePath:
    folders = [PurePath(path).parent for path in paths]
    if not folders:
        return PurePath("/")
    common = folders[0]
    while not all(folder.is_relative_to(common) for folder in folders):
        common = common.parent
    return common
