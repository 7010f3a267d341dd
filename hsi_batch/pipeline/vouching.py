"""A fitted pipeline is two files that vouch for each other.

The first line of the YAML holds the SHA-256 of the weights, and the weights hold the SHA-256 of the
YAML (with zeros in place of the other digest). So no byte of either can change unnoticed, and
halves of two fits are not taken for one. Weights of cuvis-ai state nothing, and are taken as they
are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from hsi_batch._version import __version__
from hsi_batch.errors import ConfigError
from hsi_batch.files import digest_of

__all__ = ["check_pair", "names_weights", "vouched"]

_DIGITS = 64
_OPEN = "0" * _DIGITS
_LINE = re.compile(rb"\A# Written by hsi_batch [^\n]*, sha256 ([0-9a-f]{64})\.\n")
_ACCEPT = (
    "Restore both files, or fit again. To accept a change that was meant, remove the first line"
    " of the YAML, if it is a comment."
)


def vouched(body: str, stem: str, dump: Callable[[str], bytes]) -> tuple[str, bytes]:
    """Text of the YAML and contents of the weights.

    Parameters
    ----------
    body : str
        The YAML.
    stem : str
        Name of both files.
    dump : callable
        Makes the weights, given the digest of the YAML.
    """
    head = f"# Written by hsi_batch {__version__}; the weights are in {stem}.pt, sha256"
    weights = dump(digest_of(f"{head} {_OPEN}.\n{body}".encode()))
    return f"{head} {digest_of(weights)}.\n{body}", weights


def names_weights(path: str | os.PathLike[str]) -> bool:
    """Whether the YAML holds the digest of its weights."""
    return _LINE.match(Path(path).read_bytes()) is not None


def check_pair(
    path: str | os.PathLike[str], weights: str | os.PathLike[str], digest: str | None
) -> None:
    """Compare a YAML and its weights with what each holds of the other.

    A YAML that does not begin with a comment was not written by us, or was changed on purpose.

    Parameters
    ----------
    path, weights : path
    digest : str, optional
        Of the YAML, as the weights state it; weights of cuvis-ai and of earlier versions do not.

    Raises
    ------
    hsi_batch.errors.ConfigError
        One of them is not what was written.
    """
    raw = Path(path).read_bytes()
    if not raw.startswith(b"#"):
        return
    line = _LINE.match(raw)
    start, end = (0, 0) if line is None else line.span(1)
    if (
        digest is not None
        and digest_of(raw[:start] + _OPEN.encode() * (line is not None) + raw[end:]) != digest
    ):
        raise ConfigError(
            f"this is not the file that {Path(weights).name} was written with: it was changed, or"
            " is damaged (the SHA-256 does not match).",
            path=os.fspath(path),
            hint=_ACCEPT,
        )
    if line is not None and line[1].decode() != digest_of(Path(weights).read_bytes()):
        raise ConfigError(
            f"these are not the weights that {Path(path).name} was written with, or one of the two"
            " is damaged (the SHA-256 does not match).",
            path=os.fspath(weights),
            hint=_ACCEPT,
        )
