"""Values that some tasks of a run share, and others do not."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from distributed import Client, Future

from hsi_batch.engine.carried import submit_carried
from hsi_batch.engine.tasks import Task

__all__ = ["SharedValues"]

#: Values that are kept beyond the tasks that hold them, for the next task may need them too.
_KEPT = 8


class SharedValues:
    """Gives each task the values that it needs, as futures, so that each travels to a worker once.

    A value is made when the first task needs it, and forgotten, here and on the workers, when no
    task does any more: of a thousand values only those of the tasks in flight are anywhere.

    Parameters
    ----------
    client : distributed.Client
    make : callable
        The value by its name.
    prefix : str
        Of the keys of the futures.
    """

    def __init__(self, client: Client, make: Callable[[str], Any], prefix: str) -> None:
        self._client = client
        self._make = make
        self._prefix = prefix
        self._count = itertools.count()
        self._held: OrderedDict[str, Future[Any]] = OrderedDict()

    def given_to(
        self, tasks: Iterable[Task], names_of: Callable[[Any], Iterable[str]]
    ) -> Iterator[Task]:
        """The tasks, each with what its items need."""
        for task in tasks:
            names = dict.fromkeys(name for item in task.items for name in names_of(item))
            yield replace(task, shared=(*task.shared, *(self._future(name) for name in names)))

    def _future(self, name: str) -> Future[Any]:
        if name not in self._held:
            while len(self._held) >= _KEPT:
                self._held.popitem(last=False)
            # A name that does not begin as those of the tasks do: the scheduler sends tasks to
            # idle workers only if what they need is of a group apart, and a small one; to the
            # worker that has the value otherwise, while the others wait until they may steal.
            key = f"shared-{self._prefix}-{next(self._count)}"
            # Submitted, not scattered: it survives the loss of a worker.
            self._held[name] = submit_carried(self._client, _itself, self._make(name), key=key)
        self._held.move_to_end(name)
        return self._held[name]


def _itself(value: Any) -> Any:
    return value
