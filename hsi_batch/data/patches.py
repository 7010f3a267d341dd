"""Random patches of frames, read from the chunks that hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.selection import Lines
from hsi_batch.archive.session import Session
from hsi_batch.data.batches import Block, Pixels
from hsi_batch.errors import ConfigError

__all__ = ["PatchPlan", "fill_invalid", "frame_patches"]

#: ``labels (lines, x) -> bool``: True where a pixel counts as anomalous.
Positive = Callable[[NDArray[Any]], NDArray[np.bool_]]


@dataclass(frozen=True)
class PatchPlan:
    """How patches are cut from frames.

    Attributes
    ----------
    size : (int, int)
        Lines and pixels per line; a frame that is smaller gives what it has.
    per_frame : int
        Patches of a frame and epoch.
    balance : float, optional
        Share of the patches that hold a labelled anomaly, of frames that have one; without it
        patches lie anywhere.
    positive : callable
        Tells which labels count as anomalous.
    """

    size: tuple[int, int]
    per_frame: int = 1
    balance: float | None = None
    positive: Positive = lambda labels: labels > 0

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ConfigError(
                f"patch {list(self.size)} is not two numbers of at least 1.",
                hint="Give [lines, samples].",
            )
        if self.per_frame < 1:
            raise ConfigError(f"patches_per_frame {self.per_frame} must be at least 1.")
        if self.balance is not None and not 0.0 <= self.balance <= 1.0:
            raise ConfigError(f"balance {self.balance} is not between 0 and 1.")


def frame_patches(
    session: Session, frame: int, lines: Lines, plan: PatchPlan, rng: np.random.Generator
) -> dict[str, Any]:
    """Patches of a frame (or of a run of its lines) as one batch, from the top downwards.

    Only chunks that hold lines of a patch are read, each once, one after the other.

    Raises
    ------
    hsi_batch.errors.SourceError
        A chunk is missing or damaged.
    """
    height, width, _ = session.geometry.shape
    first, last = lines or (0, height)
    tall, wide = min(plan.size[0], last - first), min(plan.size[1], width)
    places = np.stack(
        [
            rng.integers(first, last - tall + 1, plan.per_frame),
            rng.integers(0, width - wide + 1, plan.per_frame),
        ],
        axis=1,
    )
    if plan.balance is not None and session.labelled:
        _move_to_anomalies(places, session, frame, (first, last), (tall, wide), plan, rng)
    corners = sorted(map(tuple, places.tolist()))
    pixels = Pixels.empty(len(corners), tall, wide, session)
    for start, stop in session.geometry.ranges():
        held = [i for i, (y, _) in enumerate(corners) if start < y + tall and stop > y]
        if not held:
            continue
        block = Block(session, frame, start, stop)
        for i in held:
            y, x = corners[i]
            top, end = max(y, start), min(y + tall, stop)
            into, rows = slice(top - y, end - y), slice(top - start, end - start)
            pixels.take(i, into, block, rows, slice(x, x + wide))
    return pixels.batch(session, frame)


def _move_to_anomalies(
    places: NDArray[np.int64],
    session: Session,
    frame: int,
    span: tuple[int, int],
    shape: tuple[int, int],
    plan: PatchPlan,
    rng: np.random.Generator,
) -> None:
    """Let a share of the patches hold an anomalous pixel, anywhere in them."""
    first, last = span
    labels = session.labels(frame, first, last)
    if labels is None:
        return
    ys, xs = np.nonzero(plan.positive(labels))
    if not ys.size:
        return
    count = round((plan.balance or 0.0) * len(places))
    for place in places[:count]:
        pick = rng.integers(len(ys))
        offset = rng.integers(shape[0]), rng.integers(shape[1])
        width = session.geometry.shape[1]
        place[0] = np.clip(first + ys[pick] - offset[0], first, last - shape[0])
        place[1] = np.clip(xs[pick] - offset[1], 0, width - shape[1])


def fill_invalid(batch: dict[str, Any]) -> dict[str, Any]:
    """Put the mean spectrum of the valid pixels of each image where pixels are not valid.

    They take no part in losses; but what is no number would still spoil gradients.
    """
    cube, valid = batch["cube"], batch["valid"]
    if bool(valid.all()):
        return batch
    cube = cube.clone()
    for image, good in zip(cube, valid, strict=True):
        values = image.numpy()
        known = values[good.numpy()]
        mean = known.mean(axis=0, dtype=np.float64) if len(known) else 0.0
        values[~good.numpy()] = np.asarray(mean).astype(values.dtype)
    return {**batch, "cube": cube}
