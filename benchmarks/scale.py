"""Where scheduler, driver and records saturate: costs per task, and a check by 200 tiny workers.

``python -m benchmarks.scale`` prints what docs/scale.md quotes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import Client

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window
from hsi_batch.stages.run import TaskReport


def tiny(items, _key, seconds):
    """What a task is to scheduler and driver: time, and a small report."""
    time.sleep(seconds)
    return TaskReport(done=len(items), done_bytes=len(items))


#: So many workers share two cores here: what each does while it has no work must be little.
IDLE = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "5s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "30s",
}


@contextmanager
def many_workers(count: int, per_process: int):
    """A scheduler process, and workers of one thread each, many in a process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        python = [sys.executable, "-m"]
        options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        quiet["env"] = {**os.environ, **IDLE}
        scheduler = subprocess.Popen(
            [*python, "distributed.cli.dask_scheduler", *options, "--no-dashboard"], **quiet
        )
        started = [scheduler]
        try:
            while not file.exists():
                time.sleep(0.05)
            address = json.loads(file.read_text())["address"]
            made = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "dashboard": False}
            one = {"cls": "distributed.Worker", "opts": {**made, "local_directory": folder}}
            for _ in range(count // per_process):
                spec = json.dumps({str(i): one for i in range(per_process)})
                command = [*python, "distributed.cli.dask_spec", address, "--spec", spec]
                started.append(subprocess.Popen(command, **quiet))
            with Client(address) as client:
                client.wait_for_workers(count, timeout=180)
                yield client, psutil.Process(scheduler.pid), started[1:]
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measure(client, scheduler, workers, seconds: float, tasks: int) -> dict[str, float]:
    """Tasks per second, and CPU seconds per task of scheduler, driver and workers."""
    hosts = [psutil.Process(process.pid) for process in workers]
    threads = sum(client.nthreads().values())
    before = spent(scheduler), time.process_time(), sum(map(spent, hosts))
    begun = time.monotonic()
    items = tuple(range(10))
    work = (Task(f"tiny-{seconds}-{i}", items) for i in range(tasks))
    done = sum(outcome.result.done for outcome, _ in run_window(client, tiny, work, seconds))
    wall = time.monotonic() - begun
    assert done == 10 * tasks
    after = spent(scheduler), time.process_time(), sum(map(spent, hosts))
    costs = [(b - a) / tasks for a, b in zip(before, after, strict=True)]
    # All share the cores of this machine; at most so many tasks are at work, and the last ones end
    # together.
    rounds = -(-tasks // threads)
    ideal = tasks / (rounds * seconds)
    bound = min(ideal, psutil.cpu_count() / sum(costs), 1 / costs[0], 1 / costs[1])
    return {
        "workers": threads,
        "seconds": seconds,
        "rate": tasks / wall,
        "model": bound,
        **dict(zip(("scheduler", "driver", "worker"), costs, strict=True)),
    }


def record_costs(count: int) -> tuple[float, float, float]:
    """Seconds to write and to load a record, and bytes of memory that a loaded one takes."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder))
        made = [
            BlockRecord(
                BlockKey(f"session_{i // 1000:05d}", i % 1000, 0, 128),
                "done",
                "0123456789abcdef" * 2,
                tail="89abcdef",
                checksum=i,
                seconds=0.1234,
                worker="tls://10.0.0.1:40000",
                info={"time_ms": None, "frame_id": i % 1000, "pixels": 131072},
            )
            for i in range(count)
        ]
        begun = time.perf_counter()
        records.pack(made)
        write = (time.perf_counter() - begun) / count
        del made
        begun = time.perf_counter()
        held = records.load()
        load = (time.perf_counter() - begun) / count
        del held
        tracemalloc.start()
        held = records.load()
        size = tracemalloc.get_traced_memory()[0] / len(held)
        tracemalloc.stop()
        return write, load, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=2000)
    given = parser.parse_args()
    write, load, size = record_costs(100_000)
    print(f"a record: {write * 1e6:.1f} us to write, {load * 1e6:.1f} us to load, {size:.0f} bytes")
    print("workers  task s  tasks/s  model  ms per task: scheduler  driver  worker")
    for workers in (given.workers // 4, given.workers):
        with many_workers(workers, 25) as (client, scheduler, processes):
            measure(client, scheduler, processes, 0.01, workers)
            for seconds in (4.0, 1.0, 0.0):
                tasks = min(given.tasks, workers * 4)
                tasks -= tasks % workers
                found = (
                    measure(client, scheduler, processes, seconds, tasks)
                    if seconds
                    else (measure(client, scheduler, processes, 1e-4, given.tasks))
                )
                print(
                    f"{found['workers']:7d} {found['seconds']:7.4f} {found['rate']:8.0f}"
                    f" {found['model']:6.0f} {found['scheduler'] * 1e3:23.2f}"
                    f" {found['driver'] * 1e3:7.2f} {found['worker'] * 1e3:7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
