"""The archive: many sessions in one Zarr store."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsi_batch.archive.catalog import HIDDEN, OUTLINE, WRITTEN, is_published, load_catalog
from hsi_batch.archive.labels import label_versions
from hsi_batch.archive.outline import Outline
from hsi_batch.archive.selection import Selection, select
from hsi_batch.archive.session import Session, label_array
from hsi_batch.archive.store import (
    ARCHIVE,
    member,
    metadata_errors,
    open_root,
    refuse_links,
    state_folder,
)
from hsi_batch.errors import SelectionError, StoreError, did_you_mean
from hsi_batch.markup import card, table
from hsi_batch.places import Place, at_version, place, stamp, zarr_store

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    import zarr

__all__ = ["Archive", "open_archive"]

#: Arrays that serve fits; a view for people leaves them out.
_INTERNAL = (
    "moments",
    "moments_normal",
    "extrema",
    "extrema_normal",
    "sample",
    "checksum",
)

#: Columns of the catalog that a view for people has, and what they are called there.
_SHOWN = {
    "session": "session",
    "frames": "frames",
    "lines": "lines",
    "samples": "samples",
    "bands": "bands",
    "dtype": "type",
    "wavelength_min": "from nm",
    "wavelength_max": "to nm",
    "sensor": "sensor",
    "quantity": "quantity",
    "megabytes": "MB",
    "flagged": "flagged pixels",
    "labelled_frames": "labelled frames",
    "failed_frames": "failed frames",
}

_OF_MASKS = ("moments_mask_", "extrema_mask_")
_LABELS = re.compile(r"label(_v\d+)?")

#: Opening a session is mostly waiting.
_FEW, _THREADS = 8, 8


class Archive(Mapping[str, "xr.Dataset"]):
    """A store of converted sessions; a mapping of session names to lazy datasets.

    Nothing is computed by looking at it.

    Parameters
    ----------
    path : path
        Folder of the store.

    Raises
    ------
    hsi_batch.errors.StoreError
        There is none, or it is something else.

    Examples
    --------
    >>> archive = open_archive("archive.zarr")
    >>> list(archive), archive.incomplete
    (['scene_000', 'scene_001'], ())
    >>> archive["scene_000"].cube.shape
    (1, 40, 30, 8)
    >>> archive.select("glob:*_001").sessions
    ('scene_001',)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = place(path)
        if not is_published(self.path):
            # Else it was an archive when its catalog was written, and is still that.
            self.root  # noqa: B018  (opened, which checks it)

    @cached_property
    def root(self) -> zarr.Group:
        """The root of the store; its metadata gather those of all sessions, which takes time."""
        return open_root(self.path, ARCHIVE)

    @cached_property
    def catalog(self) -> pd.DataFrame:
        """A row per session that is complete: shape, sensor, flags, labels, source."""
        whole = self._whole
        complete = whole[whole["complete"].astype(bool)] if len(whole) else whole
        return complete.drop(columns=HIDDEN, errors="ignore").reset_index(drop=True)

    @cached_property
    def _whole(self) -> pd.DataFrame:
        return load_catalog(self.path, lambda: self.root)

    @cached_property
    def _outlines(self) -> dict[str, tuple[str, str]]:
        """Of sessions, where the catalog is that of the store, each with its state then."""
        if not {OUTLINE, WRITTEN} <= set(self._whole):
            return {}
        told = zip(self._whole[OUTLINE], self._whole[WRITTEN], strict=True)
        return dict(zip(self._whole["session"], told, strict=True))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self)

    @cached_property
    def incomplete(self) -> tuple[str, ...]:
        """Sessions whose conversion was not finished."""
        whole = self._whole
        return tuple(whole.loc[~whole["complete"].astype(bool), "session"]) if len(whole) else ()

    def session(self, name: str) -> Session:
        """A session for reading by blocks.

        Raises
        ------
        hsi_batch.errors.StoreError
            No such session.
        """
        if name not in self:
            unfinished = " Its conversion is not finished." if name in self.incomplete else ""
            raise StoreError(
                f"there is no session {name!r}.{unfinished}{did_you_mean(name, list(self))}",
                path=str(self.path),
                hint="See the sessions with hsi-batch ls.",
            )
        outline, written = self._outlines.get(name, (None, ""))
        local = isinstance(self.path, Path)
        with metadata_errors(str(self.path), name):
            # People do write attributes of their own.
            if outline and not (local and stamp(self.path / name / "zarr.json") != written):
                refuse_links(self.path, name)
                with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
                    return Session(name, archive=self.path, outline=Outline.from_json(outline))
            return Session(name, member(self.root, name))

    def sessions(self, names: Iterable[str], *arrays: str) -> dict[str, Session]:
        """Several sessions; thousands are opened much faster together than one by one.

        Parameters
        ----------
        names : iterable of str
            Of these sessions; of all by default.
        *arrays : str
            That will be looked at.
        """
        ordered = list(names)
        if len(ordered) < _FEW or self._outlines:
            return {name: self.session(name) for name in ordered}

        def opened(name: str) -> Session:
            session = self.session(name)
            session.look(*arrays)
            return session

        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip(ordered, pool.map(opened, ordered), strict=True))

    def select(self, text: str | Sequence[str] | None = None) -> Selection:
        """Resolve a selection of frames; see :func:`hsi_batch.archive.selection.select`."""
        rows = self.catalog.to_dict("records")
        try:
            return select(
                text,
                {row["session"]: (int(row["frames"]), int(row["lines"])) for row in rows},
                failed={
                    row["session"]: tuple(self.session(row["session"]).failed_frames)
                    for row in rows
                    if row["failed_frames"]
                },
                catalog={row["session"]: {str(k): v for k, v in row.items()} for row in rows},
            )
        except SelectionError as error:
            error.path = error.path or str(self.path)
            raise

    @property
    def state(self) -> Place:
        """Folder of the run state, beside the store."""
        return state_folder(self.path)

    def __getitem__(self, name: str) -> xr.Dataset:
        import xarray as xr

        session = self.session(name)
        dataset = xr.open_zarr(
            zarr_store(self.path), group=name, chunks={}, consolidated=False, zarr_format=3
        )
        hidden = [v for v in dataset if v in _INTERNAL or str(v).startswith(_OF_MASKS)]
        kept: xr.Dataset = _with_labels_that_hold(dataset.drop_vars(hidden), session)
        kept.attrs["session"] = session.name
        # A cube that is taken out of the dataset still says whose background it has.
        said = {"session": session.name, "sensor": session.attrs.get("sensor")}
        kept["cube"].attrs.update({k: v for k, v in said.items() if v is not None})
        return kept

    def __iter__(self) -> Iterator[str]:
        return iter(self.catalog["session"]) if len(self.catalog) else iter(())

    def __len__(self) -> int:
        return len(self.catalog)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def _summary(self) -> str:
        frames = int(self.catalog["frames"].sum()) if len(self) else 0
        gigabytes = float(self.catalog["megabytes"].sum()) / 1e3 if len(self) else 0.0
        text = f"{len(self)} sessions, {frames} frames, {gigabytes:.2f} GB"
        if self.incomplete:
            text += f"; {len(self.incomplete)} not finished"
        return text

    def __repr__(self) -> str:
        head = f"<hsi_batch.Archive {self.path}: {self._summary()}>"
        if not len(self):
            return head
        shown = self.catalog[["session", "frames", "lines", "samples", "bands", "dtype"]]
        return f"{head}\n{shown.to_string(index=False, max_rows=20)}"

    def _repr_html_(self) -> str:
        rows = self.catalog.to_dict("records")
        held = [name for name in _SHOWN if any(_told(row.get(name)) for row in rows)]
        cells = ([_told(row.get(name)) for name in held] for row in rows)
        return card(
            "Archive",
            f"{self.path}: {self._summary()}",
            table(cells, [_SHOWN[name] for name in held], rest="sessions"),
            table([("not finished", ", ".join(self.incomplete))] if self.incomplete else ()),
        )


