"""What scores look like and how they agree with labels: a value, and its files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hsi_batch.archive.store import state_folder
from hsi_batch.files import digest_of, read_npz, read_table, sealed, unsealed, write_atomically
from hsi_batch.places import Place
from hsi_batch.readers.paths import natural_key
from hsi_batch.statistics import Confusion, FloatHistogram, roc_curve

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Evaluation",
    "evaluation_problem",
    "forget_evaluation",
    "load_evaluation",
    "save_evaluation",
]

#: Bins of the histogram of all scores; those of labelled scores are exact up to a million values.
_COARSE = 2**14
#: Written last: without it nothing was evaluated.
_METRICS = "metrics.json"
_SUMMARY, _HISTOGRAMS = "summary.parquet", "histograms.npz"


@dataclass
class Evaluation:
    """What scores look like, and how they agree with labels; mergeable.

    Attributes
    ----------
    rows : list of dict
        A row per frame.
    scores : FloatHistogram
        Of all valid scores, on coarse bins.
    background, target : FloatHistogram
        Of the scores of labelled pixels that count as normal and as anomalous.
    confusion : Confusion
        Of the decisions on labelled pixels.
    decided : bool
        Whether there are decisions.
    covers : dict
        Digest of the scores of each session that is counted.
    stale : tuple of str
        Sessions in the store that are not, for they were scored with something else.
    labels : dict
        Versions of labels that scores were compared with, of sessions that were labelled after
        their conversion.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    scores: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1, _COARSE))
    background: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1))
    target: FloatHistogram = field(default_factory=lambda: FloatHistogram.zero(1))
    confusion: Confusion = field(default_factory=Confusion)
    decided: bool = False
    covers: Mapping[str, str] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def merge(self, other: Evaluation) -> Evaluation:
        """Union of both."""
        return Evaluation(
            self.rows + other.rows,
            self.scores.merge(other.scores),
            self.background.merge(other.background),
            self.target.merge(other.target),
            self.confusion.merge(other.confusion),
            self.decided or other.decided,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Over all labelled pixels, never averaged over frames; empty without labels."""
        found: dict[str, float] = {}
        curve = roc_curve(self.background, self.target)
        if curve is not None:
            found["auc"] = curve.auc
            if curve.auc_error:
                found["auc_error"] = curve.auc_error
            found["average_precision"] = curve.average_precision
        counts = self.confusion
        labelled = counts.true_positive + counts.false_negative
        if self.decided and labelled:
            found |= {
                "precision": counts.precision,
                "recall": counts.recall,
                "f1": counts.f1,
                "iou": counts.iou,
            }
        return found

    def table(self) -> pd.DataFrame:
        """The rows, sorted by session and frame."""
        import pandas as pd

        ordered = sorted(self.rows, key=lambda row: (natural_key(row["session"]), row["frame"]))
        return pd.DataFrame(ordered)


_FILES: Sequence[str] = ("scores", "background", "target")


def save_evaluation(found: Evaluation, store: str) -> None:
    """Write ``summary.parquet``, histograms and metrics beside a store of scores."""
    folder = state_folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    summary = io.BytesIO()
    found.table().to_parquet(summary)
    digests = {_SUMMARY: digest_of(summary.getvalue())}
    write_atomically(folder / _SUMMARY, summary.getvalue())
    arrays = {
        f"{name}.{key}": value
        for name in _FILES
        for key, value in getattr(found, name).to_arrays().items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    digests[_HISTOGRAMS] = digest_of(buffer.getvalue())
    write_atomically(folder / _HISTOGRAMS, buffer.getvalue())
    content = {
        "metrics": found.metrics,
        "confusion": vars(found.confusion),
        "decided": found.decided,
        "frames": len(found.rows),
        "covers": found.covers,
        "stale": found.stale,
        "labels": found.labels,
        "files": digests,
    }
    write_atomically(folder / _METRICS, sealed(content))


def forget_evaluation(store: str | Place) -> None:
    """Make sure that a run that is killed from here on is not taken for one that ended."""
    (state_folder(store) / _METRICS).unlink(missing_ok=True)


def evaluation_problem(store: str | Place) -> str | None:
    """What is wrong with these files; None if nothing is, or no run has ended."""
    if not (state_folder(store) / _METRICS).exists() or load_evaluation(store) is not None:
        return None
    return f"one of {_METRICS}, {_SUMMARY}, {_HISTOGRAMS} is not as it was written"


def _metrics(raw: bytes) -> dict[str, Any]:
    """Contents of the file of metrics; earlier versions wrote no checksum at all."""
    bare = json.loads(raw)
    if isinstance(bare, dict) and not {"files", "sha256"} & set(bare) and "covers" in bare:
        return bare
    return unsealed(raw)


def load_evaluation(store: str | Place) -> Evaluation | None:
    """What :func:`save_evaluation` left beside a store of scores; None if it is missing or torn."""
    folder = state_folder(store)
    try:
        content = _metrics((folder / _METRICS).read_bytes())
        raw = {name: (folder / name).read_bytes() for name in (_SUMMARY, _HISTOGRAMS)}
        found = {name: digest_of(part) for name, part in raw.items()}
        if content.get("files", found) != found:
            return None
        table = read_table(raw[_SUMMARY])
        file = read_npz(raw[_HISTOGRAMS])
        histograms = {
            name: FloatHistogram.from_arrays(
                {
                    key.partition(".")[2]: value
                    for key, value in file.items()
                    if key.startswith(f"{name}.")
                }
            )
            for name in _FILES
        }
        rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
        return Evaluation(
            rows,
            **histograms,
            confusion=Confusion(**content["confusion"]),
            decided=bool(content["decided"]),
            covers=content["covers"],
            stale=tuple(content["stale"]),
            labels=content.get("labels", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
