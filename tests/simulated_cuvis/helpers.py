"""Small things that the tests over the simulated library share."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np

__all__ = ["SHAPE", "random_cubes", "read_all", "run"]

SHAPE = (3, 4, 5)


def random_cubes(
    count: int = 3, dtype: Any = np.uint16, shape: tuple[int, int, int] = SHAPE
) -> list[Any]:
    """Random cubes over the full range of the type; floats are any bits that are numbers."""
    rng = np.random.default_rng(7)
    if np.dtype(dtype).kind == "f":
        return [rng.normal(0, 1e3, shape).astype(dtype) for _ in range(count)]
    top = np.iinfo(dtype).max
    return [rng.integers(0, top, shape, dtype=dtype, endpoint=True) for _ in range(count)]


def read_all(source: Any) -> list[Any]:
    """Read every frame of a source whole."""
    return [source.frame(i).read(0, source.info.shape[0]) for i in range(source.info.frames)]


def run(script: str, *arguments: object, **environment: str) -> str:
    """Run a script in a fresh process; return what it prints; it must not write to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
