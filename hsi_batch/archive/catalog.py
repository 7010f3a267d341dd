"""The catalog: a row per session."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import zarr

from hsi_batch.archive.gathering import session_heads
from hsi_batch.archive.seals import SEAL
from hsi_batch.archive.session import Session
from hsi_batch.archive.store import (
    archive_stamp,
    member,
    metadata_errors,
    state_folder,
    store_place,
)
from hsi_batch.errors import StoreError
from hsi_batch.files import (
    digest_of,
    digest_of_file,
    read_table,
    sealed,
    unsealed,
    write_atomically,
)
from hsi_batch.places import Place, stamp

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "HIDDEN",
    "OUTLINE",
    "WRITTEN",
    "catalog_problem",
    "catalog_row",
    "forget_catalog",
    "is_published",
    "load_catalog",
    "save_catalog",
]

#: Columns that only plans and the next catalog look at.
OUTLINE, WRITTEN, _SEALED = "_outline", "_written", "_sealed"
HIDDEN = [OUTLINE, WRITTEN, _SEALED]
_FILE = "catalog.parquet"
_STAMP = "catalog.json"


def catalog_row(session: Session) -> dict[str, Any]:
    """What the catalog says of a session."""
    attrs, geometry = session.attrs, session.geometry
    height, width, channels = geometry.shape
    wavelength = session.wavelength
    source = attrs.get("source", {})
    return {
        "session": session.name,
        "frames": geometry.frames,
        "lines": height,
        "samples": width,
        "bands": channels,
        "dtype": geometry.dtype,
        "sensor": attrs.get("sensor"),
        "quantity": attrs.get("quantity"),
        "mode": attrs.get("processing_mode"),
        "wavelength_min": None if wavelength is None else float(wavelength[0]),
        "wavelength_max": None if wavelength is None else float(wavelength[-1]),
        "pixels": geometry.frames * height * width,
        "flagged": int(attrs.get("flagged_pixels", 0)),
        "labelled_frames": int(attrs.get("labelled_frames", 0)),
        "failed_frames": len(session.failed_frames),
        "megabytes": round(geometry.frames * geometry.frame_bytes / 1e6, 1),
        "reader": attrs.get("reader"),
        "source": source.get("path"),
        "source_size": source.get("size"),
        "source_mtime": source.get("mtime"),
        "complete": session.complete,
    }


def _rows(
    root: zarr.Group, known: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """A row per session; those of sessions that are sealed as they were are taken as ``known``."""
    rows = []
    for name, head in session_heads(store_place(root)).items():
        sealed_as = dict(head["attributes"].get(SEAL) or {}).get("metadata")
        written = stamp(store_place(root) / name / "zarr.json")
        row = known.get(name)
        if row is not None and sealed_as and row[_SEALED] == sealed_as and row[WRITTEN] == written:
            rows.append(dict(row))
            continue
        gathered = dict(head.get("consolidated_metadata") or {}).get("metadata")
        try:
            with metadata_errors(str(root.store_path), name):
                session = Session(name, member(root, name))
            row = {**catalog_row(session), OUTLINE: session.outline(gathered).to_json()}
        except StoreError:
            # A conversion that is running, or died before it made the arrays.
            continue
        rows.append({**row, WRITTEN: written, _SEALED: sealed_as})
    return rows


def _known(path: str | Place) -> dict[str, dict[str, Any]]:
    """Rows of the catalog that was saved before; none if it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        raw = (state_folder(path) / _FILE).read_bytes()
        if digest_of(raw) == _stamped(path)["catalog"]:
            rows = read_table(raw).astype(object)
            if set(HIDDEN) <= set(rows):
                rows = rows.where(rows.notna(), None)
                # The stubs have any hashable for the names of columns.
                return {str(row["session"]): row for row in rows.to_dict("records")}  # type: ignore[misc]
    return {}


def save_catalog(path: str | Place, root: zarr.Group) -> None:
    """Write the catalog beside the store, stamped with the state of the store's metadata."""
    import pandas as pd

    rows = _rows(root, _known(path))
    folder = state_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    write_atomically(folder / _FILE, buffer.getvalue())
    digest = digest_of(buffer.getvalue())
    write_atomically(folder / _STAMP, sealed({"stamp": archive_stamp(path), "catalog": digest}))


def forget_catalog(path: str | Place) -> None:
    """Let the sessions themselves be read until the next :func:`save_catalog`."""
    file = state_folder(path) / _STAMP
    try:
        write_atomically(file, sealed({**_stamped(path), "stamp": ""}))
    except (OSError, ValueError, KeyError):
        file.unlink(missing_ok=True)


def is_published(path: str | Place) -> bool:
    """Whether the saved catalog belongs to the store as it is."""
    try:
        return bool(_stamped(path)["stamp"] == archive_stamp(path))
    except (OSError, ValueError, KeyError):
        # No run state (a copied store), or a torn one.
        return False


def _stamped(path: str | Place) -> dict[str, Any]:
    return unsealed((state_folder(path) / _STAMP).read_bytes())


def catalog_problem(path: str | Place) -> str | None:
    """What is wrong with the files of the catalog; None if nothing is, or there are none."""
    try:
        stamped = _stamped(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return None if _is_bare(path) else f"{_STAMP} is damaged: {error}"
    if digest_of_file(state_folder(path) / _FILE) != stamped.get("catalog"):
        return f"{_FILE} is not as it was written"
    return None


def _is_bare(path: str | Place) -> bool:
    """Whether the stamp is one of earlier versions, which held no checksum."""
    try:
        return isinstance(json.loads((state_folder(path) / _STAMP).read_bytes()), str)
    except (OSError, ValueError, RecursionError):
        return False


def load_catalog(path: str | Place, root: Callable[[], zarr.Group]) -> pd.DataFrame:
    """The saved catalog if it belongs to the store as it is, else one read from the sessions.

    Only then the ``root`` is opened.
    """
    import pandas as pd

    if is_published(path):
        # Else, or if the file is damaged, the store itself decides.
        with contextlib.suppress(OSError, ValueError, KeyError):
            raw = (state_folder(path) / _FILE).read_bytes()
            if digest_of(raw) == _stamped(path)["catalog"]:
                return read_table(raw)
    rows = [{k: v for k, v in row.items() if k not in HIDDEN} for row in _rows(root())]
    columns = ["session", "frames", "lines", "samples", "bands", "complete"]
    return pd.DataFrame(rows, columns=None if rows else columns)
