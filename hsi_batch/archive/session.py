"""One session of an archive, read by blocks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.chunk_layout import store_path
from hsi_batch.archive.chunk_reader import UNREADABLE, read_lines
from hsi_batch.archive.layout import BlockKey, Geometry
from hsi_batch.archive.outline import Outline
from hsi_batch.archive.read_ahead import announce
from hsi_batch.archive.session_card import session_card, session_text
from hsi_batch.archive.store import (
    ARCHIVE,
    metadata_errors,
    open_member,
    open_root,
    plain_group,
    refuse_links,
    store_place,
)
from hsi_batch.errors import SourceError, StoreError
from hsi_batch.places import Place, place

__all__ = ["PixelChoice", "Session", "label_array", "variant_of"]

#: Which pixels count: all ``valid`` ones, those that are labelled as background
#: (``labelled-normal``), those of a label class (``class:NAME``), or those within a mask
#: (``mask:NAME``).
PixelChoice = str


def variant_of(pixels: PixelChoice) -> str:
    """What the names of the arrays end in that hold statistics of these pixels.

    Examples
    --------
    >>> variant_of("valid"), variant_of("labelled-normal"), variant_of("mask:product")
    ('', '_normal', '_mask_product')
    """
    if pixels == "labelled-normal":
        return "_normal"
    if pixels.startswith("class:"):
        return "_class"
    return pixels.replace("mask:", "_mask_", 1) if pixels.startswith("mask:") else ""


def label_array(version: int) -> str:
    """Name of the array of a version of labels.

    Examples
    --------
    >>> label_array(1), label_array(3)
    ('label', 'label_v3')
    """
    return "label" if version == 1 else f"label_v{version}"


class Session:
    """A session of an archive.

    Parameters
    ----------
    name : str
    group : zarr.Group, optional
        Its group; without it, it is opened when an array is first asked for.
    archive : path or URL
        Where to open it.
    outline : Outline, optional
        What is known of a session that is complete.
    """

    def __init__(
        self,
        name: str,
        group: zarr.Group | None = None,
        *,
        archive: str | Place = "",
        outline: Outline | None = None,
    ) -> None:
        self.name = name
        #: Found by :meth:`look`, and not looked for again.
        self._found: dict[str, zarr.Array[Any] | None] = {}
        self._archive = archive
        self._outline = outline
        if group is not None:
            self.group = _checked(group, name)

    @cached_property
    def group(self) -> zarr.Group:
        """The group of the session, as its arrays are."""
        return _opened(self._archive, self.name, "r")

    @classmethod
    def open(cls, archive: str | Place, name: str, mode: Literal["r", "r+"] = "r") -> Session:
        """Open one session without looking at the others."""
        return cls(name, _opened(archive, name, mode))

    @cached_property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of the group."""
        return dict(self.group.attrs if self._outline is None else self._outline.attrs)

    @cached_property
    def cube(self) -> zarr.Array[Any]:
        """The array ``(frame, y, x, channel)``."""
        return self._array("cube")

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self.optional(name)
        if array is None:
            raise StoreError(
                f"the array {name!r} is missing.",
                session=self.name,
                hint="The session was not converted to the end; convert again.",
            )
        return array

    def optional(self, name: str) -> zarr.Array[Any] | None:
        """An array that not every session has."""
        if name in self._found:
            return self._found[name]
        with metadata_errors(str(self.group.store_path), self.name):
            array = self.group.get(name)
            if isinstance(array, zarr.Array) and 0 in array.chunks:
                raise ValueError(f"{name} has chunks of {array.chunks}")
        return array if isinstance(array, zarr.Array) else None

    @cached_property
    def geometry(self) -> Geometry:
        """Frames, shape and blocks."""
        if self._outline is not None:
            return self._outline.geometry
        with metadata_errors(str(self.group.store_path), self.name):
            frames, height, width, channels = self.cube.shape
            return Geometry(
                frames, (height, width, channels), str(self.cube.dtype), self.cube.chunks[1]
            )

    @property
    def shard(self) -> tuple[int, int] | None:
        """Frames, and blocks of each, that are one file; None if each block is."""
        if self._outline is not None:
            return self._outline.shard
        shards, chunks = self.cube.shards, self.cube.chunks
        return None if shards is None else (shards[0] // chunks[0], shards[1] // chunks[1])

    @property
    def complete(self) -> bool:
        """Whether the conversion of this session was finished."""
        return bool(self.attrs.get("complete"))

    @property
    def failed_frames(self) -> dict[int, str]:
        """Frames that could not be converted, with the reason."""
        return {int(k): str(v) for k, v in self.attrs.get("failed_frames", {}).items()}

    @cached_property
    def wavelength(self) -> NDArray[np.float64] | None:
        """Wavelength per channel in nm, if the source states it."""
        if self._outline is not None:
            return self._outline.wavelength
        array = self.optional("wavelength")
        return None if array is None else np.asarray(array[:], dtype=np.float64)

    @cached_property
    def wavelength_map(self) -> NDArray[np.float64] | None:
        """Wavelengths in nm of every column, ``(x, channel)``, if the session has them."""
        if not self.holds("wavelength_map"):
            return None
        return np.asarray(self._array("wavelength_map")[...], dtype=np.float64)

    @cached_property
    def good_band(self) -> NDArray[np.bool_] | None:
        """False for channels the source marks as bad."""
        if self._outline is not None:
            return self._outline.good_band
        array = self.optional("good_band")
        return None if array is None else np.asarray(array[:], dtype=bool)

    @cached_property
    def _quality(self) -> zarr.Array[Any] | None:
        return self.optional("quality")

    @property
    def label_version(self) -> int:
        """Version of the labels that holds; 1 for those of the conversion, 0 for none at all."""
        told = self.attrs.get("labels")
        if told is not None:
            return int(told.get("current", 0))
        return int(self.holds(label_array(1)))

    @cached_property
    def _label(self) -> zarr.Array[Any] | None:
        told = self.attrs.get("labels")
        version = 1 if told is None else int(told.get("current", 0))
        return self.optional(label_array(version)) if version else None

    @property
    def masks(self) -> Mapping[str, Any]:
        """Named masks that it has."""
        return dict(self.attrs.get("masks", {}))

    @property
    def labelled(self) -> bool:
        """Whether any frame has labels."""
        version = self.label_version
        return version > 0 and self.holds(label_array(version))

    def holds(self, name: str) -> bool:
        """Whether there is an array; looks at it no more than it must."""
        if self._outline is None:
            return self.optional(name) is not None
        if name not in self._outline.arrays:
            return False
        folder = place(self._archive) / self.name / name
        # People do take arrays out of stores on disks.
        return not isinstance(folder, Path) or folder.is_dir()

    def outline(self, arrays: Iterable[str] | None = None) -> Outline:
        """What plans ask for; the names of its arrays are looked for unless they are given."""
        if arrays is None:
            with metadata_errors(str(self.group.store_path), self.name), warnings.catch_warnings():
                # What a killed run was removing is no array any more.
                warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
                arrays = [name for name, _ in self.group.arrays()]
        return Outline(
            self.geometry,
            self.attrs,
            frozenset(arrays),
            self.shard,
            self.wavelength,
            self.good_band,
        )

    def __repr__(self) -> str:
        return session_text(self)

    def _repr_html_(self) -> str:
        return session_card(self)

    # -- pixels ------------------------------------------------------------------------------

    def read(self, frame: int, start: int, stop: int, *, reuse: bool = False) -> NDArray[Any]:
        """Stored lines ``(stop - start, x, channel)``.

        With ``reuse`` they lie in memory that the next such call of this thread writes over.

        Raises
        ------
        hsi_batch.errors.SourceError
            The chunk is missing or damaged.
        """
        # Zarr would read a chunk that is missing as zeros; but every block of a cube is stored.
        return np.asarray(_fetch(self, self.cube, frame, start, stop, reuse=reuse, stored=True))

    def announce(self, frame: int, start: int, stop: int) -> None:
        """Let the system fetch a block of the cube that will be read next."""
        announce(self.cube, frame, start, stop)

    def valid(
        self, frame: int, start: int, stop: int, pixels: PixelChoice = "valid"
    ) -> NDArray[np.bool_] | None:
        """Mask of the pixels that count, ``(lines, x)``; None if all do."""
        mask: NDArray[np.bool_] | None = None
        if self._quality is not None:
            mask = _fetch(self, self._quality, frame, start, stop) == 0
        if pixels == "labelled-normal" or pixels.startswith("class:"):
            labels = self.labels(frame, start, stop)
            number = self.class_number(pixels)
            if labels is None or number is None:
                return np.zeros((stop - start, self.geometry.shape[1]), dtype=bool)
            meant = labels == number
            mask = meant if mask is None else mask & meant
        elif pixels.startswith("mask:"):
            array = self._array(pixels.replace("mask:", "mask_", 1))
            inside = _fetch(self, array, frame, start, stop) > 0
            mask = inside if mask is None else mask & inside
        return None if mask is None or bool(mask.all()) else mask

    def labels(
        self, frame: int, start: int, stop: int, *, version: int | None = None
    ) -> NDArray[np.int16] | None:
        """Class numbers ``(lines, x)``, -1 where unlabelled; None if the session has none.

        Of the version that holds, or of another one (:mod:`hsi_batch.archive.labels`).
        """
        array = self._label if version is None else self.optional(label_array(version))
        if array is None:
            return None
        return np.asarray(_fetch(self, array, frame, start, stop), dtype=np.int16)

    @cached_property
    def classes(self) -> dict[str, int]:
        """Numbers of the label classes by name; empty without labels."""
        if self._label is None:
            return {}
        named: Any = self._label.attrs.get("classes", {})
        return {str(name): int(number) for number, name in named.items()}

    def class_number(self, pixels: PixelChoice) -> int | None:
        """The class that ``labelled-normal`` or ``class:NAME`` means; None if it has none such.

        A whole number stands for itself.
        """
        name = pixels.removeprefix("class:")
        if pixels == "labelled-normal":
            return 0
        return self.classes.get(name, int(name) if name.isdigit() else None)

    def look(self, *arrays: str) -> None:
        """Find arrays once, for a stage that asks for them again and again.

        Not for sessions that are kept: whoever deletes an array is not noticed any more.
        """
        for name in ("cube", "wavelength", *arrays):
            self._found[name] = self.optional(name)
        self.geometry, self.wavelength  # noqa: B018  (read, and kept)

    def key(self, frame: int, start: int, stop: int) -> BlockKey:
        """Address of lines of this session."""
        return BlockKey(self.name, frame, start, stop)


def _opened(archive: str | Place, name: str, mode: Literal["r", "r+"]) -> zarr.Group:
    with metadata_errors(str(archive), name):
        group = open_member(archive, name, mode)
    if group is None:
        # What is wrong with the archive comes first.
        open_root(archive, ARCHIVE, mode)
        raise StoreError(
            "there is no such session.",
            path=str(archive),
            session=name,
            hint="See the sessions with hsi-batch ls.",
        )
    return _checked(group, name)


def _checked(group: zarr.Group, name: str) -> zarr.Group:
    refuse_links(store_place(group), name)
    return plain_group(group)


def _fetch(
    session: Session,
    array: zarr.Array[Any],
    frame: int,
    start: int,
    stop: int,
    **how: bool,
) -> Any:
    try:
        return read_lines(array, frame, start, stop, **how)
    except UNREADABLE as error:
        raise _unreadable(session, array, frame, start, stop, error) from None


def _unreadable(
    session: Session, array: zarr.Array[Any], frame: int, start: int, stop: int, why: object
) -> SourceError:
    return SourceError(
        f"lines {start}:{stop} of {array.path} cannot be read: {why}.",
        path=store_path(array),
        session=session.name,
        frame=frame,
        hint="Check the store with hsi-batch verify --deep, and convert the session again.",
    )
