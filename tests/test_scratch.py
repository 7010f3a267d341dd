"""Memory that is lent to those who read lines, and only while it is."""

import threading

import numpy as np
import pytest

from hsi_batch.scratch import Scratch

DTYPE = np.dtype("uint16")


def address(values):
    return values.__array_interface__["data"][0]


def test_elsewhere_lines_are_new():
    own = Scratch()
    first, second = own.lines((4, 5, 6), DTYPE), own.lines((4, 5, 6), DTYPE)
    assert not np.shares_memory(first, second)
    assert first.shape == second.shape == (4, 5, 6)


@pytest.mark.parametrize("first", [(2, 5, 6), (8, 5, 6)])
def test_lent_lines_lie_in_the_same_memory(first):
    """The first block may be the short one at the end of a frame."""
    own, whole = Scratch(), (8, 5, 6)
    seen = set()
    for shape in (first, whole, (3, 5, 6), whole):
        with own.lent(int(np.prod(whole)) * DTYPE.itemsize):
            lines = own.lines(shape, DTYPE)
        assert lines.shape == shape
        assert lines.dtype == DTYPE
        assert lines.flags.c_contiguous
        assert lines.flags.writeable
        seen.add(address(lines))
    assert len(seen) == 1


def test_more_than_was_said_is_lent_too():
    own = Scratch()
    with own.lent(10):
        large = own.lines((9, 5, 6), DTYPE)
        large[:] = 7
        assert address(own.lines((9, 5, 6), DTYPE)) == address(large)


def test_the_memory_of_other_threads_is_theirs():
    own, found = Scratch(), {}

    def read(name):
        with own.lent(1000):
            found[name] = own.lines((4, 5, 6), DTYPE)

    for name in "ab":
        thread = threading.Thread(target=read, args=name)
        thread.start()
        thread.join()
    assert not np.shares_memory(found["a"], found["b"])


def test_an_error_ends_the_loan():
    own = Scratch()
    with pytest.raises(OSError, match="lost"), own.lent(1000):
        raise OSError("lost")
    assert not np.shares_memory(own.lines((4, 5, 6), DTYPE), own.lines((4, 5, 6), DTYPE))


def test_what_is_released_is_lent_no_more():
    own = Scratch()
    with own.lent(1000):
        first = own.lines((4, 5, 6), DTYPE)
        own.release()
        assert not np.shares_memory(first, own.lines((4, 5, 6), DTYPE))
