"""Which packages of node classes may be imported because a file names them.

A file may come from anybody, and importing runs code. So a package that a file lists under
``plugins`` is imported only if the user has allowed it: by ``hsi-batch --plugins NAME``, by the
environment variable ``HSI_BATCH_PLUGINS``, by a line in ``~/.config/hsi-batch/plugins``, or by
:func:`allow_plugins`. Modules that the program has imported itself are used as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["allow_plugins", "allowed_plugins", "from_the_driver", "is_from_the_driver"]

_VARIABLE = "HSI_BATCH_PLUGINS"
_MOST = 65536
_allowed: set[str] = set()
_driven: ContextVar[bool] = ContextVar("driven", default=False)


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
    return sorted({*_allowed, *filter(None, re.split(r"[\s,]+", text))})


def _own_file() -> str:
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    try:
        with (folder / "hsi-batch" / "plugins").open(encoding="utf-8") as file:
            return re.sub(r"#.*", "", file.read(_MOST))
    except (OSError, ValueError):
        return ""


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
