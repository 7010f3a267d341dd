"""Zarr stores of ours: opening, creating, codecs, chunks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from hsi_batch.archive.rootless import rootless
from hsi_batch.archive.storage import Preset, preset_of
from hsi_batch.errors import StoreError
from hsi_batch.places import Place, RemotePlace, beside, place, stamp, zarr_store

__all__ = [
    "ARCHIVE",
    "SCORES",
    "archive_stamp",
    "checksum",
    "create_array",
    "create_group",
    "create_root",
    "groups_of",
    "holds_scores",
    "member",
    "metadata_errors",
    "open_member",
    "open_root",
    "plain_group",
    "refuse_linked_state",
    "refuse_links",
    "session_folders",
    "state_folder",
    "store_place",
]

ARCHIVE = "hsi-batch-archive"
SCORES = "hsi-batch-scores"
VERSION = 1
#: What Zarr raises of metadata that are not as they should be.
_DAMAGED = (
    FileNotFoundError,
    NotADirectoryError,
    zarr.errors.BaseZarrError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
)
_FLAT: Any = {"name": "default", "separator": "."}
#: Files in one folder that file systems and people's tools still list with ease.
_FLAT_FILES = 100_000
_KINDS = {ARCHIVE: "an archive", SCORES: "a score store"}


def state_folder(path: str | Place) -> Place:
    """Folder of the run state: beside the store, so that copying the store does not copy it."""
    return beside(place(path), ".hsi-batch")


def archive_stamp(path: str | Place) -> str:
    """Changes whenever the metadata of a store are published again."""
    return stamp(place(path) / "zarr.json")


def create_root(path: str | Place, kind: str, attrs: Mapping[str, Any] | None = None) -> zarr.Group:
    """Make a store, or open the one that is there.

    Raises
    ------
    hsi_batch.errors.StoreError
        Something else is in this place.
    """
    where = place(path)
    # A run that was killed at its first step leaves an empty folder.
    if where.exists() and not (where.is_dir() and not any(where.iterdir())):
        return open_root(path, kind, mode="r+")
    where.parent.mkdir(parents=True, exist_ok=True)
    head = {"format": kind, "format_version": VERSION}
    return zarr.create_group(zarr_store(where), zarr_format=3, attributes={**head, **(attrs or {})})


def holds_scores(path: str | Place) -> bool:
    """Whether a store says that it holds scores; false for whatever cannot be read."""
    try:
        found = json.loads((place(path) / "zarr.json").read_text())
        return bool(found["attributes"]["format"] == SCORES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_root(path: str | Place, kind: str, mode: str = "r") -> zarr.Group:
    """Open a store of a kind.

    Raises
    ------
    hsi_batch.errors.StoreError
        There is none, it is of another kind, or of a newer format.
    """
    held = place(path)
    where = str(path)
    if not held.is_dir():
        what = "this is a file" if held.exists() else "there is nothing here"
        raise StoreError(
            f"{what}; {_KINDS[kind]} (a Zarr folder) was expected.",
            path=where,
            hint="Check the path." if kind == SCORES else "Check the path, or convert first.",
        )
    try:
        # The stubs of Zarr list its modes one by one; ours come as text.
        root = zarr.open_group(zarr_store(held), mode=mode, zarr_format=3, use_consolidated=False)  # type: ignore[arg-type]
    except _DAMAGED as error:
        raise StoreError(
            f"this folder is not a Zarr v3 group ({type(error).__name__}); {_KINDS[kind]} was"
            " expected.",
            path=where,
            hint="Check the path.",
        ) from None
    found = root.attrs.get("format")
    if found != kind:
        named = _KINDS.get(str(found), f"a Zarr group of format {found!r}")
        raise StoreError(
            f"this is {named}; {_KINDS[kind]} was expected.", path=where, hint="Check the path."
        )
    version = root.attrs.get("format_version")
    if version != VERSION:
        raise StoreError(
            f"the store has format version {version}; this software reads version {VERSION}.",
            path=where,
            hint="Use the version of hsi_batch that wrote it, or a newer one.",
        )
    return root


@contextmanager
def metadata_errors(path: str, session: str | None = None) -> Iterator[None]:
    """Turn whatever damaged metadata raise into one clear error."""
    try:
        yield
    except _DAMAGED as error:
        raise StoreError(
            f"the metadata cannot be read ({type(error).__name__}: {str(error)[:200]}).",
            path=path,
            session=session,
            hint="Check the store with hsi-batch verify --deep.",
        ) from None


def open_member(path: str | Place, name: str, mode: Literal["r", "r+"] = "r") -> zarr.Group | None:
    """One group in the root of a store; None if there is none.

    The root, whose metadata name every array of every other group, is not read.
    """
    if not name or "/" in name or name in (".", ".."):
        return None
    try:
        return zarr.open_group(
            zarr_store(place(path)),
            path=name,
            mode=mode,
            zarr_format=3,
            use_consolidated=False,
        )
    except (FileNotFoundError, zarr.errors.BaseZarrError, ValueError, KeyError, TypeError):
        return None


def groups_of(root: zarr.Group) -> dict[str, zarr.Group]:
    """Groups in the root, by name; files that do not belong there are passed over.

    Raises
    ------
    hsi_batch.errors.StoreError
        The metadata of one are damaged.
    """
    with metadata_errors(str(root.store_path)), warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        found = dict(root.groups())
    for name, group in found.items():
        refuse_links(store_place(group), name)
    return found


def refuse_links(store: Place, session: str) -> None:
    """Refuse a session that lies elsewhere: what is written or removed there is not the store's.

    Object stores know no links.

    Raises
    ------
    hsi_batch.errors.StoreError
        Its folder, or that of an array in it, is a symbolic link.
    """
    if not isinstance(store, Path):
        return
    folder = store / session
    for part in (folder, *(entry for entry in _entries(folder) if entry.is_symlink())):
        if part.is_symlink():
            raise StoreError(
                "this is a symbolic link; stores whose parts lie elsewhere are refused.",
                path=str(part),
                session=session,
                hint="Put the folder itself in its place, or convert again.",
            )


def refuse_linked_state(store: str | Place) -> None:
    """Refuse a run state whose folders lie elsewhere: a run removes what it does not know there.

    Raises
    ------
    hsi_batch.errors.StoreError
        The folder beside the store, or one in it, is a symbolic link.
    """
    state = state_folder(store)
    if not isinstance(state, Path):
        return
    for folder in (
        state,
        *_entries(state),
        *_entries(state / "records"),
        *_entries(state / "partials"),
    ):
        if folder.is_symlink():
            raise StoreError(
                "this is a symbolic link; a run state whose parts lie elsewhere is refused.",
                path=str(folder),
                hint="Remove the link; a run state is made again.",
            )


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def session_folders(path: str | Place) -> list[str]:
    """Names of the folders that hold metadata, whether these can be read or not."""
    return sorted(meta.parent.name for meta in place(path).glob("*/zarr.json"))


def create_array(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    dims: tuple[str, ...],
    fill: Any = 0,
    attrs: Mapping[str, Any] | None = None,
    preset: Preset | None = None,
    shards: tuple[int, ...] | None = None,
) -> zarr.Array[Any]:
    """Make an array whose chunks are compressed and end in their CRC32C.

    ``shards`` is the shape of what becomes one file, in chunks; each chunk is one by default.
    Files lie beside each other (``c.0.1.0``), unless they are more than 100 000: a folder for each
    takes as long to make as the scores of its block, and an inode. Icechunk wants them nested.
    """
    shape_of_chunk = tuple(max(c, 1) for c in chunks)
    together = None
    if shards is not None:
        together = tuple(c * n for c, n in zip(shape_of_chunk, shards, strict=True))
    files = prod(-(-n // c) for n, c in zip(shape, together or shape_of_chunk, strict=True))
    flat = group.store.supports_consolidated_metadata and files <= _FLAT_FILES
    made = zarr.create_array(
        rootless(group),
        name=name,
        zarr_format=3,
        shape=shape,
        chunks=shape_of_chunk,
        shards=together,
        dtype=dtype,
        fill_value=fill,
        chunk_key_encoding=_FLAT if flat else None,
        compressors=((preset or preset_of(None)).compressor(np.dtype(dtype)), Crc32cCodec()),
        dimension_names=dims,
        attributes=dict(attrs or {}),
        overwrite=True,
    )
    return zarr.Array(zarr.AsyncArray(made.metadata, group.store_path / name))


def create_group(root: zarr.Group, name: str, attrs: Mapping[str, Any]) -> zarr.Group:
    """Make the group of a session, empty; replaces one of that name."""
    made = zarr.create_group(
        rootless(root) / name, zarr_format=3, overwrite=True, attributes=dict(attrs)
    )
    return zarr.Group(zarr.AsyncGroup(made.metadata, root.store_path / name))


def checksum(values: NDArray[Any]) -> int:
    """CRC32C of the values in little-endian order, independent of the codec."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return int(google_crc32c.value(little.reshape(-1).view(np.uint8)))


def store_place(root: zarr.Group) -> Place:
    """Where the store of a group is."""
    if isinstance(root.store, LocalStore):
        return root.store.root
    return RemotePlace(str(root.store), root.store)


def member(root: zarr.Group, name: str) -> zarr.Group:
    """The group of a session, in the root of its store.

    Raises
    ------
    KeyError
        There is none.
    hsi_batch.errors.StoreError
        An array is in its place.
    """
    found = root[name]
    if isinstance(found, zarr.Group):
        return found
    raise StoreError(
        "there is an array in place of the session.",
        path=str(root.store_path),
        session=name,
        hint="Check the store with hsi-batch verify --deep.",
    )


def plain_group(group: zarr.Group) -> zarr.Group:
    """The group as its arrays are, whatever the metadata gathered in it say.

    Zarr does not keep gathered metadata true when arrays come and go. What is written through the
    plain group drops them, and the next :func:`consolidate` gathers them again.
    """
    if group.metadata.consolidated_metadata is None:
        return group
    return zarr.open_group(
        group.store_path,
        mode="r" if group.store.read_only else "r+",
        zarr_format=3,
        use_consolidated=False,
    )
