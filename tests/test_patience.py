"""What passes is tried again; what does not is not."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch import patience
from hsi_batch.errors import SourceError
from hsi_batch.patience import is_transient, patiently

PASSING = st.sampled_from([errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET])
LASTING = st.sampled_from([errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS, errno.EDQUOT])


class Failing:
    """Raises a number of errors, then gives 7."""

    def __init__(self, *errors, wrapped=False):
        self.errors = list(errors)
        self.calls = 0
        self.wrapped = wrapped

    def __call__(self):
        self.calls += 1
        if not self.errors:
            return 7
        error = self.errors.pop(0)
        if not self.wrapped:
            raise error
        try:
            raise error
        except OSError as cause:
            raise SourceError("lines could not be read.", path="x") from cause


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "_FIRST_SECONDS", 0.0)
        yield


@given(st.lists(PASSING, max_size=6), st.booleans())
def test_up_to_five_times(numbers, wrapped):
    function = Failing(*(OSError(n, "x") for n in numbers), wrapped=wrapped)
    if len(numbers) < 5:
        assert patiently(function) == 7
    else:
        with pytest.raises(SourceError if wrapped else OSError):
            patiently(function)
    assert function.calls == min(len(numbers) + 1, 5)


@given(LASTING, st.booleans())
def test_what_lasts_is_told_at_once(number, wrapped):
    function = Failing(OSError(number, "x"), wrapped=wrapped)
    with pytest.raises(SourceError if wrapped else OSError):
        patiently(function)
    assert function.calls == 1


@pytest.mark.parametrize("error", [ValueError(), KeyError("x"), SourceError("bad."), EOFError()])
def test_what_is_no_trouble_of_the_disk_is_not_tried_again(error):
    assert not is_transient(error)
