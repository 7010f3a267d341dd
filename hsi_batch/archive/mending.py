"""Making damaged metadata again from their copy: the root gathers those of all sessions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import zarr

from hsi_batch.archive.gathering import consolidate, metadata_below
from hsi_batch.archive.seals import SEAL, reseal_session, session_problems, unsealed_problem
from hsi_batch.archive.store import ARCHIVE, SCORES, VERSION
from hsi_batch.errors import StoreError
from hsi_batch.files import write_atomically
from hsi_batch.places import Place, RemotePlace, zarr_store

__all__ = ["gathered", "mend_metadata", "mend_root", "move_aside"]

_META = "zarr.json"
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def gathered(path: Place) -> dict[str, dict[str, Any]]:
    """Metadata of all sessions and arrays as the root has them; none if it is damaged."""
    if unsealed_problem(path) is not None:
        return {}
    content = json.loads((path / _META).read_bytes())
    return dict(content["consolidated_metadata"]["metadata"])


def mend_metadata(path: Place, name: str) -> bool:
    """Write the metadata of a session as the root has them; false if it does not.

    Where the session's folder was lost, the session is left as not finished, with no chunk.
    """
    whole = gathered(path)
    head = whole.get(name)
    try:
        # None has no attributes either, which is caught.
        attributes = dict(head["attributes"])  # type: ignore[index]
        arrays = dict(attributes.pop(SEAL)["arrays"])
        parts = {k.partition("/")[2]: v for k, v in whole.items() if k.startswith(f"{name}/")}
    except _DAMAGED:
        return False
    folder = path / name
    lost = not folder.is_dir()
    if lost:
        attributes["complete"] = False
    for part, entry in parts.items():
        write_atomically(folder / part / _META, json.dumps(entry, indent=2))
    write_atomically(folder / _META, json.dumps(_group(attributes), indent=2))
    if not lost:
        counts = {k: int(n) for k, (_, n) in arrays.items()}
        reseal_session(folder, counts, metadata_below(folder))
    return True


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


def mend_root(path: Place) -> bool:
    """Write the root again from the sessions, whose own seals hold; false if there is no session.

    What the root of a store of scores says of their pipeline is lost, until it is scored with.
    """
    metas: list[Place] = [*path.glob(f"*/{_META}")]
    sound = [
        meta.parent
        for meta in sorted(metas, key=str)
        if not meta.parent.is_symlink() and next(session_problems(meta.parent), None) is None
    ]
    if not sound:
        return False
    kind = ARCHIVE if (sound[0] / "cube" / _META).exists() else SCORES
    head = {"format": kind, "format_version": VERSION}
    kept = (path / _META).read_bytes() if (path / _META).is_file() else b""
    write_atomically(path / _META, json.dumps(_group(head), indent=2))
    try:
        consolidate(
            zarr.open_group(zarr_store(path), mode="r+", zarr_format=3, use_consolidated=False)
        )
    except StoreError:
        write_atomically(path / _META, kept)
        return False
    return True


def move_aside(path: Place, file: str, where: Place) -> None:
    """Take a file, a link or a folder out of a store; folders that are empty then go, too."""
    source, target, number = path / file, where / file, 0
    while target.exists() or target.is_symlink():
        number += 1
        target = (where / file).parent / f"{source.name}.{number}"
    if isinstance(source, RemotePlace):
        _move_objects(source, target)
        return
    assert isinstance(target, Path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)
    for folder in source.parents:
        if folder == path or any(folder.iterdir()):
            break
        folder.rmdir()


def _move_objects(source: RemotePlace, target: Place) -> None:
    found = [*source.files()]
    if source.is_file():
        target.write_bytes(source.read_bytes())
        source.unlink()
    for file in found:
        # Kept whole before it is gone.
        (target / str(file.relative_to(source))).write_bytes(file.read_bytes())
        file.unlink(missing_ok=True)
