"""A bounded window of tasks: never more in flight, any order, nothing lost."""

from __future__ import annotations

import random

import numpy as np
import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from engine_tasks import doubled, failing, in_flight, logged, slow_for_low, tripled, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.engine.window import Task, batch_count, batches, run_window, total_threads
from hsi_batch.errors import ClusterError, SourceError


def tasks_of(count, size=1, prefix="t"):
    return [Task(f"{prefix}-{n:06d}", tuple(range(n * size, (n + 1) * size))) for n in range(count)]


def known_tasks(client, prefix):
    """Tasks of a prefix that the scheduler knows, ended or not."""

    def count(prefix, dask_scheduler):
        return sum(str(key).startswith(prefix) for key in dask_scheduler.tasks)

    return client.run_on_scheduler(count, prefix)


# --- batches ------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 50), max_size=60),
    st.integers(1, 8),
    st.integers(1, 200),
)
def test_batches_hold_every_item_once_in_order_and_near_the_target(sizes, threads, target):
    made = list(
        batches(enumerate(sizes), lambda i: i[1], threads=threads, target=target, prefix="p")
    )
    assert [item for task in made for item in task.items] == list(enumerate(sizes))
    assert [task.key for task in made] == [f"p-{n:06d}" for n in range(len(made))]
    limit = min(target, max(sum(sizes) // (4 * threads), 1))
    for task in made[:-1]:
        held = [size for _, size in task.items]
        # Full, and not full without its last item.
        assert sum(held) >= limit > sum(held[:-1])
    assert all(task.items for task in made)
    counted = batch_count(np.array(sizes, dtype=np.int64), threads=threads, target=target)
    assert counted == len(made)


# --- the window ---------------------------------------------------------------------------------


@pytest.mark.parametrize("per_thread", [1, 3])
def test_no_more_tasks_are_known_than_the_window_holds(client, per_thread):
    drawn = []

    def lazily():
        for task in tasks_of(40, prefix=f"bounded{per_thread}"):
            drawn.append(task)
            yield task

    room = per_thread * total_threads(client)
    seen = []
    for done, (outcome, _) in enumerate(
        run_window(client, doubled, lazily(), per_thread=per_thread)
    ):
        # What is finished and was handed out does not count.
        assert len(drawn) - done <= room
        seen.append(in_flight(client, f"bounded{per_thread}"))
        assert outcome.error is None
    assert len(drawn) == done + 1 == 40
    assert 0 < max(seen) <= room
    wait_until(lambda: known_tasks(client, f"bounded{per_thread}") == 0)


def test_results_of_all_tasks_come_whatever_their_order(client):
    found = [o for o, _ in run_window(client, slow_for_low, tasks_of(20), per_thread=8)]
    assert sorted(o.task.key for o in found) == [t.key for t in tasks_of(20)]
    assert all(o.result == o.task.items for o in found)
    # Otherwise this would not show that order does not matter.
    assert [o.task.key for o in found] != [t.key for t in tasks_of(20)]


@settings(max_examples=15)
@given(st.lists(st.integers(1, 4), max_size=12), st.integers(1, 4), st.integers(0, 99))
def test_each_task_is_run_with_its_items_key_and_arguments(client, sizes, per_thread, seed):
    items = [tuple(random.Random(f"{seed}{n}").sample(range(99), s)) for n, s in enumerate(sizes)]
    tasks = [Task(f"any-{n:06d}", chosen) for n, chosen in enumerate(items)]
    shared = client.scatter("large", broadcast=True, hash=False)
    found = {
        o.task.key: (o.result, future)
        for o, future in run_window(client, doubled, tasks, shared, 7, per_thread=per_thread)
    }
    assert found == {t.key: (([2 * i for i in t.items], t.key, ("large", 7)), None) for t in tasks}


def test_results_that_are_kept_stay_on_the_workers(client):
    outcomes = list(run_window(client, tripled, tasks_of(4, prefix="kept"), keep=True))
    assert all(outcome.result is None for outcome, _ in outcomes)
    assert known_tasks(client, "kept") == 4
    for outcome, future in outcomes:
        assert future.result() == ([3 * outcome.task.items[0]], outcome.task.key)


def test_runs_at_the_same_time_do_not_take_each_others_results(client):
    tasks = tasks_of(6)
    one = run_window(client, doubled, tasks)
    other = run_window(client, tripled, tasks)
    pairs = zip(one, other, strict=True)
    mixed = [(a.result[0], a.task.items, b.result[0], b.task.items) for (a, _), (b, _) in pairs]
    for a, items_a, b, items_b in mixed:
        assert a == [2 * item for item in items_a]
        assert b == [3 * item for item in items_b]


def test_nothing_to_do_is_no_outcome(client):
    assert list(run_window(client, doubled, [])) == []


# --- errors -------------------------------------------------------------------------------------


def test_an_error_of_ours_comes_as_it_is_and_ends_the_run(client):
    with pytest.raises(SourceError, match=r"session s, frame 2: cannot be read\.") as caught:
        list(run_window(client, failing, tasks_of(50, prefix="ours"), "ours"))
    assert caught.value.frame == 2


def test_any_other_error_is_named_as_a_defect(client):
    with pytest.raises(ClusterError, match=r"ZeroDivisionError: by nothing.*please report"):
        list(run_window(client, failing, tasks_of(50), "other"))


def test_a_run_that_is_left_cancels_what_it_started(client, tmp_path):
    run = run_window(client, logged, iter(tasks_of(500, prefix="left")), str(tmp_path))
    next(run)
    run.close()
    wait_until(lambda: known_tasks(client, "left") == 0)
    assert len(list(tmp_path.iterdir())) <= 1 + 3 * total_threads(client)
