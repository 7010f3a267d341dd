"""Many tiny frames in many sessions, some broken: one run, and exactly the broken ones listed."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import start
from recordings import write_cu3s
from simulated_cuvis import Fault

FRAMES = 12
RX = Path(__file__).parents[1] / "rx_raw.yaml"


def write(folder, sessions, broken):
    """Sessions of twelve frames; ``broken`` are pairs of session and frame."""
    rng = np.random.default_rng(3)
    for i in range(sessions):
        frames = list(rng.integers(0, 4000, (FRAMES, 6, 5, 7)).astype("uint16"))
        faults = [Fault("get_mesu", frame=k) for s, k in broken if s == i]
        write_cu3s(folder / f"g{i // 100:03d}" / f"s{i:05d}.cu3s", frames, faults=faults)


def run(*arguments):
    """Run a command; its exit code, its JSON, its seconds, and the most memory it took in MB."""
    begun, peaks = time.monotonic(), [0]
    process = start(*arguments, "--json", "--workers", "2")

    def watch():
        with suppress(psutil.Error):
            while process.poll() is None:
                peaks.append(psutil.Process(process.pid).memory_info().rss)
                time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    out, _ = process.communicate()
    return process.returncode, json.loads(out), time.monotonic() - begun, max(peaks) / 1e6


@pytest.mark.timeout(5400)
@pytest.mark.parametrize("sessions", [25, pytest.param(2000, marks=pytest.mark.slow)])
def test_exactly_the_broken_ones_are_listed(sessions, tmp_path, simulated_cuvis, record_property):
    rng = np.random.default_rng(7)
    chosen = rng.choice(sessions * FRAMES, sessions * FRAMES // 100, replace=False)
    broken = sorted((int(n) // FRAMES, int(n) % FRAMES) for n in chosen)
    write(tmp_path / "in", sessions, broken)
    archive, fitted, scores = (tmp_path / name for name in ("a.zarr", "f.yaml", "s.zarr"))
    code, found, *cost = run("convert", tmp_path / "in", "--archive", archive)
    told = {"convert": cost}
    assert code == 1
    assert (len(found["converted"]), found["failed"]) == (sessions, len(broken))
    listed = sorted((f["key"]["session"][-5:], f["key"]["frame"]) for f in found["failures"])
    assert listed == [(f"{session:05d}", frame) for session, frame in broken]
    code, _, *told["fit"] = run("fit", RX, "--archive", archive, "--out", fitted)
    assert code == 0
    code, found, *told["score"] = run("score", fitted, "--archive", archive, "--out", scores)
    assert code == 0
    assert found["blocks"] == sessions * FRAMES - len(broken)
    for stage, (seconds, megabytes) in told.items():
        line = f"{seconds:.0f} s, {megabytes:.0f} MB in the driver"
        record_property(stage, line)
        print(f"{sessions} sessions, {stage}: {line}")
    assert max(megabytes for _, megabytes in told.values()) < 2000
