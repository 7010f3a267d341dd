"""Whether this machine can do the work: one finding per check, each with what to do."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hsi_batch._version import __version__
from hsi_batch.errors import HsiBatchError
from hsi_batch.wording import counted

__all__ = ["Diagnosis", "Finding", "Verdict", "examine"]

Verdict = Literal["ok", "warning", "problem"]

#: Packages whose versions are told where all is well.
_TOLD = ("numpy", "zarr", "dask", "distributed", "torch", "numba", "xarray")
#: Extras and a module of each.
_EXTRAS = {
    "train": "pytorch_lightning",
    "geo": "rasterio",
    "s3": "obstore",
    "icechunk": "icechunk",
    "hpc": "dask_jobqueue",
    "sklearn": "sklearn",
    "tls": "cryptography",
}


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check : str
    verdict : {"ok", "warning", "problem"}
    found : str
    advice : str
        What to do; empty where all is well.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        return f"{self.verdict:8} {self.check:12} {self.found}{advice}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """Findings that are problems."""
        return sum(each.verdict == "problem" for each in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        findings = [vars(each) for each in self.findings]
        return {"version": __version__, "problems": self.problems, "findings": findings}

    def __str__(self) -> str:
        warned = sum(each.verdict == "warning" for each in self.findings)
        total = f"{len(self.findings)} checks: {counted(self.problems, 'problem')}, "
        total += counted(warned, "warning")
        return "\n".join([*map(str, self.findings), total])


def examine(store: str | os.PathLike[str] | None = None, *, worker: bool = True) -> Diagnosis:
    """Look at the environment, the machine and the storage.

    Parameters
    ----------
    store : path, optional
        Folder, archive or scores on the storage that is measured; the working directory by
        default. 64 MB are written there, read back and removed.
    worker : bool
        Start a local worker as well, which takes some seconds.

    Returns
    -------
    Diagnosis
        A check that fails by itself is a finding, too; nothing is raised.
    """
    from hsi_batch.stages import doctor_machine as machine

    checks: list[tuple[str, Callable[[], Iterator[Finding] | Finding]]] = [
        ("python", _python),
        ("packages", _packages),
        ("extras", _extras),
        ("cuvis", _cuvis),
        ("cpu", machine.cpu),
        ("sums", machine.sums),
        ("blas", machine.blas),
        ("memory", machine.memory),
        ("open files", machine.open_files),
        ("scratch", machine.scratch),
        ("storage", lambda: machine.storage(store)),
    ]
    if worker:
        checks.append(("worker", machine.local_worker))
    return Diagnosis(tuple(found for name, check in checks for found in _tried(name, check)))


def _tried(name: str, check: Callable[[], Iterator[Finding] | Finding]) -> list[Finding]:
    try:
        found = check()
        return [found] if isinstance(found, Finding) else list(found)
    except HsiBatchError as error:
        return [Finding(name, "problem", str(error))]
    except Exception as error:  # noqa: BLE001 - whatever fails here is what was looked for
        advice = "Mend that first; HSI_BATCH_TRACEBACK=1 shows more of other commands."
        return [Finding(name, "problem", f"{type(error).__name__}: {error}.", advice)]


def _python() -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}; hsi_batch {__version__}"
    if sys.platform != "linux":
        return Finding("python", "warning", f"{found}.", "Only Linux is tested; use it if you can.")
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    """Versions against what the package asks for, where versions known to fail are left out."""
    from packaging.requirements import Requirement

    good: dict[str, str] = {}
    for text in importlib.metadata.requires("hsi-batch") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        advice = f"Say pip install '{wanted.name}{wanted.specifier}'."
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", "problem", f"{wanted.name} is not installed.", advice)
            continue
        if wanted.specifier.contains(version, prereleases=True):
            good[wanted.name] = version
        else:
            found = f"{wanted.name} {version} is not one that works ({wanted.specifier})."
            yield Finding("packages", "problem", found, advice)
    told = ", ".join(f"{name} {good[name]}" for name in _TOLD if name in good)
    yield Finding("packages", "ok", f"{len(good)} as they should be: {told}")


def _extras() -> Finding:
    from importlib.util import find_spec

    here = [extra for extra, module in _EXTRAS.items() if find_spec(module) is not None]
    lacking = [extra for extra in _EXTRAS if extra not in here]
    found = f"{', '.join(here) or 'none'} installed"
    if lacking:
        found += f"; not {', '.join(lacking)} (pip install 'hsi-batch[NAME]' where needed)"
    return Finding("extras", "ok", found)


def _cuvis() -> Finding:
    from hsi_batch.errors import SdkMissingError, SourceError
    from hsi_batch.readers.cuvis_sdk import load_sdk

    try:
        versions = load_sdk("").versions
    except SdkMissingError as error:
        error.path = None
        text = str(error).rstrip(".")
        return Finding("cuvis", "warning", f"{text}.", "Of no matter without .cu3s files.")
    except SourceError as error:
        return Finding("cuvis", "problem", str(error))
    return Finding("cuvis", "ok", ", ".join(f"{k} {v}" for k, v in versions.items()))
