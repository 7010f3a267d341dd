"""Ctrl-C once: finish what is in flight and end; twice: end at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["interruptible"]

_INTERRUPTED = 130
#: Batch systems announce the end of a job by the second one.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds; a finalizer takes less.
_AGAIN = 0.05


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this block the first signal raises KeyboardInterrupt, the next one ends the process.

    Workers that were started for the run notice that it is gone; its lock is that of a dead run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen, swallowed, last = 0, False, signal.SIGINT.value
    main = threading.get_ident()
    again: list[threading.Timer] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal seen, swallowed, last
        last = number
        if swallowed:
            swallowed = False
            raise KeyboardInterrupt
        seen += 1
        if seen > 1:
            os.write(2, b"hsi-batch: stopped at once. Run the same command again to continue.\n")
            os._exit(_INTERRUPTED)
        os.write(2, b"hsi-batch: finishing what is in flight; Ctrl-C again to stop at once.\n")
        raise KeyboardInterrupt

    def unraisable(told: Any) -> None:
        # It came while a finalizer ran, which nothing leaves; it is raised again outside of it.
        nonlocal swallowed
        if told.exc_type is not KeyboardInterrupt or not seen:
            shown(told)
            return
        swallowed = True
        again.append(threading.Timer(_AGAIN, signal.pthread_kill, (main, last)))
        again[-1].start()

    # What a shell runs in the background is told to ignore Ctrl-C.
    left_alone = (signal.SIG_IGN, None)
    before = {s: h for s in _SIGNALS if (h := signal.getsignal(s)) not in left_alone}
    for number in before:
        signal.signal(number, interrupt)
    shown, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        sys.unraisablehook = shown
        for number, handler in before.items():
            signal.signal(number, handler)
