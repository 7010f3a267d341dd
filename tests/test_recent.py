"""What a thread keeps open is not closed by another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.recent import Recent


@given(st.integers(1, 4), st.lists(st.integers(0, 6), max_size=40))
def test_the_last_few_are_kept_and_others_are_dropped_once(most, keys):
    made, dropped = [], []
    kept = Recent(most, drop=dropped.append)

    def make(key):
        made.append((key, len(made)))
        return made[-1]

    order = []
    for key in keys:
        fresh = key not in order[-most:]
        before = len(made)
        assert kept.get(key, lambda key=key: make(key))[0] == key
        assert (len(made) > before) == fresh
        order = [k for k in order if k != key] + [key]
    assert len(set(dropped)) == len(dropped) == max(len(made) - most, 0)
    kept.forget(lambda _: True)
    assert sorted(dropped, key=lambda one: one[1]) == made


def test_a_thread_that_ends_a_task_drops_nothing_of_another():
    dropped = []
    kept = Recent(2, drop=dropped.append)
    met = Barrier(2, timeout=30)

    def task(name):
        kept.get("file", lambda: name)
        met.wait()
        if name == "first":
            kept.forget(lambda _: True)
        met.wait()
        return kept.get("file", lambda: "opened again")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(task, ["first", "second"])) == ["opened again", "second"]
    assert dropped == ["first"]
