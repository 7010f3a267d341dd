"""What a pipeline was fitted on: the pixels as recorded, and words for its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hsi_batch.statistics.moments import Moments
from hsi_batch.wording import counted

__all__ = ["FIT_TAGS", "Reference", "fit_tags"]

#: Keys of the tags that say what a pipeline was fitted on.
FIT_TAGS = ("fitted", "fitted-on", "fitted-data", "fitted-with")


@dataclass(frozen=True)
class Reference:
    """Moments of the recorded pixels that a pipeline was fitted on.

    Attributes
    ----------
    count : int
    mean : numpy.ndarray of float64, shape (C,)
    covariance : numpy.ndarray of float64, shape (C, C)
        Sample covariance (n - 1).
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, moments: Moments | None) -> Self | None:
        """From a statistic; None without one of at least two pixels."""
        if moments is None or moments.count < 2:
            return None
        return cls(moments.count, moments.mean, moments.covariance())

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays for the disk."""
        return {
            "count": np.array(self.count),
            "mean": self.mean,
            "covariance": self.covariance,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(int(arrays["count"]), arrays["mean"], arrays["covariance"])


def fit_tags(tags: Sequence[str], provenance: Mapping[str, Any]) -> list[str]:
    """Tags of a pipeline's metadata, with those that say what it was fitted on brought up to date.

    They are tags because the metadata of the cuvis-ai family has no other room for them.

    Examples
    --------
    >>> fit_tags(["rx", "fitted: 2025-01-01"], {})
    ['rx']
    """
    own = [tag for tag in tags if tag.split(": ", 1)[0] not in FIT_TAGS]
    if not provenance.get("date"):
        return own
    said = {"fitted": provenance["date"]}
    if "archive" in provenance:
        chosen = provenance.get("selection") or "everything"
        said["fitted-on"] = (
            f"{provenance['archive']} ({chosen}): {counted(provenance['frames'], 'frame')} of"
            f" {counted(provenance['sessions'], 'session')},"
            f" {counted(provenance['pixel_count'], 'pixel')} ({provenance['pixels']})"
        )
        if provenance.get("groups"):
            said["fitted-on"] += f", one background per {provenance['background']}"
    if "data_digest" in provenance:
        said["fitted-data"] = provenance["data_digest"]
    if "software" in provenance:
        said["fitted-with"] = provenance["software"]
    return [*own, *(f"{key}: {value}" for key, value in said.items())]
