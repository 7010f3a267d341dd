"""One server for all tests of object storage, and workers that know it."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from commands import hsi_fixture  # noqa: F401
from object_storage import BUCKET, Server, server_command, tell
from recordings import write_envi

from hsi_batch.places import stores


@pytest.fixture(scope="session")
def server():
    """moto's server; skips where its environment was not made."""
    command = server_command()
    if command is None:
        pytest.skip("moto_server is not here; make test sets it up")
    with Server(command) as server:
        yield server


@pytest.fixture
def s3(server, monkeypatch):
    """A prefix of its own in the bucket, as a URL; for this process."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    stores._plain.cache_clear()
    yield f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
    stores._plain.cache_clear()


@pytest.fixture
def workers(client, server, s3):
    """The workers, with the same credentials."""
    tell(client, server.environment())
    return client


@pytest.fixture
def impatient(workers):
    """Storage that does not answer is asked for a second, not for minutes."""
    from hsi_batch.places import objects

    def told(values):
        objects._RETRIES.update(max_retries=values[0])
        objects._ATTEMPTS = values[1]

    before = objects._RETRIES["max_retries"], objects._ATTEMPTS
    told((1, 1))
    workers.run(told, (1, 1))
    yield
    told(before)
    workers.run(told, before)


@pytest.fixture
def made_recordings(tmp_path):
    """Three small recordings, one with labels."""
    rng = np.random.default_rng(5)
    for index in range(2):
        cube = rng.integers(0, 4000, (40, 30, 8)).astype(np.uint16)
        mask = (rng.random((40, 30)) < 0.05) if index == 0 else None
        write_envi(
            tmp_path / "in" / f"r{index}.hdr", cube, wavelength=np.linspace(450, 900, 8), mask=mask
        )
    return tmp_path / "in"
