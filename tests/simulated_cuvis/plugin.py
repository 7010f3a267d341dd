"""Builds the simulated Cuvis library and points the ``cuvis`` package at it.

In a conftest or test module::

    from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401

and then ask for the fixture ``library``, or for ``simulated_cuvis`` to go without its leak check.

A test session that cannot build the library fails; it never skips, or the evidence would quietly
disappear.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

__all__ = [
    "Library",
    "build_library",
    "cuvis_environment",
    "library_fixture",
    "simulated_cuvis_fixture",
    "wanted_symbols",
]

SOURCE = Path(__file__).with_name("simulated_cuvis.c")
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror")


def build_library(
    folder: Path,
    *,
    source: Path = SOURCE,
    flags: Sequence[str] = ("-O2",),
    omit: Collection[str] = (),
) -> Path:
    """Compile ``libcuvis.so`` in ``folder`` and return its path.

    It exports every function that the installed extension wants, except those named in ``omit``:
    the ones of ``source``, and for the rest stubs that fail. The SONAME is what lets the extension
    find the copy that is already open.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("no C compiler: install gcc to run the tests of the cu3s reader")
    compile_ = [*compiler.split(), *WARNINGS, *flags, "-fPIC", "-pthread"]
    folder.mkdir(parents=True, exist_ok=True)
    core, stubs, library = folder / "core.o", folder / "stubs.c", folder / "libcuvis.so"
    hidden = [f"-D{name}=sim_omitted_{name}" for name in omit]
    _run([*compile_, *hidden, "-c", str(source), "-o", str(core)])
    missing = wanted_symbols() - _symbols(core, "--defined-only") - set(omit)
    stubs.write_text("".join(_stub(name) for name in sorted(missing)))
    link = ["-shared", "-Wl,-soname,libcuvis.so", str(core), str(stubs), "-o", str(library)]
    _run([*compile_, *link])
    return library


def cuvis_environment(folder: Path) -> dict[str, str]:
    """Return what a process needs in its environment to load the library built in ``folder``."""
    return {"CUVIS": str(folder)}


def wanted_symbols() -> set[str]:
    """Return the functions that the installed extension expects of ``libcuvis.so``."""
    try:
        files = importlib.metadata.files("cuvis_il") or []
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError(
            "the cu3s tests run on the real wrapper: install hsi-batch[cu3s]"
        ) from None
    (extension,) = (file for file in files if file.name == "_cuvis_pyil.so")
    return _symbols(Path(extension.locate()), "-D", "--undefined-only")


def _symbols(path: Path, *options: str) -> set[str]:
    lines = _run(["nm", *options, "--format=posix", str(path)]).splitlines()
    return {name for name in (line.split()[0] for line in lines) if name.startswith("cuvis_")}


def _stub(name: str) -> str:
    returns_pointer = name.endswith("_allocate") or "error_msg" in name
    return (
        f"void *{name}(void) {{ return 0; }}\n"
        if returns_pointer
        else (f"int {name}(void) {{ return -1; }}\n")
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


class Library:
    """The built library as the tests see it: what is alive in it, and what was called.

    Attributes
    ----------
    folder : Path
        What ``CUVIS`` is set to.
    """

    KINDS = ("sessions", "measurements", "contexts", "metadata")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent
        self._c = ctypes.CDLL(str(path))
        self._c.sim_live_handles.restype = ctypes.c_long
        self._c.sim_created_handles.restype = ctypes.c_long
        self._c.sim_calls.restype = ctypes.c_long
        self._c.sim_init_settings.restype = ctypes.c_char_p

    def live(self) -> dict[str, int]:
        """Handles that were not freed, by kind; without those of which there are none.

        Metadata structures are left out: the wrapper itself loses one whenever reading it fails.
        """
        counts = {kind: self._c.sim_live_handles(i) for i, kind in enumerate(self.KINDS[:3])}
        return {kind: count for kind, count in counts.items() if count}

    def created(self, kind: str) -> int:
        """How many handles of a kind there have been in this process."""
        return int(self._c.sim_created_handles(self.KINDS.index(kind)))

    def calls(self, name: str) -> int:
        """How often a function was called in this process, by its short name."""
        count = int(self._c.sim_calls(name.encode()))
        if count < 0:
            raise KeyError(name)
        return count

    @property
    def init_level(self) -> int:
        """Log level of the last ``cuvis_init``."""
        return int(self._c.sim_init_level())

    @property
    def init_settings(self) -> Path:
        """Settings folder of the last ``cuvis_init``."""
        return Path(os.fsdecode(self._c.sim_init_settings()))

    @property
    def init_found_settings(self) -> bool:
        """Whether that folder held a ``cuvis.settings`` at the time."""
        return bool(self._c.sim_init_found())


_LIBRARIES: list[Library] = []


@pytest.fixture(scope="session", name="simulated_cuvis")
def simulated_cuvis_fixture(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Build the library once and set ``CUVIS`` for this process and those it starts.

    A process can load one library only, so all modules that import this fixture share it.
    """
    if not _LIBRARIES:
        if "cuvis_il" in sys.modules:
            raise RuntimeError("cuvis was imported before the simulated library was set up")
        folder = tmp_path_factory.mktemp("simulated_cuvis")
        _LIBRARIES.append(Library(build_library(folder)))
        os.environ.pop("CUVIS_SETTINGS", None)
        os.environ.update(cuvis_environment(folder))
    return _LIBRARIES[0]


@pytest.fixture(name="library")
def library_fixture(simulated_cuvis: Library) -> Iterator[Library]:
    """The library, in which nothing may be alive after a test."""
    gc.collect()
    assert simulated_cuvis.live() == {}
    yield simulated_cuvis
    assert simulated_cuvis.live() == {}
