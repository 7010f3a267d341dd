"""Archives made by hand, and scripts run as real processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pixel_strategies  # noqa: F401  (its hypothesis profile)

from hsi_batch.archive import BlockKey, Geometry
from hsi_batch.archive.catalog import save_catalog
from hsi_batch.archive.gathering import consolidate
from hsi_batch.archive.store import ARCHIVE, create_root
from hsi_batch.archive.writer import create_session, write_lines
from hsi_batch.readers.protocol import SourceInfo

TESTS = Path(__file__).parent


def add_session(
    root, name, cube, *, lines=None, classes=None, wavelength=None, preset=None, **attrs
):
    """Write ``(frame, y, x, channel)`` as a complete session; returns it."""
    frames, *shape = cube.shape
    info = SourceInfo(
        path=f"/in/{name}.hdr",
        files=(f"/in/{name}.hdr",),
        pixels=f"/in/{name}.raw",
        frames=frames,
        shape=tuple(shape),
        dtype=cube.dtype,
        wavelength=wavelength,
        quantity="dn",
        sensor=attrs.pop("sensor", None),
        reader="envi",
        reader_version="1",
    )
    geometry = Geometry.choose(frames, tuple(shape), cube.dtype.name, lines)
    session = create_session(
        root,
        name,
        info,
        geometry,
        classes=classes,
        attrs={"complete": True, **attrs},
        preset=preset,
    )
    failed = session.failed_frames
    for key in geometry.keys(name):
        if key.frame not in failed:
            write_lines(session.cube, key, cube[key.frame, key.start : key.stop])
    return session


def make_archive(path, sessions, *, lines=None, **attrs):
    """Write ``{name: cube}`` as a finished archive; returns its root group."""
    root = create_root(path, ARCHIVE)
    for name, cube in sessions.items():
        add_session(root, name, cube, lines=lines, **attrs)
    publish(path, root)
    return root


def publish(path, root):
    """What the coordinator does last."""
    consolidate(root)
    save_catalog(path, root)


def cube_of(seed, frames=2, height=40, width=6, channels=3, dtype="uint16"):
    """Random values over the whole range of a dtype; floats around 1000."""
    rng = np.random.default_rng(seed)
    shape = (frames, height, width, channels)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    if kind.kind == "f":
        return rng.normal(1000, 30, shape).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)


def keys_of(shape, lines):
    """Blocks by the definition, with plain loops."""
    frames, height = shape[:2]
    return [
        BlockKey("s", frame, start, min(start + lines, height))
        for frame in range(frames)
        for start in range(0, height, lines)
    ]


def start_script(code, *arguments, **options):
    """A Python process that runs ``code`` from the command line; standard output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_script(code, *arguments, **options):
    """Run ``code`` to its end; returns the process with its output."""
    process = start_script(code, *arguments, **options)
    process.output, process.errors = process.communicate(timeout=120)
    return process
