"""A whole fit and a whole scoring against the ideal of plain processes; starting workers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.speed.archives import (
    WORKERS,
    chunk_jobs,
    converted,
    cpu_seconds,
    faults,
    without_statistics,
)
from benchmarks.speed.harness import Line, Scale
from benchmarks.speed.plain import Plain
from hsi_batch.archive import open_archive
from hsi_batch.cluster import connect
from hsi_batch.engine.worker import prepare
from hsi_batch.nodes import CU3SDataNode, RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

__all__ = ["run"]

FAMILY = "Whole stages, 2 workers"


def run(scale: Scale, folder: Path) -> Iterator[Line]:
    """All lines."""
    archive = converted(folder, scale)
    yield _start(scale)
    with connect(workers=WORKERS) as client:
        prepare(client, "hsi_batch.stages.warm:scoring")
        yield from _fit(scale, archive, client, folder)
        yield from _score(scale, archive, client, folder)


def rx() -> Pipeline:
    """RX of raw pixels."""
    pipeline = Pipeline("rx")
    data, node = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    pipeline.connect((data.outputs.cube, node.data))
    return pipeline


def _start(scale: Scale) -> Line:
    seconds = []
    for _ in range(scale.rounds):
        begun = time.perf_counter()
        with connect(workers=WORKERS) as client:
            prepare(client, "hsi_batch.stages.warm:scoring")
            seconds.append(time.perf_counter() - begun)
    found = median(seconds)
    note = "until kernels are warm"
    return Line(FAMILY, "start of the workers", "", found, 0, "s", found, None, 4.0, True, note)


def _gigabytes(archive: Path) -> float:
    data = open_archive(archive)
    return sum(data[name].cube.nbytes for name in data) / 1e9


def _fit(scale: Scale, archive: Path, client: Any, folder: Path) -> Iterator[Line]:
    size = _gigabytes(archive)
    pipeline = rx()
    plain = Plain(chunk_jobs(archive, do="fit", warm=True))

    def ours() -> None:
        nonlocal pipeline
        pipeline = rx()
        assert fit(pipeline, open_archive(archive), client=client).passes == 1

    with without_statistics(archive):
        mine, ideal, spent, plain_cpu, faulted, found = _rounds(scale.rounds, client, ours, plain)
    plain.close()
    count = sum(part["count"] for part in found)
    total = np.sum([part["sum"] for part in found], axis=0)
    mean = pipeline.nodes["rx"].state["mean"]
    assert np.allclose(mean, total / count, rtol=1e-14), "the mean of the ideal is another one"
    fit(pipeline, open_archive(archive), client=client)
    pipeline.save(folder / "rx.yaml")
    yield from _lines("fit, one pass", size, mine, ideal, spent, plain_cpu, faulted, 0.90)


def _score(scale: Scale, archive: Path, client: Any, folder: Path) -> Iterator[Line]:
    size = _gigabytes(archive)
    pipeline = Pipeline.from_yaml(folder / "rx.yaml")
    job = {"do": "score", "warm": True, "pipeline": str(folder / "rx.yaml")}
    plain = Plain(chunk_jobs(archive, **job, out=str(folder / "ideal")))
    store = folder / "scores.zarr"

    def clear() -> None:
        for place in (store, store.with_name("scores.zarr.hsi-batch")):
            shutil.rmtree(place, ignore_errors=True)
        for file in (folder / "ideal").iterdir():
            file.unlink()

    def ours() -> None:
        assert score(pipeline, open_archive(archive), store, client=client).failed == 0

    mine, ideal, spent, plain_cpu, faulted, found = _rounds(
        scale.rounds, client, ours, plain, clear
    )
    plain.close()
    stored = open_archive_scores(store)
    expected = sum(part["sum"] for part in found)
    assert np.isclose(stored, expected, rtol=1e-9), "the scores of the ideal are others"
    yield from _lines("score, with writing", size, mine, ideal, spent, plain_cpu, faulted, 0.85)


def open_archive_scores(store: Path) -> float:
    """Sum of all scores of a store."""
    import zarr

    root = zarr.open_group(store, mode="r")
    return float(sum(group["scores"][:].sum(dtype=np.float64) for _, group in root.groups()))


def _rounds(
    rounds: int,
    client: Any,
    ours: Callable[[], None],
    plain: Plain,
    clear: Callable[[], None] = lambda: None,
) -> Any:
    """Ours and the ideal in turns, after one of each that is not counted.

    The order turns round with every round. What both wrote before is removed (``clear``) outside of
    the clock.
    """
    clear()
    ours()
    plain.run()
    mine, ideal, plain_cpu = [], [], []
    spent: dict[str, list[float]] = {}
    faulted = []

    def time_ours() -> None:
        before, first = cpu_seconds(client), faults(client)
        begun = time.perf_counter()
        ours()
        mine.append(time.perf_counter() - begun)
        faulted.append(faults(client) - first)
        for name, value in cpu_seconds(client).items():
            spent.setdefault(name, []).append(value - before[name])

    def time_ideal() -> Any:
        seconds, said = plain.run()
        ideal.append(seconds)
        plain_cpu.append(sum(part["cpu"] for part in said))
        return said

    for turn in range(rounds):
        clear()
        if turn % 2 == 0:
            time_ours()
        said = time_ideal()
        if turn % 2:
            time_ours()
    return mine, ideal, spent, plain_cpu, faulted, [part["found"] for part in said]


def _lines(
    what: str,
    size: float,
    mine: list[float],
    ideal: list[float],
    spent: dict[str, list[float]],
    plain_cpu: list[float],
    faulted: list[int],
    bar: float,
) -> Iterator[Line]:
    ratio = median(b / a for a, b in zip(mine, ideal, strict=True))
    parts = ", ".join(f"{name} {median(values):.1f}" for name, values in spent.items())
    note = f"{size:.1f} GB; CPU s: {parts}, ideal {median(plain_cpu):.1f}"
    cpu = median(plain_cpu) / sum(median(values) for values in spent.values())
    yield Line(
        FAMILY, what, "ideal", size / median(mine), size / median(ideal), "GB/s", ratio, None, bar,
        note=f"{note} ({100 * cpu:.0f} %)",
    )  # fmt: skip
    per = median(faulted) / WORKERS / size
    yield Line(
        FAMILY, f"{what}: page faults per worker and GB", "", per, 0, "", per, None, 1000, True
    )
