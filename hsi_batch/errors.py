"""The exception tree, ordered by what the caller can do about it.

::

    HsiBatchError
    ├── ConfigError          change the command, the YAML or the arguments; nothing was started
    │   ├── PipelineError      ... the graph: a node, a port, a parameter, a connection
    │   ├── SelectionError     ... the selection of sessions and frames
    │   └── PlanError          ... the plan asks for more than there is (memory, channels, frames)
    ├── SourceError          this recording (or one frame of it) cannot be read; go on without it
    │   └── SdkMissingError    install or point to the vendor's library
    ├── DataError            the pixels do not carry what was asked of them
    │   └── NotFittedError     fit the pipeline first
    ├── StoreError           the store is not what it claims to be
    │   ├── StoreInUseError    another run holds the lock; wait or stop it
    │   └── IncompleteError    blocks are missing; run the stage again
    ├── StorageError         the storage that holds a store does not answer; run again
    ├── ClusterError         workers did not come, or were lost
    └── RunInterrupted       stopped by the user; run again to continue

Every class pickles with all its fields (exceptions cross worker boundaries), prints as one
paragraph, and carries a stable ``code`` for scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

__all__ = [
    "ClusterError",
    "ConfigError",
    "DataError",
    "DataWarning",
    "HsiBatchError",
    "HsiBatchWarning",
    "IncompleteError",
    "NotFittedError",
    "PipelineError",
    "PlanError",
    "Problem",
    "RunInterrupted",
    "SdkMissingError",
    "SelectionError",
    "SourceError",
    "StorageError",
    "StoreError",
    "StoreInUseError",
    "did_you_mean",
]


def did_you_mean(name: str, known: Sequence[str] | Any) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string.

    Examples
    --------
    >>> did_you_mean("RXGlobl", ["RXGlobal", "RXPerBatch"])
    " Did you mean 'RXGlobal'?"
    """
    close = get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class HsiBatchError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    path : str, optional
        File or store.
    session : str, optional
        Session name inside an archive.
    frame : int, optional
        Frame index inside the session.
    line : int, optional
        Line of a text file (1-based).
    hint : str, optional
        What to do next, as a sentence.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        session: str | None = None,
        frame: int | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else str(path)
        self.session = session
        self.frame = frame
        self.line = line
        self.hint = hint

    @property
    def where(self) -> str:
        """The place in words, for example ``a.hdr:12`` or ``session s, frame 3``."""
        parts = []
        if self.path is not None:
            parts.append(self.path if self.line is None else f"{self.path}:{self.line}")
        elif self.line is not None:
            parts.append(f"line {self.line}")
        if self.session is not None:
            parts.append(f"session {self.session}")
        if self.frame is not None:
            parts.append(f"frame {self.frame}")
        return ", ".join(parts)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message), self.__dict__)


def _rebuild(cls: type[HsiBatchError], message: str) -> HsiBatchError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    return error


class Problem(HsiBatchError):
    """One of several things wrong with a configuration (collected in a :class:`ConfigError`)."""

    code = "problem"
    exit_code = 2


class ConfigError(HsiBatchError):
    """Wrong usage or configuration; nothing was started.

    ``problems`` holds every problem found, so that all are reported at once.
    """

    code = "config"
    exit_code = 2

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), **where: Any) -> None:
        super().__init__(message, **where)
        self.problems = tuple(problems)

    @classmethod
    def collect(cls, problems: Sequence[Problem], *, path: str | None = None) -> ConfigError:
        """One error that lists all ``problems``; a single problem is shown without a list."""
        if len(problems) == 1:
            only = problems[0]
            return cls(
                only.message,
                problems=problems,
                path=only.path or path,
                session=only.session,
                frame=only.frame,
                line=only.line,
                hint=only.hint,
            )
        return cls(f"{len(problems)} problems", problems=problems, path=path)

    def __str__(self) -> str:
        if len(self.problems) < 2:
            return super().__str__()
        return "\n".join([super().__str__() + ":", *(f"  - {p}" for p in self.problems)])


class PipelineError(ConfigError):
    """The graph cannot be built: an unknown node, port or parameter, a cycle, a double writer."""

    code = "pipeline"


class SelectionError(ConfigError):
    """A selection of sessions and frames is malformed or matches nothing."""

    code = "selection"


class PlanError(ConfigError):
    """The plan was refused before any work: it cannot fit, or inputs do not match."""

    code = "plan"


class SourceError(HsiBatchError):
    """A recording, or one frame of it, cannot be read. Others are not affected."""

    code = "source"


class SdkMissingError(SourceError):
    """The vendor's library that a format needs is not installed or not found."""

    code = "sdk-missing"
    exit_code = 2


class DataError(HsiBatchError):
    """The pixels do not carry what was asked of them (too few, constant, singular)."""

    code = "data"


class NotFittedError(DataError):
    """A node or pipeline is used before it was fitted."""

    code = "not-fitted"
    exit_code = 2


class HsiBatchWarning(UserWarning):
    """Base of all warnings of this package; the command line shows these and no others."""


class DataWarning(HsiBatchWarning):
    """The pixels allow a result, but one that the user should know the weakness of."""


class StoreError(HsiBatchError):
    """A store is not what it claims to be: wrong format, damaged, or unreadable."""

    code = "store"
    exit_code = 3


class StoreInUseError(StoreError):
    """Another run holds the lock of the store."""

    code = "store-in-use"


class StorageError(HsiBatchError):
    """The storage that holds a store does not answer, or denies access.

    Neither a :class:`StoreError` nor an ``OSError``: what cannot be read is not damaged.
    """

    code = "storage"
    exit_code = 3


class IncompleteError(StoreError):
    """A store lacks blocks that it should have."""

    code = "incomplete"


class ClusterError(HsiBatchError):
    """Workers did not come up, or were lost for good."""

    code = "cluster"


class RunInterrupted(HsiBatchError):
    """The user stopped the run; what is written stays, and the next run continues."""

    code = "interrupted"
    exit_code = 130
