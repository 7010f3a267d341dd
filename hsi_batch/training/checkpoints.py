"""Checkpoints: files written whole or not at all, or messages to where the files are."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from hsi_batch.errors import ConfigError
from hsi_batch.files import write_atomically

__all__ = ["STATE", "Mail", "WholeFiles", "state_from", "state_in"]

#: Key of our own part of a checkpoint.
STATE = "hsi_batch"


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, whenever the process is killed."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002 - as the base has it
    ) -> None:
        """Write a checkpoint."""
        write_atomically(Path(path), _packed(checkpoint))

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        return state_in(Path(path))


class Mail(WholeFiles):
    """Writes no files, for this process may not see the folder; keeps what would have been done.

    Parameters
    ----------
    last : str
        Name of the checkpoint that a training goes on from.
    content : bytes, optional
        Its content.

    Attributes
    ----------
    done : list of (str, bytes or None)
        Files written, with their content, and files removed, in order.
    content : bytes or None
        The checkpoint ``last``, as it was given or as it was written since.
    """

    def __init__(self, last: str, content: bytes | None) -> None:
        self.last = last
        self.content = content
        self.done: list[tuple[str, bytes | None]] = []

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002 - as the base has it
    ) -> None:
        """Keep a checkpoint."""
        content = _packed(checkpoint)
        if os.fspath(path) == self.last:
            self.content = content
        else:
            self.done.append((os.fspath(path), content))

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """The checkpoint that was given."""
        assert self.content is not None
        return state_from(self.content, os.fspath(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Note that a file is to be removed; what was written before need not be sent."""
        name = os.fspath(path)
        self.done = [(each, content) for each, content in self.done if each != name]
        self.done.append((name, None))

    def deliver(self) -> None:
        """Do it, where the folder is."""
        for name, content in self.done:
            if content is None:
                Path(name).unlink(missing_ok=True)
            else:
                write_atomically(Path(name), content)


def _packed(checkpoint: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def state_in(path: Path) -> dict[str, Any]:
    """Read a checkpoint file.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is none, or it was not written here.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"this is no checkpoint: {error.strerror}.",
            path=str(path),
            hint="Name a .ckpt file of this pipeline.",
        ) from None
    return state_from(content, str(path))


def state_from(content: bytes, path: str) -> dict[str, Any]:
    """A checkpoint from its bytes; ``path`` is for messages."""
    try:
        held: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except Exception as error:  # noqa: BLE001 - a damaged file fails in any way it likes
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"this is no checkpoint: {why}", path=path, hint="Name a .ckpt file of this pipeline."
        ) from None
    if STATE not in held:
        raise ConfigError(
            "the checkpoint was not written by hsi_batch.",
            path=path,
            hint="Checkpoints of cuvis-ai depend on the order of nodes in its graph; take the"
            " weights file (.pt) instead.",
        )
    return held
