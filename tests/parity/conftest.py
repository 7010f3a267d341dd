"""Parity with the real cuvis-ai; ``make parity`` runs it in an environment of its own."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

# The other tests run without cuvis-ai.
collect_ignore_glob = [] if find_spec("cuvis_ai") else ["*"]

#: The largest deviations that were seen: what, how much, how much is allowed.
FIGURES: list[tuple[str, float, float]] = []


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory):
    """Where TensorBoard logs of both may fall."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture
def close(request):
    """Compare with a bound relative to the largest entry, and note the deviation."""
    import numpy as np

    def check(what, found, expected, bound, floor=1e-300):
        a, b = (np.asarray(value, dtype=np.float64) for value in (found, expected))
        assert a.shape == b.shape, (what, a.shape, b.shape)
        assert (np.isnan(a) == np.isnan(b)).all(), what
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        scale = max(float(np.abs(b).max(initial=0.0)), floor)
        deviation = float(np.abs(a - b).max(initial=0.0)) / scale
        FIGURES.append((f"{request.node.name}: {what}", deviation, bound))
        assert deviation <= bound, (what, deviation, bound)

    return check


def pytest_terminal_summary(terminalreporter):
    """The figures, largest share of what is allowed first."""
    if not FIGURES:
        return
    terminalreporter.section("deviations from cuvis-ai, relative to the largest entry")
    for what, deviation, bound in sorted(FIGURES, key=lambda f: -f[1] / f[2]):
        terminalreporter.write_line(f"{deviation:10.2e} of {bound:.0e}  {what}")
