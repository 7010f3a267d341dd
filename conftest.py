"""Fixtures that tests and the examples of docstrings share: a real cluster, a place to work in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import given
import pytest
from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401

from hsi_batch.cluster import connect

#: Examples that name one of these are run where there are such files.
_PLACED = ('"archive.zarr"', '"recordings/"', '"workflows/')


@pytest.fixture(scope="session")
def client(simulated_cuvis) -> Iterator:
    """Two real worker processes, for all tests that do not harm them."""
    # Workers import helpers of the tests too.
    path = [str(Path(given.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    with connect(workers=2) as client:
        yield client


@pytest.fixture(scope="session")
def given_place(client, tmp_path_factory) -> Path:
    """Recordings, an archive of them, a fitted pipeline and scores; `given.renewed` mends it."""
    return given.make_place(tmp_path_factory.mktemp("given"))


@pytest.fixture(autouse=True)
def _examples_have_a_place(request, monkeypatch):
    """Run the examples of a docstring that name files where there are such files."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    sources = "".join(example.source for example in request.node.dtest.examples)
    if any(name in sources for name in _PLACED):
        monkeypatch.chdir(given.renewed(request.getfixturevalue("given_place")))
