"""Train frames that are in val or test too."""

from __future__ import annotations

import warnings

from hsi_batch.archive.selection import Selection
from hsi_batch.data.module import DataModule, Split
from hsi_batch.errors import ConfigError, DataWarning

__all__ = ["check_splits"]


def check_splits(datamodule: DataModule) -> None:
    """Raise for frames (or lines of them) that are trained on and then judged.

    If no frames were named at all, each split is everything, and there is a warning.

    Raises
    ------
    hsi_batch.errors.ConfigError
    """
    if datamodule.undivided:
        warnings.warn(
            "no frames were named for train, val and test, so metrics are of the frames that are"
            " trained on.",
            DataWarning,
            stacklevel=4,
        )
        return
    train = datamodule.selection("train")
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        if not datamodule.has(split):
            continue
        both = _shared(datamodule, train, datamodule.selection(split))
        if both:
            shown = ", ".join(f"{name}[{frame}]" for name, frame in both[:5])
            more = f" and {len(both) - 5} more" if len(both) > 5 else ""
            raise ConfigError(
                f"{len(both)} frames are in train and in {split}: {shown}{more}.",
                hint="Metrics of frames that were trained on say nothing; name others.",
            )


def _shared(datamodule: DataModule, train: Selection, other: Selection) -> list[tuple[str, int]]:
    found = []
    for name, frame, lines in other:
        if frame not in train.frames.get(name, {}):
            continue
        height = datamodule.archive.session(name).geometry.shape[0]
        first, last = lines or (0, height)
        start, stop = train.frames[name][frame] or (0, height)
        if first < stop and start < last:
            found.append((name, frame))
    return found
