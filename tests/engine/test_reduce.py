"""Merging on the workers: the same bits for any order of arrival and any fan-in."""

from __future__ import annotations

import random

import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from engine_tasks import Words, forest_of, words
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.engine.reduce import TreeReduction, merge_all
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window

LEAVES = 40


def test_merging_nothing_is_none_and_one_is_itself(client):
    assert merge_all([]) is None
    assert merge_all([Words("a")]) == Words("a")
    assert TreeReduction(client).result() is None


@settings(max_examples=12)
@given(st.integers(0, 40), st.integers(2, 9), st.sampled_from([1, 3, 18]))
def test_everything_is_merged_exactly_once(client, count, fan_in, fetched):
    reduction = TreeReduction(client, fan_in, fetched)
    for number in range(count):
        reduction.add(client.submit(words, (number, -number), "", pure=False))
        # Partial results stay few.
        assert len(reduction._open) < 2 * fan_in
    result = reduction.result()
    assert (result or ()) == tuple(sorted(v for n in range(count) for v in (n, -n)))


def bits(moments):
    return moments.count, moments.mean.tobytes(), moments.scatter.tobytes()


@pytest.fixture(scope="module")
def expected():
    return bits(forest_of(range(LEAVES), "", 1, LEAVES).result())


@settings(max_examples=12)
@given(order=st.permutations(range(LEAVES)), fan_in=st.integers(2, 8), size=st.integers(1, 5))
def test_bits_do_not_depend_on_arrival_fan_in_or_task_size(client, expected, order, fan_in, size):
    tasks = [Task(f"bits-{n:06d}", tuple(order[n : n + size])) for n in range(0, LEAVES, size)]
    reduction = TreeReduction(client, fan_in)
    for outcome, future in run_window(client, forest_of, tasks, 1, LEAVES, keep=True):
        assert outcome.error is None
        reduction.add(future)
    assert bits(reduction.result().result()) == expected


def test_without_the_fixed_tree_the_bits_would_depend_on_the_order(expected):
    from hsi_batch.statistics import Moments

    leaves = [forest_of([n], "", 1, 1 << 6).result() for n in range(LEAVES)]
    seen = set()
    for seed in range(4):
        merged = Moments.empty(3, "float32")
        for leaf in random.Random(seed).sample(leaves, LEAVES):
            merged = merged.merge(leaf)
        seen.add(bits(merged))
    assert len(seen) > 1
