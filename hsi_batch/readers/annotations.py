"""Labels beside recordings: COCO, mask images, ENVI classes and regions, polygons on the ground.

A label is an int16 per pixel: 0 background, 1 and up the classes. A frame that the annotation does
not mention is unlabelled, which is not the same as all background.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.files import Closing
from hsi_batch.readers.envi import DATA_SUFFIXES
from hsi_batch.readers.folders import once_per_folder
from hsi_batch.readers.geography import Geography
from hsi_batch.readers.labels_border import AdjustedLabels, Labels, Rest
from hsi_batch.readers.labels_coco import CocoLabels
from hsi_batch.readers.labels_envi import EnviClassLabels
from hsi_batch.readers.labels_image import ImageLabels
from hsi_batch.readers.labels_npz import LABEL_KEYS, NpzLabels
from hsi_batch.readers.labels_roi import ROI_SUFFIXES, RoiLabels, is_roi
from hsi_batch.readers.labels_vector import VECTOR_SUFFIXES, VectorLabels, is_vector
from hsi_batch.readers.npz_file import NpzFile
from hsi_batch.readers.raw import check_lines

__all__ = ["LABEL_SUFFIXES", "Annotation", "find_annotation", "names_of", "open_annotation"]

_IMAGE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
LABEL_SUFFIXES = (".json", *_IMAGE_SUFFIXES, ".npz", ".hdr", *ROI_SUFFIXES, *VECTOR_SUFFIXES)
_MASK_NAME = re.compile(
    r"(?P<stem>.+?)[ _.-]?(?:gt|masks?|labels?|ground[ _-]?truth|annotations?)", re.IGNORECASE
)


class Annotation(Closing):
    """The labels of one recording; a context manager. Holds the raster of the last frame asked for.

    Not for use by several threads at once.

    Attributes
    ----------
    path : str
        The file they come from.
    files : tuple of str
        Every file whose size and modification time decide whether the labels changed.
    classes : dict of int to str
        Class value -> name; 0, the background, is always there.
    shape : tuple of int
        ``(y, x)`` of a frame.
    frames : int
        Frames of the recording.
    digest : str
        SHA-256 of what the labels are made from, hexadecimal.
    """

    def __init__(self, path: str, labels: Labels, shape: tuple[int, int], frames: int) -> None:
        self.path = path
        self.files = (path,)
        self.classes = dict(sorted(labels.classes.items()))
        self.shape = shape
        self.frames = frames
        self.digest = labels.digest
        self._labels = labels
        self._last: tuple[int, NDArray[np.int16] | None] | None = None

    def labels(self, frame: int, start: int, stop: int) -> NDArray[np.int16] | None:
        """Labels of lines ``start:stop`` of a frame.

        Returns
        -------
        numpy.ndarray of int16, shape (stop - start, x), or None
            A new array; None if this frame is not labelled.

        Raises
        ------
        IndexError
            If the recording has no such frame or lines.
        hsi_batch.errors.SourceError
            If what is said of this frame is malformed.
        """
        if not 0 <= frame < self.frames:
            raise IndexError(f"frame {frame} asked for; the recording has {self.frames}")
        check_lines(start, stop, self.shape[0])
        last = self._last
        if last is None or last[0] != frame:
            last = self._last = (frame, self._labels.raster(frame))
        return None if last[1] is None else last[1][start:stop].copy()

    def close(self) -> None:
        """Release what is held open or in memory."""
        self._last = None
        self._labels.close()


def open_annotation(
    path: str,
    *,
    shape: tuple[int, int],
    frames: int,
    geography: Geography | None = None,
    rest: Rest | None = None,
    ignore_border: int = 0,
) -> Annotation:
    """Open labels and check them against the recording they belong to.

    Parameters
    ----------
    path : str
        A COCO ``.json`` file, a mask image (``.png``, ``.bmp``, ``.tif``, ``.tiff``), an ``.npz``
        file with ``mask`` or ``class_mask``, the ``.hdr`` of an ENVI classification, ENVI regions
        of interest (``.xml``, ``.roi`` or ``.txt``), GeoJSON or a GeoPackage. What each of them may
        hold is said in the module of its name, such as :mod:`~hsi_batch.readers.labels_coco`.
    shape : tuple of int
        ``(y, x)`` of the recording's frames.
    frames : int
        Number of frames.
    geography : Geography, optional
        Where the recording is, for labels in map coordinates.
    rest : {"background", "unlabelled"}, optional
        What pixels are that are not marked, in frames that are mentioned. By default what the kind
        of file says: background for COCO, images and ``.npz``, unlabelled for the others.
    ignore_border : int
        Pixels on either side of each border between labels that become unlabelled.

    Raises
    ------
    hsi_batch.errors.SourceError
        Unreadable, malformed, of another size than the frames, or in map coordinates of a recording
        that is not georeferenced.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/scene.npz"
    >>> np.savez(path, cube=np.zeros((2, 3, 4), "u2"), mask=[[0, 1, 0], [0, 0, 1]])
    >>> with open_annotation(path, shape=(2, 3), frames=1) as annotation:
    ...     annotation.labels(0, 1, 2).tolist(), annotation.classes[1]
    ([[0, 0, 1]], 'anomaly')
    """
    suffix = Path(path).suffix.lower()
    labels: Labels
    marks = True
    if is_vector(path):
        labels = VectorLabels(path, shape, geography)
    elif suffix == ".hdr":
        labels = EnviClassLabels(path, shape, frames)
    elif is_roi(path):
        labels = RoiLabels(path, shape, frames, geography)
    else:
        marks = False
        labels = _marked_frames(path, suffix, shape, frames)
    if rest is not None or ignore_border:
        labels = AdjustedLabels(labels, rest, ignore_border, marks_background=marks)
    return Annotation(path, labels, shape, frames)


def _marked_frames(path: str, suffix: str, shape: tuple[int, int], frames: int) -> Labels:
    """Annotations in which what is not marked is background."""
    if suffix == ".json":
        return CocoLabels(path, shape, frames)
    if suffix in _IMAGE_SUFFIXES:
        return ImageLabels(path, shape, frames)
    if suffix == ".npz":
        return NpzLabels(path, shape, frames)
    known = ", ".join(LABEL_SUFFIXES[1:])
    raise SourceError(
        f"{suffix or 'a file without suffix'} is not a known kind of annotation.",
        path=path,
        hint=f"Known are .json (COCO), {known}.",
    )


def names_of(annotation: str) -> set[str]:
    """Stems of the recordings that an annotation may belong to, by its name.

    Examples
    --------
    >>> sorted(names_of("labels/scan_3_gt.png")), sorted(names_of("scan_3.json"))
    (['scan_3', 'scan_3_gt'], ['scan_3'])
    """
    stem = Path(annotation).stem
    match = _MASK_NAME.fullmatch(stem)
    return {stem} | ({match["stem"]} if match else set())


def find_annotation(recording: str) -> str | None:
    """The labels that lie beside a recording, or in it.

    Looked for, in this order: ``<stem>.json`` if it is COCO; one mask image, ``<stem>`` and ``gt``,
    ``mask``, ``label(s)``, ``groundtruth`` or ``annotation(s)`` in any case, with or without a
    separator (``LHDataGt.bmp`` for ``LHData.hdr``); an ``.npz`` recording itself if it holds
    ``mask`` or ``class_mask``.

    Parameters
    ----------
    recording : str
        Path of the file that names the recording.

    Raises
    ------
    hsi_batch.errors.SourceError
        If several mask images fit.
    """
    path = Path(recording)
    stems = [path.stem]
    inner = Path(path.stem)
    if path.suffix.lower() == ".hdr" and inner.suffix.lower() in DATA_SUFFIXES:
        stems.append(inner.stem)  # x.raw.hdr: labels may be called x_gt.png as well
    texts, images = _labels_in(path.parent)
    for stem in stems:
        if stem in texts and _is_coco(path.with_name(texts[stem])):
            return str(path.with_name(texts[stem]))
    fitting = [name for stem in stems for name in images.get(stem, ())]
    if len(fitting) > 1:
        raise SourceError(
            f"several mask images could hold its labels: {', '.join(sorted(fitting))}.",
            path=recording,
            hint="Keep one of them beside it, or name the one to use with --annotations.",
        )
    if fitting:
        return str(path.with_name(fitting[0]))
    if path.suffix.lower() == ".npz" and _npz_has_labels(recording):
        return recording
    return None


@once_per_folder
def _labels_in(names: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """JSON files and mask images of a folder, each by the stem of their recording."""
    texts: dict[str, str] = {}
    images: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, of many
        if suffix.lower() == ".json":
            texts.setdefault(stem, name)
        elif suffix.lower() in _IMAGE_SUFFIXES and (match := _MASK_NAME.fullmatch(stem)):
            images.setdefault(match["stem"], []).append(name)
    return texts, images


def _is_coco(path: Path) -> bool:
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except OSError:
        return True  # opening it will say why
    except ValueError:
        # Broken JSON that was meant to be COCO must be reported, not passed over.
        return b'"annotations"' in content or b'"images"' in content
    return isinstance(document, dict) and ("annotations" in document or "images" in document)


def _npz_has_labels(path: str) -> bool:
    try:
        with NpzFile(path) as file:
            return any(key in file.names for key in LABEL_KEYS)
    except SourceError:
        return False  # the reader will say what is wrong with it
