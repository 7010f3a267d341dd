"""What a training leaves as it found it: loggers, randomness, the device of the pipeline."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch

from hsi_batch.errors import HsiBatchWarning
from hsi_batch.pipeline.pipeline import Pipeline

__all__ = ["on_the_cpu_after", "own_randomness", "quiet"]

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of the library's own; warnings of ours go on."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in (r"pytorch_lightning", r"lightning_fabric", r"torch", r"torchmetrics"):
                warnings.filterwarnings("ignore", module=module)
            warnings.filterwarnings("default", category=HsiBatchWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def own_randomness() -> Iterator[None]:
    """Leave the generators of whoever calls as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=devices):
        yield
    torch.use_deterministic_algorithms(deterministic)


@contextlib.contextmanager
def on_the_cpu_after(pipeline: Pipeline) -> Iterator[None]:
    """Bring a pipeline back from wherever it was trained."""
    try:
        yield
    finally:
        pipeline.to("cpu")
