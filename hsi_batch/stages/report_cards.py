"""Frames that the report shows in pictures: the top ones, and some at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.errors import SourceError
from hsi_batch.files import digest_json
from hsi_batch.stages import pictures
from hsi_batch.stages.report_pictures import jpeg_uri, palette_uri, pooled

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["card_of", "chosen_frames"]

_TOP, _RANDOM = 12, 8
#: Top frames of one session, where there are others.
_PER_SESSION = 4
_SEED = 0
#: Lines of a long frame that are shown, around its highest score.
_LINES = 640


def chosen_frames(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the frames with the highest scores, and of others at random (seed 0).

    Of the top ones at most four are of one session, unless there are no others.
    """
    if not len(table):
        return table, table
    ranked = table
    for column in ("score_max", "flagged"):
        if column in table:
            order = table[column].astype(float).sort_values(ascending=False, kind="stable").index
            ranked = table.loc[order]
            break
    first = ranked[ranked.groupby("session", sort=False).cumcount() < _PER_SESSION]
    top = first if len(first) >= _TOP else ranked
    top = top.head(_TOP)
    rest = table.drop(index=top.index)
    count = min(_RANDOM, len(rest))
    picked = np.random.default_rng(_SEED).choice(len(rest), count, replace=False)
    return top, rest.iloc[np.sort(picked)]


def card_of(root: zarr.Group, archive: Archive | None, row: pd.Series[Any]) -> dict[str, Any]:
    """Pictures of one frame, of at most 640 lines around its highest score.

    Returns
    -------
    dict
        ``name`` and ``frame``, both as ``place``, ``anchor`` in the page, ``caption``, ``images``
        (caption and data URI).
    """
    name, frame = str(row["session"]), int(row["frame"])
    group = root[name]
    assert isinstance(group, zarr.Group)
    scores, decisions = group.get("scores"), group.get("decisions")
    session = archive.session(name) if archive is not None and name in archive else None
    height = next((array.shape[1] for _, array in group.arrays() if array.ndim >= 3), 0)
    best = _number(row.get("score_max"))
    peak = int(row["max_y"]) if best is not None else 0
    first = max(0, min(peak - _LINES // 2, height - _LINES))
    last = min(height, first + _LINES)
    card: dict[str, Any] = {
        "place": (name, frame),
        "name": name,
        "frame": frame,
        "anchor": f"picture-{digest_json([name, frame])[:12]}",
    }
    said = (
        []
        if best is None
        else [f"highest score {best:.4g} at line {peak}, sample {row['max_x']:.0f}"]
    )
    said += [f"lines {first} to {last} of {height}"] if last - first < height else []
    said += ["without a valid pixel"] if best is None and "score_max" in row else []
    flagged = _number(row.get("flagged"))
    said += [] if flagged is None else [f"{int(flagged)} flagged"]
    images: list[tuple[str, str]] = []
    labels = None
    if session is not None:
        _, words = pictures.display_channels(session.wavelength, session.geometry.shape[2])
        try:
            image = pictures.false_colour(session, frame, first, last)
            labels = session.labels(frame, first, last)
            images.append((f"false colour ({words})", jpeg_uri(image)))
        except SourceError as error:
            said.append(f"the cube cannot be shown: {error.args[0]}")
    if isinstance(scores, zarr.Array) and best is not None:
        values = np.asarray(scores[frame, first:last])
        low = _number(row.get("score_p50"))
        shown = pooled(values, np.fmax)
        picture = pictures.score_picture(shown, best / 4 if low is None else low / 4, best)
        images.append((_pooling("scores, logarithmic", values, shown), palette_uri(picture)))
    if isinstance(decisions, zarr.Array):
        images.append(_decided(np.asarray(decisions[frame, first:last]), labels))
    return {**card, "caption": "; ".join(said), "images": images}


def _decided(said: NDArray[Any], labels: NDArray[Any] | None) -> tuple[str, str]:
    # Of the pixels that become one, what is flagged or labelled wins; invalid if all are.
    flags = pooled((said == 1).astype(np.uint8), np.fmax)
    flags[pooled((said == 255).astype(np.uint8), np.fmin) == 1] = 255
    marks = None if labels is None else pooled(labels, np.fmax)
    picture = pictures.decision_picture(flags, marks)
    return _pooling("decisions", said, flags), palette_uri(picture)


def _pooling(words: str, values: NDArray[Any], shown: NDArray[Any]) -> str:
    side = -(-values.shape[0] // shown.shape[0])
    return words if side == 1 else f"{words}, the highest of {side} x {side} pixels"


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
