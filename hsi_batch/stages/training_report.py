"""What the report says of a training: metrics, ROC and weights, as fitted and as trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hsi_batch.stages.training_pictures import curves_picture, weights_picture
from hsi_batch.wording import counted

__all__ = ["training_section"]

#: Frames of each split, as people say it.
_SPLITS = {
    "val": "val",
    "test": "test",
    "train": "train: no frames were named for val and test",
}


def training_section(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page shows of the training in the provenance of a pipeline; None if there is none.

    Returns
    -------
    dict
        ``words``; ``splits`` with ``title``, ``rows`` (name, fitted, trained) and ``roc`` (SVG);
        ``selectors`` with ``name``, ``chosen`` (words) and ``picture`` (SVG).
    """
    training: Any = provenance.get("training")
    if not training or "compared" not in training:
        return None
    compared = training["compared"]
    words = (
        f"{', '.join(training['nodes'])} in {counted(int(training['epochs']), 'epoch')}, seed"
        f" {training['seed']}; minimised: {', '.join(training['losses'])}"
    )
    if training.get("best"):
        monitor, value = training["best"]
        words += f"; kept the best {monitor}, {value:.4g}"
    if training.get("tags"):
        tags = ", ".join(f"{key} {value}" for key, value in training["tags"].items())
        words += f"; tags: {tags}"
    return {
        "words": words,
        "splits": [_split(name, found) for name, found in compared["splits"].items()],
        "selectors": [_selector(name, found) for name, found in compared["weights"].items()],
    }


def _split(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": f"{_SPLITS.get(name, name)} ({counted(int(found['frames']), 'frame')})",
        "rows": [
            (metric, "-" if was is None else f"{was:.4f}", f"{now:.4f}")
            for metric, (was, now) in _with_area(found).items()
        ],
        "roc": curves_picture(found["roc"]),
    }


def _with_area(found: Mapping[str, Any]) -> dict[str, tuple[float | None, float]]:
    rows: dict[str, tuple[float | None, float]] = {}
    before, after = found["roc"]
    if before is not None and after is not None:
        rows["area under the ROC"] = before["auc"], after["auc"]
    return rows | {name: (pair[0], pair[1]) for name, pair in found["metrics"].items()}


def _selector(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    values, wavelength = found["values"], found["wavelength"]
    count = min(int(found["count"]), len(values[1]))
    # The first ones of equal weights, as selectors choose.
    chosen = [np.argsort(-np.asarray(row), kind="stable")[:count].tolist() for row in values]
    return {
        "name": name,
        "chosen": [_named(sorted(channels), wavelength) for channels in chosen],
        "picture": weights_picture(values, chosen[1], wavelength, found["mean"]),
    }


def _named(channels: list[int], wavelength: list[float] | None) -> str:
    if wavelength is None:
        return f"channel {', '.join(map(str, channels))}"
    return f"{', '.join(f'{wavelength[c]:.5g}' for c in channels)} nm"
