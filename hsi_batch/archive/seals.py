"""Checksums of metadata: Zarr gives chunks a checksum, and ``zarr.json`` none.

The attribute ``seal`` of a complete session holds the SHA-256 of the metadata of each array, how
many chunks each has, and the SHA-256 of the session's own metadata; that of the root the SHA-256 of
its metadata, in which those of all sessions are gathered. Whatever writes metadata breaks the seal,
and publishing makes a new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hsi_batch.files import digest_json, digest_of, write_atomically
from hsi_batch.places import Place

__all__ = [
    "SEAL",
    "chunk_files",
    "is_sealed",
    "reseal_session",
    "seal",
    "seal_session",
    "sealed_arrays",
    "session_problems",
    "unsealed_problem",
]

SEAL = "seal"
_META = "zarr.json"
#: Bytes of a digest that are kept, in hexadecimal.
_SHORT = 16
_CHANGED = "the metadata are not those that were published"


def chunk_files(array: Place) -> Iterator[Place]:
    """All files below the folder of an array, but its metadata; links are not followed."""
    if not isinstance(array, Path):
        yield from (file for file in array.files() if file != array / _META)
        return
    for folder, folders, names in os.walk(array):
        folders.sort()
        here = Path(folder)
        yield from (here / name for name in folders if (here / name).is_symlink())
        yield from (here / name for name in sorted(names) if here != array or name != _META)


def seal_session(folder: Place, gathered: Mapping[str, Any] | None = None) -> None:
    """Seal the metadata of a session and of its arrays, with those that are gathered in it."""
    arrays = {}
    metas: list[Place] = [*folder.glob(f"*/{_META}")]
    for meta in sorted(metas, key=str):
        count = sum(1 for _ in chunk_files(meta.parent))
        arrays[meta.parent.name] = [digest_of(meta.read_bytes())[:_SHORT], count]
    seal(folder, {"arrays": arrays}, gathered=gathered)


def reseal_session(folder: Place, counts: Mapping[str, int], gathered: Mapping[str, Any]) -> None:
    """Seal metadata that were made again, with the numbers of chunks that there were."""
    arrays = {
        name: [digest_of((folder / name / _META).read_bytes())[:_SHORT], count]
        for name, count in sorted(counts.items())
    }
    seal(folder, {"arrays": arrays}, gathered=gathered)


def seal(
    folder: Place, parts: dict[str, Any] | None = None, *, gathered: Mapping[str, Any] | None = None
) -> None:
    """Write the metadata of a group with the digest of themselves, and those gathered anew."""
    content = json.loads((folder / _META).read_bytes())
    if gathered is not None:
        content["consolidated_metadata"] = gathered
    write_atomically(folder / _META, _text(content, parts or {}))


def _text(content: dict[str, Any], parts: dict[str, Any], indent: int | None = None) -> str:
    attributes = {k: v for k, v in content.get("attributes", {}).items() if k != SEAL}
    content = {**content, "attributes": {**attributes, SEAL: parts}}
    content["attributes"][SEAL] = {**parts, "metadata": digest_json(content)}
    # Of ten thousand sessions, what people like to look at takes ten times as long.
    return json.dumps(content, indent=indent)


def is_sealed(folder: Place) -> bool:
    """Whether the metadata of a group were ever sealed; true of those that cannot be read.

    A seal under another name is one, too: a damaged name must not make a store look like one of a
    version that knew no seals.
    """
    try:
        attributes = json.loads((folder / _META).read_bytes())["attributes"]
        return any(
            name == SEAL or (isinstance(value, dict) and _is_digest(value.get("metadata")))
            for name, value in attributes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == len(digest_of(b""))


def unsealed_problem(folder: Place) -> str | None:
    """What is wrong with the metadata of a group; None if they are as they were published."""
    try:
        text = (folder / _META).read_bytes().decode()
        content = json.loads(text)
        found = dict(content["attributes"][SEAL])
        found.pop("metadata")
        # Earlier versions indented.
        same = text in (_text(content, found), _text(content, found, 2))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{_CHANGED} (there is no seal that can be read)"
    return None if same else _CHANGED


def session_problems(folder: Place) -> Iterator[str]:
    """What is wrong with the metadata of a complete session and of its arrays."""
    problem = unsealed_problem(folder)
    if problem is not None:
        yield problem
        return
    arrays = sealed_arrays(folder)
    for name, (digest, _) in arrays.items():
        try:
            raw = (folder / name / _META).read_bytes()
        except OSError:
            yield f"the metadata of {name} are missing"
            continue
        if digest_of(raw)[:_SHORT] != digest:
            yield f"the metadata of {name} are not those that were published"


def sealed_arrays(folder: Place) -> dict[str, tuple[str, int]]:
    """Digest of the metadata and number of chunks of each array of a sealed session."""
    content = json.loads((folder / _META).read_bytes())
    return {k: (str(d), int(n)) for k, (d, n) in content["attributes"][SEAL]["arrays"].items()}
