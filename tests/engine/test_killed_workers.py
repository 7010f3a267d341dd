"""Workers die: their work is done again, and a task that kills them all is found and left out."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import dask
import pytest
from engine_tasks import (
    counting_in_flight,
    deadly,
    deadly_once,
    doubled,
    hanging_once,
    key_of,
    words,
)

from hsi_batch.cluster import connect
from hsi_batch.engine import window
from hsi_batch.engine.reduce import TreeReduction
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window
from hsi_batch.engine.worker import ask_workers
from hsi_batch.errors import HsiBatchWarning


@pytest.fixture(scope="module")
def victims(client):
    """Two workers that may be killed; a task may kill two before Dask gives it up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
        own = connect(workers=2)
    with own:
        yield own


def wait_for_two(client):
    client.wait_for_workers(2, timeout=60)


def attempts(folder):
    return Counter(int(path.name.split("-")[0]) for path in folder.iterdir() if path.is_file())


def test_the_work_of_a_killed_worker_is_done_again_and_no_other(victims, tmp_path):
    wait_for_two(victims)
    tasks = [Task(f"once-{n:06d}", (n,)) for n in range(30)]
    done = [o for o, _ in run_window(victims, deadly_once, tasks, str(tmp_path))]
    assert sorted(o.result[0] for o in done) == [2 * n for n in range(30)]
    assert (tmp_path / "died").is_dir()
    tried = attempts(tmp_path)
    assert tried[3] == 2
    # What was done but not told yet when the worker died is done again, and nothing else.
    again = {n: c for n, c in tried.items() if c > 1}
    assert len(again) <= 3
    assert set(again.values()) == {2}


@pytest.mark.parametrize("peek", [None, key_of])
def test_a_result_that_is_made_again_while_others_are_fetched_is_not_lost(
    client, monkeypatch, peek
):
    """Its worker died before results were asked for, and it was made anew before they came."""
    missed = []

    def without_one(client, futures, *rest):
        if futures and len(missed) < 3:
            missed.append(futures[0])
            futures = futures[1:]
        return fetched(client, futures, *rest)

    fetched = window._results
    monkeypatch.setattr(window, "_results", without_one)
    tasks = [Task(f"anew-{n:06d}", (n,)) for n in range(9)]
    found = [o.result for o, _ in run_window(client, doubled, tasks, keep=bool(peek), peek=peek)]
    assert len(missed) == 3
    made = [doubled(task.items, task.key) for task in tasks]
    assert sorted(found) == sorted(map(peek, made) if peek else made)


def test_results_on_a_worker_that_died_are_not_waited_for(victims, monkeypatch):
    """Dask tries to reach it for as long as a connection may take: minutes on large clusters."""
    wait_for_two(victims)
    killed = []

    async def unreachable(futures, **keywords):
        if not killed and futures:
            killed.extend((await victims.run(os.getpid)).values())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(1000)
        return await gathered(futures, **keywords)

    gathered = victims.gather
    monkeypatch.setattr(victims, "gather", unreachable)
    tasks = [Task(f"dead-{n:06d}", (n,)) for n in range(9)]
    found = [o.result for o, _ in run_window(victims, doubled, tasks)]
    assert sorted(found) == sorted(doubled(task.items, task.key) for task in tasks)
    assert len(killed) == 2


def test_an_item_that_kills_every_worker_is_found_and_no_innocent_is_blamed(victims, tmp_path):
    wait_for_two(victims)
    tasks = [Task(f"bad-{n:06d}", (n,)) for n in range(16)]
    outcomes = [o for o, _ in run_window(victims, deadly, tasks, str(tmp_path), (5,))]
    (failed,) = (o for o in outcomes if o.error is not None)
    assert failed.task == tasks[5]
    assert "the worker died each of 2 times it tried this" in failed.error
    assert "more memory than a worker has" in failed.error
    found = sorted((o.task.items[0], o.result[0]) for o in outcomes if o.error is None)
    assert found == [(n, 2 * n) for n in range(16) if n != 5]
    # Blamed for what it does alone, not for waiting on a worker that another one killed.
    assert attempts(tmp_path)[5] == 4


def test_a_task_is_cut_to_find_the_item_and_the_window_stays_bounded(victims, tmp_path):
    wait_for_two(victims)
    task = Task("cut-000000", tuple(range(30)))
    with counting_in_flight(victims, "cut") as most:
        run = run_window(victims, deadly, [task], str(tmp_path), (7,))
        outcomes = [outcome for outcome, _ in run]
        # Three per thread; a worker that died may be counted beside the one in its place.
        assert 0 < most() <= 9
    assert [o.task.items for o in outcomes if o.error] == [(7,)]
    found = sorted((*o.task.items, *o.result) for o in outcomes if not o.error)
    assert found == [(n, 2 * n) for n in range(30) if n != 7]


def test_results_lost_with_their_worker_are_computed_again(victims):
    wait_for_two(victims)
    reduction = TreeReduction(victims, fan_in=3)
    tasks = [Task(f"lost-{n:06d}", (n, n + 100)) for n in range(12)]
    for number, (_, future) in enumerate(run_window(victims, words, tasks, keep=True)):
        reduction.add(future)
        if number == 8:
            for pid in victims.run(os.getpid).values():
                os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + 60
                while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
    assert list(reduction.result()) == sorted([*range(12), *range(100, 112)])


# Those that are stopped altogether are among the faults of tests/chaos as well.
@pytest.mark.parametrize("how", ["asleep", pytest.param("stopped", marks=pytest.mark.slow)])
def test_a_worker_that_hangs_is_started_again_and_its_work_done(victims, tmp_path, how):
    wait_for_two(victims)
    tasks = [Task(f"hang-{how}-{n:06d}", (n,)) for n in range(8)]
    with (
        dask.config.set({"hsi-batch.task-timeout": "5s"}),
        pytest.warns(HsiBatchWarning, match="gave no result for 5s and were started again"),
    ):
        done = [o for o, _ in run_window(victims, hanging_once, tasks, str(tmp_path), how)]
    assert sorted(o.result[0] for o in done) == [2 * n for n in range(8)]
    assert (tmp_path / "hung").is_dir()
    # On a loaded machine a worker that comes back is slow, and may be taken for hanging again.
    assert attempts(tmp_path)[3] >= 2


def test_workers_that_do_not_answer_are_passed_over(victims, monkeypatch):
    wait_for_two(victims)
    monkeypatch.setattr("hsi_batch.engine.worker._ANSWER_SECONDS", 1.0)
    stopped, *_ = ask_workers(victims, os.getpid).values()
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert stopped not in ask_workers(victims, os.getpid).values()
    finally:
        os.kill(stopped, signal.SIGCONT)
