"""Packages that only some exports need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hsi_batch.errors import ConfigError

__all__ = ["need"]


def need(module: str, what: str) -> Any:
    """Import a package of the extra ``geo``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs the package {module.partition('.')[0]} ({error}).",
            hint="Install it: pip install 'hsi-batch[geo]'.",
        ) from None
