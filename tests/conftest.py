"""Fixtures that many tests share: the simulated SDK, a real cluster, recordings, the scenes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pixel_strategies  # noqa: F401 - the hypothesis profile of all tests
import pytest
from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401

from hsi_batch.cluster import connect

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("HSI_BATCH_SHARED_DATA", ROOT.parent / "shared" / "data"))


# What a shell runs in the background is told to ignore Ctrl-C, and hands that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def client(simulated_cuvis) -> Iterator:
    """Two real worker processes, for all tests that do not harm them."""
    # Workers import helpers of the tests too.
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    with connect(workers=2) as client:
        yield client


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real scenes; skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the real scenes are not here ({SHARED}); they are never shipped")
    return SHARED
