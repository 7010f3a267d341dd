"""Preload of embedded schedulers and nannies: end when the process that started them is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

__all__ = ["dask_setup"]

_POLL_SECONDS = 0.5


def dask_setup(_service: Any) -> None:
    """Watch the parent process from a thread (called by Dask at start-up)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5.0)
        os._exit(1)

    threading.Thread(target=watch, name="hsi-batch-orphan-watch", daemon=True).start()
