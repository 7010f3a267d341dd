"""Which packages of node classes may be imported because a file names them.

A file may come from anybody, and importing runs code. So a package that a file lists under
``plugins`` is imported only if the user has allowed it: by ``hsi-batch --plugins NAME``, by the
environment variable ``HSI_BATCH_PLUGINS``, by a line in ``~/.config/hsi-batch/plugins``, or in
Python by ``plugins=`` of :meth:`.Pipeline.from_yaml` or :func:`allow_plugins`. Modules that the
program has imported itself are used as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = [
    "allow_plugins",
    "allowed_plugins",
    "from_the_driver",
    "is_from_the_driver",
    "plugins_allowed",
]

_VARIABLE = "HSI_BATCH_PLUGINS"
_MOST = 65536
_allowed: set[str] = set()
_driven: ContextVar[bool] = ContextVar("driven", default=False)
_here: ContextVar[frozenset[str]] = ContextVar("here", default=frozenset())


def allow_plugins(*names: str) -> None:
    """Let pipeline files import node classes of these packages.

    Parameters
    ----------
    *names : str
        Packages, or the short names under which cuvis-ai lists them.
    """
    _allowed.update(names)


def allowed_plugins() -> list[str]:
    """Names that the user has allowed."""
    text = f"{os.environ.get(_VARIABLE, '')}\n{_own_file()}"
    return sorted({*_allowed, *_here.get(), *filter(None, re.split(r"[\s,]+", text))})


def _own_file() -> str:
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    try:
        with (folder / "hsi-batch" / "plugins").open(encoding="utf-8") as file:
            return re.sub(r"#.*", "", file.read(_MOST))
    except (OSError, ValueError):
        return ""


@contextmanager
def plugins_allowed(names: Iterable[str]) -> Iterator[None]:
    """As :func:`allow_plugins`, within a ``with`` block."""
    given = {names} if isinstance(names, str) else set(names)
    token = _here.set(_here.get() | given)
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def from_the_driver() -> Iterator[None]:
    """While a worker rebuilds what the process of the user has built already."""
    token = _driven.set(True)
    try:
        yield
    finally:
        _driven.reset(token)


def is_from_the_driver() -> bool:
    """Whether we are in :func:`from_the_driver`."""
    return _driven.get()
