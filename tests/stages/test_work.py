"""What the stages do, counted: a change that reads, decodes, sends or multiplies more fails here.

Seconds say little on a shared machine. Whoever makes the stages do less lowers these numbers.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from counting import counting_work
from graphs import rx_raw, rx_statistical
from recordings import scene, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.cluster import connect
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

FRAMES, LINES, WIDTH, CHANNELS = 6, 64, 48, 8
BLOCKS = FRAMES * LINES // 16
PIXELS = FRAMES * LINES * WIDTH
RAW = PIXELS * CHANNELS * 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("work")
    for name in ("a", "b"):
        frames = [scene(i, LINES, WIDTH, CHANNELS)[0] for i in range(FRAMES // 2)]
        write_npz(folder / "in" / f"{name}.npz", np.stack(frames))
    convert(folder / "in", folder / "a.zarr", block_lines=16, client=client)
    # What workers do as they are set up is no work of a stage.
    fit(rx_statistical(), open_archive(folder / "a.zarr"), client=client)
    return folder / "a.zarr"


def stored_bytes(archive):
    return sum(p.stat().st_size for p in archive.glob("*/cube/c.*"))


def without_statistics(archive):
    moved = [
        (p, p.with_name(f".{p.name}"))
        for n in ("moments", "extrema", "sample")
        for p in archive.glob(f"*/{n}")
    ]
    for place, aside in moved:
        place.rename(aside)
    return moved


def test_a_fit_reads_and_decodes_each_block_once_and_multiplies_it_once(archive, client):
    moved = without_statistics(archive)
    try:
        with counting_work(client) as work:
            result = fit(rx_raw(), open_archive(archive), client=client, task_bytes=RAW // 6)
    finally:
        for place, aside in moved:
            aside.rename(place)
    assert result.passes == 1
    assert work.decoded == BLOCKS
    assert work.read == stored_bytes(archive)
    # Those that read, those that say what they read, a tree that merges, and the job.
    # The last tasks are shorter.
    assert 6 <= work.leaves <= 12
    assert work.total_tasks <= 3 * work.leaves + 3
    # Once for the job, whatever the number of tasks.
    assert work.packed <= 2
    assert work.unpacked <= len(client.nthreads())
    assert work.gram_pixels == PIXELS
    assert work.gram_flops == PIXELS * CHANNELS**2


def test_the_scheduler_passes_work_on_and_loads_nothing_for_it(archive, tmp_path):
    """It would import torch and numba before the first task: seconds, and 250 MB."""
    moved = without_statistics(archive)
    try:
        with connect(workers=1) as own:
            pipeline = rx_raw()
            assert fit(pipeline, open_archive(archive), client=own).passes == 1
            score(pipeline, open_archive(archive), tmp_path / "s.zarr", client=own)
            loaded = own.run_on_scheduler(lambda: {name.partition(".")[0] for name in sys.modules})
    finally:
        for place, aside in moved:
            aside.rename(place)
    assert "distributed" in loaded
    assert not loaded & {"torch", "numba", "zarr", "xarray", "scipy"}


def test_a_fit_from_stored_statistics_touches_no_pixel_and_no_worker(archive, client):
    with counting_work(client) as work:
        result = fit(rx_raw(), open_archive(archive), client=client)
    assert result.passes == 0
    assert (work.read, work.decoded, work.total_tasks, work.gram_pixels) == (0, 0, 0, 0)


def test_a_scoring_reads_and_decodes_each_block_once(archive, client, tmp_path):
    pipeline = rx_statistical()
    fit(pipeline, open_archive(archive), client=client)
    with counting_work(client) as work:
        score(
            pipeline, open_archive(archive), tmp_path / "s.zarr", client=client, task_bytes=RAW // 6
        )
    assert work.decoded == BLOCKS
    assert work.read == stored_bytes(archive)
    # The last tasks are shorter.
    assert 6 <= work.leaves <= 12
    assert work.packed <= 2
    assert work.unpacked <= len(client.nthreads())
    # MinMax and RX are folded into one triangle, of whose rows sixteen are taken together.
    ends = [min(CHANNELS, end) for end in range(16, CHANNELS + 16, 16)]
    assert work.score_flops == PIXELS * 16 * sum(ends)
    with counting_work(client) as work:
        score(pipeline, open_archive(archive), tmp_path / "s.zarr", client=client)
    assert (work.read, work.decoded, work.total_tasks) == (0, 0, 0)


def test_a_conversion_sums_each_pixel_once_and_reads_nothing_back(archive, client, tmp_path):
    with counting_work(client) as work:
        convert(archive.parent / "in", tmp_path / "b.zarr", block_lines=16, client=client)
    assert work.gram_pixels == PIXELS
    assert (work.read, work.decoded) == (0, 0)


def test_twice_the_tasks_are_no_more_work(archive, client):
    counts = []
    for parts in (3, 12):
        moved = without_statistics(archive)
        try:
            with counting_work(client) as work:
                fit(rx_raw(), open_archive(archive), client=client, task_bytes=RAW // parts)
        finally:
            for place, aside in moved:
                aside.rename(place)
        counts.append((work.read, work.decoded, work.packed, work.gram_pixels))
    assert counts[0] == counts[1]


def test_more_blocks_ask_zarr_no_more_often(archive, tmp_path):
    """Chunks are read and written past Zarr, whose calls cost a block more than its sums."""
    calls = []
    # Of two workers, each asks for the metadata of the sessions whose blocks it happens to get.
    with connect(workers=1) as own:
        for lines in (32, 64, 16):
            store = tmp_path / f"{lines}.zarr"
            with counting_work(own) as converting:
                convert(archive.parent / "in", store, block_lines=lines, client=own)
            pipeline = rx_raw()
            fit(pipeline, open_archive(store), client=own)
            with counting_work(own) as scoring:
                score(pipeline, open_archive(store), tmp_path / f"{lines}.scores", client=own)
            calls.append((converting.store_calls, scoring.store_calls))
    # The first conversion and scoring of a process try the codecs.
    assert calls[1] == calls[2]
    assert min(calls[0]) > 0
