"""Fixtures that many tests share; the cluster and the simulated SDK are in the one above."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pixel_strategies  # noqa: F401 - the hypothesis profile of all tests
import pytest

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("HSI_BATCH_SHARED_DATA", ROOT.parent / "shared" / "data"))


# What a shell runs in the background is told to ignore Ctrl-C, and hands that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real scenes; skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the real scenes are not here ({SHARED}); they are never shipped")
    return SHARED
