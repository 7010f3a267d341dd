"""Disturbed at seeded moments, by whatever befalls archive runs, and done again until it is done.

``CHAOS_RUNS`` runs (20), seeds from ``CHAOS_SEED`` (0) on. With ``CHAOS_WHOLE`` each goes through
all four stages, else through one of them in turn.
"""

from __future__ import annotations

import os

import pytest
from chaos.harness import Harness, mounting_is_permitted

RUNS = int(os.environ.get("CHAOS_RUNS", "20"))
FIRST = int(os.environ.get("CHAOS_SEED", "0"))
WHOLE = bool(os.environ.get("CHAOS_WHOLE"))


@pytest.fixture(scope="module")
def harness(tmp_path_factory, request):
    base = tmp_path_factory.mktemp("chaos")
    if not mounting_is_permitted(base / "try"):
        pytest.skip("mounting small file systems is not permitted here")
    made = Harness(base)
    request.config.chaos_counts = made.counts
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + RUNS))
def test_whatever_happens_it_ends_as_if_nothing_had(harness, seed):
    harness.run(seed, whole=WHOLE)
