"""Base of the settings of trainings: models that know their defaults and their files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict

from hsi_batch.documents import Document, read_yaml
from hsi_batch.files import write_atomically
from hsi_batch.validation import validate

__all__ = ["Settings"]


class Settings(BaseModel):
    """Base of the models: unknown keys are errors, values are checked when they are assigned."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        hsi_batch.errors.ConfigError
            With all mistakes at once.
        """
        return validate(cls, Document(data, {}, cls.__name__))

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of :meth:`to_json`; YAML is read too."""
        return validate(cls, read_yaml(cls.__name__, text=text))

    def save_to_file(self, path: str | os.PathLike[str]) -> Path:
        """Write a YAML file."""
        target = Path(path)
        write_atomically(target, yaml.safe_dump(self.to_dict(), sort_keys=False, width=100))
        return target

    @classmethod
    def load_from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a YAML file.

        Raises
        ------
        hsi_batch.errors.ConfigError
            With file and line of every mistake.
        """
        return validate(cls, read_yaml(path))