def _told(value: Any) -> Any:
    """A value of the catalog for people; None if it says nothing."""
    return None if value is None or value != value or value == 0 else value  # noqa: PLR0124  (NaN)


def _with_labels_that_hold(dataset: xr.Dataset, session: Session) -> xr.Dataset:
    """``label`` is the version that holds; others are ``label_v1`` and so on."""
    versions, current = label_versions(session), session.label_version
    arrays = {label_array(number) for number in versions}
    # What a killed run did not finish is none.
    torn = [v for v in dataset if _LABELS.fullmatch(str(v)) and v not in arrays]
    dataset = dataset.drop_vars(torn)
    if current > 1:
        names = {label_array(1): "label_v1", label_array(current): "label"}
        dataset = dataset.rename({old: new for old, new in names.items() if old in dataset})
    return dataset


def open_archive(path: str | os.PathLike[str], *, version: str | None = None) -> Archive:
    """Open an archive for reading.

    Parameters
    ----------
    path : path or URL
        Of the store.
    version : str, optional
        Of a transactional store: ``"v3"``, or the identifier of a snapshot; the newest by default.

    Returns
    -------
    Archive

    Raises
    ------
    hsi_batch.errors.StoreError
        There is none, or it is something else.

    Examples
    --------
    >>> open_archive("archive.zarr").catalog[["frames", "bands", "dtype"]].to_dict("records")[0]
    {'frames': 1, 'bands': 8, 'dtype': 'uint16'}
    """
    return Archive(path if version is None else at_version(path, version))
