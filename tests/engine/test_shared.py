"""Values that some tasks share: made when needed, once while they are, and gone afterwards."""

from engine_tasks import doubled, in_flight, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.engine.shared import SharedValues
from hsi_batch.engine.tasks import Task
from hsi_batch.engine.window import run_window


def known(client, prefix):
    def count(prefix, dask_scheduler):
        return sum(str(key).startswith(prefix) for key in dask_scheduler.tasks)

    return client.run_on_scheduler(count, prefix)


def test_each_task_gets_what_its_items_need_and_no_more(client):
    made = []

    def make(name):
        made.append(name)
        return f"value {name}"

    # Forty values, for two tasks each, and one that all need.
    tasks = (Task(f"shared-{i:03d}", (2 * i, 2 * i + 1)) for i in range(80))
    shared = SharedValues(client, make, "value")
    given_tasks = shared.given_to(tasks, lambda item: ("all", str(item // 4)))
    most = 0
    seen = 0
    for outcome, _ in run_window(client, doubled, given_tasks):
        values, key, given_values = outcome.result
        place = int(key.split("-")[1])
        assert values == [4 * place, 4 * place + 2]
        assert given_values == ("value all", f"value {place // 2}")
        most = max(most, known(client, "value"))
        seen += 1
    assert seen == 80
    assert sorted(made) == sorted(["all", *map(str, range(40))])
    # Those in flight and a few more, never all.
    assert most < 25
    del outcome, given_tasks, shared
    assert in_flight(client, "shared") == 0
    wait_until(lambda: known(client, "value") == 0)


class Instantly:
    """A client whose futures are their values."""

    def submit(self, function, *arguments, **_):
        return function(*arguments)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), max_size=30))
def test_any_tasks(needs):
    shared = SharedValues(Instantly(), lambda name: f"v{name}", "x")
    tasks = [Task(str(i), tuple(items)) for i, items in enumerate(needs)]
    for task, items in zip(shared.given_to(tasks, lambda n: (str(n),)), needs, strict=True):
        assert task.items == tuple(items)
        assert task.shared == tuple(f"v{n}" for n in dict.fromkeys(items))
