"""``MinMax -> SoftChannelSelector -> RX`` from a converted archive, and by cuvis-ai from npz."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.speed.archives import WORKERS, converted, sources, without_statistics
from benchmarks.speed.harness import Line, Scale
from hsi_batch.archive import open_archive
from hsi_batch.cluster import connect
from hsi_batch.engine.worker import prepare
from hsi_batch.nodes import AnomalyDataNode, MinMaxNormalizer, RXGlobal, SoftChannelSelector
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.forward import resolve_batch
from hsi_batch.stages.fit import fit

__all__ = ["run"]

FAMILY = "Fit of MinMax, SoftChannelSelector, RX"
#: 4 GB.
_FRAMES = 33


def graph() -> Pipeline:
    """The graph, unfitted."""
    pipeline = Pipeline("selector")
    data = AnomalyDataNode(name="data")
    norm = MinMaxNormalizer(name="norm")
    selector = SoftChannelSelector(15, name="selector", init_method="variance")
    node = RXGlobal(name="rx", eps=0.0)
    pipeline.connect(
        (data.outputs.cube, norm.data),
        (norm.normalized, selector.data),
        (selector.selected, node.data),
    )
    return pipeline


class _Frames:
    """Batches of one frame, read from the recordings as they are asked for."""

    def __init__(self, files: list[Path], frames: int) -> None:
        self._files = files
        self._frames = frames

    def __len__(self) -> int:
        return self._frames

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import torch

        left = self._frames
        for path in self._files:
            with np.load(path) as content:
                cube, wavelengths = content["cube"], content["wavelengths"].astype(np.int32)
            for frame in cube[:left]:
                left -= 1
                yield {
                    "cube": torch.from_numpy(frame.astype(np.float32))[None],
                    "wavelengths": torch.from_numpy(wavelengths)[None],
                }
            if not left:
                return


class _Data:
    """What their trainer asks of a data module."""

    def __init__(self, frames: _Frames) -> None:
        self._frames = frames

    def setup(self, stage: str) -> None:
        """Nothing to do."""

    def train_dataloader(self) -> _Frames:
        return self._frames


def run(scale: Scale, folder: Path) -> Iterator[Line]:
    """All lines."""
    frames = min(scale.frames, _FRAMES)
    archive, files = converted(folder, scale), sources(folder, scale)
    names = sorted(open_archive(archive))
    whole, rest = divmod(frames, 6)
    chosen = [*names[:whole], *([f"{names[whole]}[0:{rest}]"] if rest else [])]
    theirs, node = _cuvis(_Frames(files, frames), folder)
    found: dict[int, list[float]] = {0: [], 1: []}
    pipeline = graph()
    with connect(workers=WORKERS) as client:
        prepare(client, "hsi_batch.stages.warm:scoring")
        fit(graph(), open_archive(archive), frames=chosen, client=client)
        for _ in range(max(scale.rounds, 2)):
            found[0].append(_ours(pipeline := graph(), archive, chosen, client, 0))
        with without_statistics(archive):
            for _ in range(scale.rounds):
                found[1].append(_ours(pipeline := graph(), archive, chosen, client, 1))
    # Their covariance passes through float32.
    ours = pipeline.nodes["rx"].state["covariance"]
    scale_of = np.sqrt(np.outer(np.diag(ours), np.diag(ours)))
    error = float((np.abs(node.cov.double().numpy() - ours) / scale_of).max())
    assert error < 1e-3, f"the covariances differ by {error:.1e}"
    gigabytes = frames * scale.recording_lines * 0.000122
    for passes, bar in ((0, 100.0), (1, 8.0)):
        mine = median(found[passes])
        what = "statistics removed, one pass" if passes else "statistics kept, no pass"
        note = f"{gigabytes:.1f} GB; covariances agree to {error:.0e}"
        yield Line(
            FAMILY, what, "cuvis-ai StatisticalTrainer", mine, theirs, "s", theirs / mine, None,
            bar, note=note,
        )  # fmt: skip


def _ours(pipeline: Pipeline, archive: Path, chosen: list[str], client: Any, passes: int) -> float:
    begun = time.perf_counter()
    result = fit(pipeline, open_archive(archive), frames=chosen, client=client)
    assert result.passes == passes, f"{result.passes} passes"
    return time.perf_counter() - begun


def _cuvis(frames: _Frames, folder: Path) -> tuple[float, Any]:
    import torch
    from cuvis_ai_core.pipeline.pipeline import CuvisPipeline
    from cuvis_ai_core.training import StatisticalTrainer
    from loguru import logger

    logger.remove()
    pipeline = graph()
    resolve_batch(pipeline, next(iter(frames)))
    path = pipeline.save(folder / "theirs.yaml", dialect="cuvis-ai")
    loaded = CuvisPipeline.load_pipeline(path)
    begun = time.perf_counter()
    with torch.no_grad():
        StatisticalTrainer(loaded, _Data(frames)).fit()
    seconds = time.perf_counter() - begun
    return seconds, next(node for node in loaded.nodes() if node.name == "rx")
