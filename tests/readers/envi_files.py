"""ENVI files written with plain NumPy, independent of the reader under test."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

CODES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
#: From (line, sample, band) to the order of the axes in the file.
ORDER = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (2, 0, 1)}


def write_envi(
    folder, cube, interleave="bil", *, big=False, offset=0, name="scene", data=".raw", **extra
):
    """Write ``cube`` (lines, samples, bands) and its header; returns the path of the header.

    ``extra`` adds header lines, underscores standing for spaces; None leaves a field out.
    """
    folder = Path(folder)
    code = next(c for c, t in CODES.items() if np.dtype(t) == cube.dtype)
    stored = cube.transpose(ORDER[interleave]).astype(cube.dtype.newbyteorder("<>"[big]))
    with (folder / f"{name}{data}").open("wb") as file:
        file.write(b"\xa5" * offset)
        stored.tofile(file)
    lines, samples, bands = cube.shape
    fields = {
        "samples": samples,
        "lines": lines,
        "bands": bands,
        "header offset": offset,
        "data type": code,
        "interleave": interleave,
        "byte order": int(big),
    }
    fields |= {key.replace("_", " "): value for key, value in extra.items()}
    text = "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)
    header = folder / f"{name}.hdr"
    header.write_text("ENVI\n" + text, encoding="utf-8")
    return str(header)


def random_cube(shape, dtype, seed=0):
    """Random bits as values of ``dtype``, without NaN so that arrays compare equal."""
    dtype = np.dtype(dtype)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    cube = raw.view(dtype)[..., 0]
    return np.nan_to_num(cube) if dtype.kind == "f" else cube


def shared_data():
    """The folder of real scenes; skips the test where there is none."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("HSI_BATCH_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real scenes at {folder}; set HSI_BATCH_SHARED_DATA to test with them")
    return folder


def bytes_read():
    """Bytes that this process has read by system calls so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar"):
            return int(line.split()[1])
    raise AssertionError("no rchar in /proc/self/io")
