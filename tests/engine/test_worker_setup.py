"""Workers are set up for array work, whoever started them, and as often as one likes."""

from __future__ import annotations

import os

from archive_helpers import TESTS, run_script
from engine_tasks import mapped_blocks, setup_calls, thread_counts, unpacked_pipeline
from graphs import rx_statistical

from hsi_batch.engine.worker import base_memory, environment, peak_memory, prepare
from hsi_batch.pipeline.cache import pack

WARM = "hsi_batch.stages.warm:scoring"


def on_every_worker(client, function, *arguments):
    """Run a task (in the thread that runs tasks) on each worker."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    assert len(workers) == 2
    return client.gather(
        [client.submit(function, *arguments, workers=[w], pure=False) for w in workers]
    )


def test_every_pool_has_one_thread_where_tasks_run(client):
    prepare(client, WARM)
    for counts in on_every_worker(client, thread_counts, (), ""):
        assert counts["blas and openmp"]
        assert set(counts["blas and openmp"]) == {1}
        assert counts["torch"] == 1
        assert counts["numba"] == 1
        assert counts["dask"] == 1
        assert counts["blosc"] is False
        assert counts["zarr"] == 2


PLAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from engine_tasks import mapped_blocks
print(*mapped_blocks())
"""


def test_malloc_keeps_large_blocks_instead_of_mapping_them(client):
    prepare(client, WARM)
    for mapped, kept in on_every_worker(client, mapped_blocks):
        assert mapped == 0
        assert kept >= 20 * 2**20
    # What Dask sets by default makes each such block a mapping of its own.
    plain = run_script(PLAIN, TESTS, env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"})
    assert plain.output.split()[0] == "1", plain.errors


def test_setting_up_again_does_nothing(client):
    prepare(client, "engine_tasks:warm")
    before = on_every_worker(client, setup_calls)
    assert min(before) == 1
    for _ in range(3):
        prepare(client, "engine_tasks:warm")
    assert on_every_worker(client, setup_calls) == before


def test_memory_is_measured_per_worker_and_peaks_from_the_base(client):
    base, peak = base_memory(client), peak_memory(client)
    assert base.keys() == peak.keys()
    assert len(base) == 2
    for worker, size in base.items():
        assert 10 * 2**20 < size <= peak[worker]


def test_the_environment_names_what_decides_the_last_bits():
    found = environment()
    assert "openblas" in found["blas"]
    assert all(found[key] for key in ("host", "cpu", "python"))


def test_a_pipeline_is_built_once_per_worker_whatever_the_number_of_tasks(client):
    packed = pack(rx_statistical())
    again = pack(rx_statistical())
    assert packed.digest == again.digest
    assert pack(rx_statistical(eps=1.0)).digest != packed.digest
    futures = [
        client.submit(unpacked_pipeline, (), "", one, pure=False) for one in [packed, again] * 8
    ]
    built = set()
    for pid, identity, nodes in client.gather(futures):
        built.add((pid, identity))
        assert {"norm", "rx"} <= set(nodes)
    # One object in each process that took part.
    assert len(built) == len({pid for pid, _ in built})
