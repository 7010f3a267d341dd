"""Ctrl-C once: finish what is in flight and end; twice: end at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible"]

_INTERRUPTED = 130
#: Batch systems announce the end of a job by the second one.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this block the first signal raises KeyboardInterrupt, the next one ends the process.

    Workers that were started for the run notice that it is gone; its lock is that of a dead run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os.write(2, b"hsi-batch: stopped at once. Run the same command again to continue.\n")
            os._exit(_INTERRUPTED)
        os.write(2, b"hsi-batch: finishing what is in flight; Ctrl-C again to stop at once.\n")
        raise KeyboardInterrupt

    # What a shell runs in the background is told to ignore Ctrl-C.
    left_alone = (signal.SIG_IGN, None)
    before = {s: h for s in _SIGNALS if (h := signal.getsignal(s)) not in left_alone}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
