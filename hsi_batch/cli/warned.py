"""Warnings on the command line: ours, as one plain line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hsi_batch.errors import HsiBatchWarning
from hsi_batch.wording import printable

__all__ = ["hush", "warnings_as_lines"]

#: Warnings that were said in this run; None if nothing is to be said.
_said: set[str] | None = set()


def hush(quiet: bool) -> bool:
    """Say no warnings in this run if it should be quiet; for the option."""
    global _said  # noqa: PLW0603 - the state of the one command of the process
    if quiet:
        _said = None
    return quiet


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Write each warning of this package as a line on stderr, once; say no others.

    Warnings of libraries name lines of code that mean nothing to those who run a command.
    """
    global _said  # noqa: PLW0603
    _said = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", HsiBatchWarning)
        warnings.showwarning = _show  # type: ignore[assignment]
        yield


def _show(message: Warning | str, *_: object) -> None:
    text = printable(" ".join(str(message).split()))
    if _said is not None and text not in _said:
        _said.add(text)
        sys.stderr.write(f"warning: {text}\n")
