"""Refits and plans of archives of many frames, copies of one session: what is found adds up."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.cubes import cube
from benchmarks.speed.harness import Line, Scale

__all__ = ["run"]

FAMILY = "Many frames"
_FRAMES, _SIDE, _CHANNELS = 100, 64, 61
_REFIT_SECONDS, _PLAN_SECONDS, _PLAN_MB = 20.0, 10.0, 1000.0

_PLAN = """
import json, sys, time
from hsi_batch import Pipeline, fit, score
from hsi_batch.engine.worker import memory_peak
archive, fitted, refit = sys.argv[1:]
begun = time.perf_counter()
if refit == "fit":
    result = fit(fitted, archive, dry_run=True)
    frames = result.frames
else:
    pipeline = Pipeline.from_yaml(fitted)
    result = score(pipeline, archive, archive + ".scores", dry_run=True)
    frames = result.plan.blocks
seconds = time.perf_counter() - begun
# Not that of getrusage, which remembers the process that started this one.
print(json.dumps([frames, seconds, memory_peak() / 1e6]))
"""


def run(scale: Scale, folder: Path) -> Iterator[Line]:
    """All lines."""
    from hsi_batch import fit, open_archive
    from hsi_batch.cluster import connect

    sessions = scale.sessions
    archive = _archive(folder, sessions, copies=True)
    with connect(workers=2) as client:
        chosen = "glob:*[::2]"
        count = len(open_archive(archive).select(chosen))
        one = _graph()
        fit(one, archive, frames="s00000[::2]", client=client)
        pipeline = _graph()
        begun = time.perf_counter()
        result = fit(pipeline, archive, frames=chosen, client=client)
        seconds = time.perf_counter() - begun
    assert result.passes == 0, f"{result.passes} passes"
    # The same pixels again and again: counts add up, and the biased covariance stays.
    pixels = result.pixels / sessions
    ratio = (result.pixels - 1) / result.pixels * pixels / (pixels - 1)
    found, expected = (p.nodes["rx"].state["covariance"] for p in (pipeline, one))
    error = float(np.abs(found * ratio - expected).max() / np.abs(expected).max())
    assert error < 1e-10, f"the covariance differs by {error:.0e}"
    what = f"refit, every second of {sessions * _FRAMES} frames of {sessions} sessions"
    yield Line(
        FAMILY, what, "", seconds, 0, "s", seconds, None, _REFIT_SECONDS, True,
        note=f"{count} frames; covariance exact to {error:.0e}",
    )  # fmt: skip
    fitted = folder / "many.yaml"
    one.save(fitted)
    unfitted = folder / "unfitted.yaml"
    _graph(one_pass=True).save(unfitted)
    many = _archive(folder, 10 * sessions, copies=False)
    for stage, file in (("fit", unfitted), ("score", fitted)):
        gc.collect()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PLAN, str(many), str(file), stage],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        planned, seconds, top = json.loads(done.stdout.splitlines()[-1])
        assert planned == 10 * sessions * _FRAMES, planned
        what = f"plan of a {stage}, {planned} frames of {10 * sessions} sessions"
        yield Line(FAMILY, what, "", seconds, 0, "s", seconds, None, _PLAN_SECONDS, True)
        what += ": memory"
        yield Line(FAMILY, what, "", top, 0, "MB", top, None, _PLAN_MB, True)
    shutil.rmtree(many)
    shutil.rmtree(archive)


def _graph(*, one_pass: bool = False) -> Any:
    from hsi_batch import Pipeline
    from hsi_batch.nodes import AnomalyDataNode, MinMaxNormalizer, PerPixelUnitNorm, RXGlobal

    pipeline = Pipeline("many")
    data, rx = AnomalyDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    norm = PerPixelUnitNorm(name="n") if one_pass else MinMaxNormalizer(name="n")
    pipeline.connect((data.outputs.cube, norm.data), (norm.normalized, rx.data))
    return pipeline


def _archive(folder: Path, sessions: int, *, copies: bool) -> Path:
    """An archive of copies of a session without its pixels; or of links to its files."""
    from hsi_batch import convert
    from hsi_batch.archive.catalog import save_catalog
    from hsi_batch.archive.gathering import consolidate
    from hsi_batch.archive.store import ARCHIVE, open_root

    archive = folder / f"many-{sessions}.zarr"
    source = folder / "many" / "s.npz"
    if not source.exists():
        source.parent.mkdir(parents=True)
        frames = np.stack([cube(_SIDE, _SIDE, _CHANNELS, seed) for seed in range(_FRAMES)])
        np.savez(source, cube=frames, wavelengths=np.linspace(400, 1000, _CHANNELS))
    convert(source, archive, workers=1)
    first = archive / "s"
    for name in ("cube", "sample"):
        for chunk in (first / name).glob("c.*"):
            chunk.unlink()
    for number in range(sessions):
        copied = archive / f"s{number:05d}"
        shutil.copytree(first, copied, copy_function=shutil.copy2 if copies else os.link)
    shutil.rmtree(first)
    root = open_root(archive, ARCHIVE, "r+")
    consolidate(root)
    save_catalog(archive, root)
    return archive
