"""Damaged and malicious files of every format: only our own errors, quickly, in little memory.

A smoke run here; ``make fuzz`` tries 10^5 cases of each (``FUZZ_CASES``).
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
import warnings

import pytest
from fuzz.formats import FORMATS, fresh
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hsi_batch.errors import HsiBatchError, HsiBatchWarning

CASES = int(os.environ.get("FUZZ_CASES", "40"))
SECONDS, BYTES = 1.0, 2**30
#: What breaks parsers: extremes, nesting, references, other types, other encodings.
TOKENS = (
    b"-1", b"0", b"1e400", b"nan", b"99999999999999999999", b"2147483648", b"null", b"true",
    b"[]", b"{}", b"[" * 200, b"{a: " * 200, b"&a [*a, *a]", b"*a", b"!!python/object:os.system",
    b"../../etc/passwd", b"/etc/passwd", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\n\n",
    b'"', b"'", b":", b",", b"${HOME}", b"a" * 5000, b"PK\x03\x04", b"\x80\x05.", b"|O",
)  # fmt: skip

edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "insert", "token", "drop", "cut", "copy", "digit"]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


def changed(raw: bytes, steps) -> bytes:
    """Apply edits to contents."""
    for where, what, value in steps:
        at = int(where * len(raw))
        if what == "set":
            raw = raw[:at] + bytes([value]) + raw[at + 1 :]
        elif what == "insert":
            raw = raw[:at] + bytes([value]) + raw[at:]
        elif what == "token":
            raw = raw[:at] + TOKENS[value % len(TOKENS)] + raw[at + value % 3 :]
        elif what == "drop":
            raw = raw[:at] + raw[at + value :]
        elif what == "cut":
            raw = raw[:at]
        elif what == "copy":
            raw = raw[:at] + raw[max(0, at - value) :]
        elif what == "digit":
            digits = [i for i in range(at, min(at + 200, len(raw))) if 48 <= raw[i] < 58]
            if digits:
                raw = raw[: digits[0]] + str(value).encode() + raw[digits[0] + 1 :]
    return raw


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", FORMATS)
def test_only_our_own_errors(tmp_path, name):
    kind = FORMATS[name](fresh(tmp_path / "f"))
    for seed in kind.seeds:
        kind.read(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=CASES <= 100,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(kind.seeds), edits)
    def case(seed, steps):
        raw = changed(seed, steps)
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HsiBatchWarning)
            with contextlib.suppress(HsiBatchError):
                kind.read(raw)
        assert time.process_time() - begun < SECONDS

    case()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < BYTES
