"""Preload of embedded schedulers and nannies: end when the process that started them is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

import psutil

__all__ = ["dask_setup"]

#: Environment variable: the process to live no longer than.
_PARENT = "HSI_BATCH_PARENT"

_POLL_SECONDS = 0.25
#: For a nanny to know that it closes, and not to start its worker again.
_CLOSE_SECONDS = 0.2


def dask_setup(_service: Any) -> None:
    """Watch the parent process from a thread (called by Dask at start-up)."""
    # The parent may have died before this line, and another process have taken its place.
    parent = int(os.environ.get(_PARENT) or os.getppid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        # A nanny lets its worker end what it does; but the next run may write the same store.
        time.sleep(_CLOSE_SECONDS)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
        time.sleep(5.0)
        os._exit(1)

    threading.Thread(target=watch, name="hsi-batch-orphan-watch", daemon=True).start()
