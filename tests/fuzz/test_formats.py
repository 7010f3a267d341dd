"""Damaged and malicious files of every format: only our own errors, quickly, in little memory.

A smoke run; ``make fuzz`` tries 10^5 cases of each.
"""

import warnings

import pytest
from fuzz.__main__ import findings
from fuzz.formats import FORMATS, fresh

CASES = 60


@pytest.mark.parametrize("name", FORMATS)
def test_only_our_own_errors(tmp_path, name):
    kind = FORMATS[name](fresh(tmp_path / "f"))
    for seed in kind.seeds:
        kind.read(seed)
    for part in kind.inner:
        # Or damage of inner parts would not get past the checksums.
        kind.read(kind.wrap(part))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, *_ = findings(name, kind, CASES, seed=1)
    assert found == []
