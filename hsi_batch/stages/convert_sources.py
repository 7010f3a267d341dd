"""Whether the files of a source are still those that were converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hsi_batch.archive.session import Session
from hsi_batch.cluster import cores
from hsi_batch.files import digest_of_file

__all__ = ["present_files", "signature", "why_changed"]


def signature(files: Iterable[str]) -> dict[str, Any]:
    """Size and modification time of every file."""
    found: dict[str, Any] = {}
    for file in files:
        try:
            stat = Path(file).stat()
            found[file] = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            found[file] = None
    return found


def recorded(session: Session) -> dict[str, Any]:
    """:func:`signature` of the files of a session when it was converted."""
    files = session.attrs.get("source", {}).get("files", {})
    return {file: mark and list(mark) for file, mark in files.items()}


def present_files(sessions: Iterable[Session]) -> dict[str, dict[str, Any]]:
    """:func:`signature` of the files as they are now, for sessions whose files did not change.

    A file of another size changed. One of the same size with another modification time (copied,
    touched) is read, and did not change if its SHA-256 is the one that was kept.
    """
    same: dict[str, dict[str, Any]] = {}
    doubtful: list[tuple[str, str, str]] = []
    for session in sessions:
        then = recorded(session)
        now = signature(then)
        moved = [file for file in then if now[file] != then[file]]
        checksums = session.attrs.get("source", {}).get("checksums", {})
        alike = all(
            now[file] and then[file] and now[file][0] == then[file][0] and checksums.get(file)
            for file in moved
        )
        if then and alike:
            same[session.name] = now
            doubtful.extend((session.name, file, checksums[file]) for file in moved)
    # Hashing waits for disks, and holds no lock.
    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(lambda item: digest_of_file(item[1]), doubtful)
        for (name, _, expected), digest in zip(doubtful, found, strict=True):
            if digest != expected:
                same.pop(name, None)
    return same


def why_changed(session: Session, now: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What differs between a session and its source, in words."""
    before = session.attrs.get("settings") or {}
    named = dict.fromkeys([*settings, *before])
    other = [name for name in named if before.get(name) != settings.get(name)]
    if other:
        return f"it was converted with other settings ({', '.join(other)})"
    then = recorded(session)
    added = [file for file in now if file not in then]
    gone = [file for file in then if file not in now]
    if added or gone:
        return f"{(added or gone)[0]} was {'added' if added else 'taken away'} since"
    checksums = session.attrs.get("source", {}).get("checksums", {})
    changed = sorted((f for f in now if now[f] != then[f]), key=lambda f: (now[f] or [0])[0])
    # The largest file need not be read if the others are as they were.
    while len(changed) > 1 and digest_of_file(changed[0]) == checksums.get(changed[0]):
        del changed[0]
    return f"{(changed or list(now))[0]} changed since"
