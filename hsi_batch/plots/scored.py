"""Scores as functions of this room are given them."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import xarray as xr

from hsi_batch.archive.store import SCORES, groups_of, open_root
from hsi_batch.errors import ConfigError, StoreError, did_you_mean
from hsi_batch.places import place, zarr_store
from hsi_batch.stages.evaluation import Evaluation, load_evaluation
from hsi_batch.stages.score_result import ScoreResult

__all__ = ["Scores", "evaluation_of", "maps_of", "name_of", "store_of"]

#: A store of scores: what :func:`hsi_batch.score` returns, or a path.
Scores: TypeAlias = ScoreResult | str | os.PathLike[str]


def store_of(scores: Scores) -> str:
    """Where scores are."""
    return scores.store if isinstance(scores, ScoreResult) else os.fspath(scores)


def name_of(scores: Scores | Evaluation) -> str:
    """A short name for a legend."""
    return "" if isinstance(scores, Evaluation) else place(store_of(scores)).name


def evaluation_of(scores: Scores | Evaluation) -> Evaluation:
    """Histograms and counts that scoring left beside the scores.

    Raises
    ------
    hsi_batch.errors.StoreError
        No scores there, or scoring was not finished.
    """
    if isinstance(scores, Evaluation):
        return scores
    where = place(store_of(scores))
    open_root(where, SCORES)
    found = load_evaluation(where)
    if found is None:
        raise StoreError(
            "the summary of the scores is missing.",
            path=str(where),
            hint="Finish scoring first: run hsi-batch score again.",
        )
    return found


def maps_of(scores: Scores | xr.Dataset, session: str | None) -> tuple[xr.Dataset, str]:
    """Maps of one session, lazily, and its name.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The session was not named, or was not scored.
    """
    if isinstance(scores, xr.Dataset):
        return scores, session or str(scores.attrs.get("session") or "")
    where = place(store_of(scores))
    names = sorted(groups_of(open_root(where, SCORES)))
    if session is None and len(names) == 1:
        (session,) = names
    if session not in names:
        said = "no session was named" if session is None else f"{session!r} was not scored"
        raise ConfigError(
            f"{said}; there are {len(names)}.{did_you_mean(session or '', names)}",
            path=str(where),
            hint="See the sessions with hsi-batch ls.",
        )
    dataset: Any = xr.open_zarr(
        zarr_store(where), group=session, chunks={}, consolidated=False, zarr_format=3
    )
    return dataset, session
