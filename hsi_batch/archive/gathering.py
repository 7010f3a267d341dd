"""Publishing metadata: the root and each session hold a sealed copy of all that is below them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zarr

from hsi_batch.archive.seals import SEAL, seal, seal_session
from hsi_batch.archive.store import metadata_errors, refuse_links, store_place
from hsi_batch.files import digest_json
from hsi_batch.places import Place

__all__ = ["consolidate", "metadata_below", "session_heads"]

_META = "zarr.json"
#: As Zarr writes it.
_GATHERED = {"kind": "inline", "must_understand": False}
#: Reading small files is mostly waiting, of object stores above all.
_THREADS = 16

_Head = dict[str, Any]


def session_heads(folder: Place) -> dict[str, _Head]:
    """Metadata of the groups in the root of a store, by name, as they are on the disk.

    A hundred times faster than opening them; files that do not belong there are passed over.

    Raises
    ------
    hsi_batch.errors.StoreError
        One cannot be read, or lies elsewhere.
    """
    metas: list[Place] = sorted(folder.glob(f"*/{_META}"), key=str)

    def read(meta: Place) -> _Head:
        refuse_links(folder, meta.parent.name)
        with metadata_errors(str(folder), meta.parent.name):
            found = json.loads(meta.read_bytes())
            return {**found, "attributes": dict(found["attributes"])}

    with ThreadPoolExecutor(_THREADS) as pool:
        heads = dict(zip((m.parent.name for m in metas), pool.map(read, metas), strict=True))
    return {name: head for name, head in heads.items() if head.get("node_type") == "group"}


def consolidate(root: zarr.Group) -> None:
    """Gather all metadata in the root, and those of each complete session in its group.

    Opening many sessions is then one read, and so is opening one of them by itself. Root and
    complete sessions are sealed (:mod:`hsi_batch.archive.seals`). Sessions that are sealed are
    copied as they are: publishing takes time for what is new.
    """
    folder = store_place(root)
    heads = session_heads(folder)
    gathers = root.store.supports_consolidated_metadata

    def sealed(name: str) -> _Head:
        with metadata_errors(str(folder), name):
            seal_session(folder / name, metadata_below(folder / name) if gathers else None)
            head: _Head = json.loads((folder / name / _META).read_bytes())
            return head

    fresh = [
        name
        for name, head in heads.items()
        if head["attributes"].get("complete") and not (gathers and _is_published(head))
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        heads |= zip(fresh, pool.map(sealed, fresh), strict=True)
    if not gathers:
        # Icechunk, whose snapshots hold all metadata together; so that the root is another whenever
        # a session is.
        seal(folder, {"sessions": digest_json({n: h["attributes"] for n, h in heads.items()})})
        return
    with metadata_errors(str(folder)):
        seal(folder, gathered={**_GATHERED, "metadata": _entries(folder, heads)})


def _entries(folder: Place, heads: Mapping[str, _Head]) -> dict[str, Any]:
    """Metadata of groups, then of arrays, as Zarr puts them into a root."""
    arrays: dict[str, Any] = {}
    for name, head in heads.items():
        held = head.get("consolidated_metadata") or metadata_below(folder / name)
        found = held["metadata"]
        arrays |= {f"{name}/{key}": found[key] for key in sorted(found)}
    nothing = {**_GATHERED, "metadata": {}}
    groups = {name: {**head, "consolidated_metadata": nothing} for name, head in heads.items()}
    return {**groups, **arrays}


def metadata_below(folder: Place) -> dict[str, Any]:
    """Metadata of the arrays of a session, as Zarr gathers them in its group.

    Zarr v3 calls this experimental; readers that do not know it ignore it.
    """
    metas: list[Place] = sorted(folder.glob(f"*/{_META}"), key=str)
    arrays = {meta.parent.name: json.loads(meta.read_bytes()) for meta in metas}
    return {**_GATHERED, "metadata": arrays}


def _is_published(head: _Head) -> bool:
    return SEAL in head["attributes"] and head.get("consolidated_metadata") is not None
