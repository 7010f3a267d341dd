"""Hyperspectral archives on Dask: convert, fit from exact mergeable statistics, score every pixel.

The names below are imported when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hsi_batch._version import __version__

if TYPE_CHECKING:
    from hsi_batch import plots as plots
    from hsi_batch.archive.archive import Archive, open_archive
    from hsi_batch.cluster import connect
    from hsi_batch.pipeline.pipeline import Pipeline
    from hsi_batch.stages.convert import convert
    from hsi_batch.stages.fit import fit
    from hsi_batch.stages.score import score
    from hsi_batch.training.gradient import GradientTrainer
    from hsi_batch.training.statistical import StatisticalTrainer
    from hsi_batch.training.trained_run import train
    from hsi_batch.workflow import run_workflow

__all__ = [
    "Archive",
    "GradientTrainer",
    "Pipeline",
    "StatisticalTrainer",
    "__version__",
    "connect",
    "convert",
    "fit",
    "open_archive",
    "run_workflow",
    "score",
    "train",
]

_HOMES = {
    "Archive": "hsi_batch.archive.archive",
    "GradientTrainer": "hsi_batch.training.gradient",
    "Pipeline": "hsi_batch.pipeline.pipeline",
    "StatisticalTrainer": "hsi_batch.training.statistical",
    "connect": "hsi_batch.cluster",
    "convert": "hsi_batch.stages.convert",
    "fit": "hsi_batch.stages.fit",
    "open_archive": "hsi_batch.archive.archive",
    "run_workflow": "hsi_batch.workflow",
    "score": "hsi_batch.stages.score",
    "train": "hsi_batch.training.trained_run",
}


#: Rooms that are reached without an import of their own.
_ROOMS = ("plots",)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
