"""Converting against its parts: writing, the kernel of moments, checksums, each by itself.

Plain writing is what Zarr does when it is given one block after the other. Our own writer is
faster, and is compared too: what the conversion takes beyond that is the engine, and statistics
that are no part of the sum (extrema, columns, samples).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import zarr

from benchmarks.speed.archives import WORKERS, cpu_seconds, sources
from benchmarks.speed.harness import Line, Scale
from benchmarks.speed.plain import Plain
from hsi_batch.cluster import connect
from hsi_batch.engine.worker import prepare
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.convert import convert
from hsi_batch.statistics.leaves import block_lines

__all__ = ["run"]

FAMILY = "Whole stages, 2 workers"
#: Recordings that are converted: 12 frames, or 4.
_FILES = 2
_PARTS = ("write", "write by Zarr", "moments", "checksums")


def run(scale: Scale, folder: Path) -> Iterator[Line]:
    """All lines."""
    files = sources(folder, scale)[:_FILES]
    frames: list[tuple[str, int]] = []
    for path in files:
        with open_source(str(path)) as source:
            info = source.info
            frames.extend((str(path), number) for number in range(info.frames))
    size = len(frames) * info.shape[0] * info.shape[1] * info.shape[2] * info.dtype.itemsize / 1e9
    mine, spent = [], []
    parts: dict[str, list[float]] = {part: [] for part in _PARTS}
    with connect(workers=WORKERS) as client:
        prepare(client, "hsi_batch.stages.warm:converting")
        for _ in range(scale.rounds):
            target = folder / "again.zarr"
            # Memory of files that were removed a while ago may have gone back to the host, and
            # whoever writes next waits for it: not the conversion, when its parts do not.
            _alone("write", frames, info, folder / "parts")
            shutil.rmtree(folder / "parts")
            before, begun = cpu_seconds(client), time.perf_counter()
            assert convert(files, target, client=client).failed == 0
            mine.append(time.perf_counter() - begun)
            spent.append({k: v - before[k] for k, v in cpu_seconds(client).items()})
            for place in (target, target.with_name("again.zarr.hsi-batch")):
                shutil.rmtree(place)
            for part, seconds in parts.items():
                seconds.append(_alone(part, frames, info, folder / "parts"))
                shutil.rmtree(folder / "parts", ignore_errors=True)
    write, by_zarr, moments, checksums = (median(values) for values in parts.values())
    found = median(mine)
    cpu = ", ".join(f"{k} {median(one[k] for one in spent):.1f}" for k in spent[0])
    ways = (("plain writing", by_zarr, 1.0), ("our own writing", write, None))
    for way, seconds, bar in ways:
        bound = seconds + 1.1 * moments + checksums
        each = f"write {seconds:.1f}, moments {moments:.1f}, checksums {checksums:.1f} s"
        yield Line(
            FAMILY, "convert", f"its parts, each alone: {way}", found, bound, "s", found / bound,
            None, bar, True,
            note=f"{size:.1f} GB; {each}; CPU s: {cpu}",
        )  # fmt: skip


def _alone(part: str, frames: list[tuple[str, int]], info: Any, out: Path) -> float:
    job = {
        "do": "convert",
        "part": part,
        "shape": list(info.shape),
        "dtype": info.dtype.name,
        "chunk": [block_lines(info.shape, info.dtype.itemsize)],
        "out": str(out),
    }
    # Not by the processes: of two that make it at once one fails.
    zarr.create_group(out, zarr_format=3)
    plain = Plain([{**job, "name": str(i), "frames": frames[i::WORKERS]} for i in range(WORKERS)])
    try:
        return plain.run()[0]
    finally:
        plain.close()
