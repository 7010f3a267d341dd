"""A bounded window of tasks: never more in flight, any order, nothing lost."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from engine_tasks import (
    counting_in_flight,
    doubled,
    failing,
    in_flight,
    key_of,
    logged,
    napping,
    rounded,
    slow_for_low,
    tripled,
    wait_until,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.engine.tasks import Task, batch_count, batches
from hsi_batch.engine.window import run_window, total_threads
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
    most = min(target, max(sum(sizes) // (4 * threads), 1))
    left = sum(sizes)
    for task in made[:-1]:
        held = [size for _, size in task.items]
        limit = min(most, max(left // (2 * threads), target // 16, 1))
        # Full, and not full without its last item.
        assert sum(held) >= limit > sum(held[:-1])
        left -= sum(held)
    assert all(task.items for task in made)
    counted = batch_count(np.array(sizes, dtype=np.int64), threads=threads, target=target)
    assert counted == len(made)


def test_the_last_tasks_are_short_so_that_workers_end_together():
    made = batches(range(10_000), lambda _: 1, threads=2, target=800, prefix="p")
    sizes = [len(task.items) for task in made]
    assert sum(sizes) == 10_000
    assert sizes[0] == 800
    assert sizes == sorted(sizes, reverse=True)
    assert 100 >= sizes[-1] > 0


# --- the window ---------------------------------------------------------------------------------


@pytest.mark.parametrize("per_thread", [1, 3])
def test_no_more_tasks_are_known_than_the_window_holds(client, per_thread):
    drawn = []

    def lazily():
        for task in tasks_of(40, prefix=f"bounded{per_thread}"):
            drawn.append(task)
            yield task

    prefix, room = f"bounded{per_thread}", per_thread * total_threads(client)
    with counting_in_flight(client, prefix) as most:
        for done, (outcome, future) in enumerate(
            run_window(client, doubled, lazily(), per_thread=per_thread, keep=True)
        ):
            # What is finished and was handed out does not count.
            assert len(drawn) - done <= room
            assert future.done()
            assert outcome.error is None
        assert len(drawn) == done + 1 == 40
        assert 0 < most() <= room
    del future
    wait_until(lambda: known_tasks(client, prefix) == 0)


def test_short_tasks_go_in_few_messages_and_their_number_in_flight_stays_bounded(client):
    sent = Counter()
    send, gather = client._send_to_scheduler, client._gather
    drawn = []

    def lazily():
        for task in tasks_of(1000, prefix="short"):
            drawn.append(task)
            yield task

    def counted(message):
        sent[message["op"]] += 1
        return send(message)

    def counted_gather(*args, **kwargs):
        sent["gather"] += 1
        return gather(*args, **kwargs)

    client._send_to_scheduler, client._gather = counted, counted_gather
    try:
        for done, (outcome, _) in enumerate(run_window(client, tripled, lazily())):
            assert outcome.result == ([3 * outcome.task.items[0]], outcome.task.key)
            assert len(drawn) - done <= 64 * total_threads(client)
    finally:
        del client._send_to_scheduler, client._gather
    assert done == 999
    assert 0 < sent["update-graph"] < 500
    assert 0 < sent["gather"] < 900


def test_long_tasks_are_never_more_than_the_window_holds(client):
    drawn = []

    def lazily():
        for task in tasks_of(60, prefix="long"):
            drawn.append(task)
            yield task

    for done, _ in enumerate(run_window(client, napping, lazily())):
        assert len(drawn) - done <= 3 * total_threads(client)
    assert done == 59


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


def test_what_is_told_of_kept_results_comes_without_them(client):
    outcomes = list(run_window(client, tripled, tasks_of(9, prefix="peek"), keep=True, peek=key_of))
    assert sorted(outcome.result for outcome, _ in outcomes) == [f"peek-{n:06d}" for n in range(9)]
    for outcome, future in outcomes:
        assert outcome.result == outcome.task.key
        assert future.result() == ([3 * outcome.task.items[0]], outcome.task.key)


def test_only_results_of_the_type_that_is_named_are_looked_at(client):
    tasks = tasks_of(9, prefix="type")
    outcomes = list(run_window(client, rounded, tasks, keep=True, peek=key_of, peek_at=list))
    assert len(outcomes) == 9
    for outcome, future in outcomes:
        odd = outcome.task.items[0] % 2
        assert outcome.result == (None if odd else outcome.task.key)
        assert type(future.result()) is (tuple if odd else list)


def test_workers_have_tasks_while_the_driver_waits_to_be_told(client):
    """What is told of a result queues behind tasks; the next ones must be there by then."""
    run = run_window(client, napping, tasks_of(24, prefix="fed"), keep=True, peek=type)
    next(run)
    idle, done = 0, 1
    for _ in run:
        done += 1
        idle += not in_flight(client, "fed")
    assert done == 24
    # At the end; a busy machine may delay the driver, too.
    assert idle <= 8


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
