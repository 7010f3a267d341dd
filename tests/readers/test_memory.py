"""Reading by lines holds lines in memory, not frames, whatever the size of the file."""

import os
import subprocess
import sys

import numpy as np
import pytest
from readers.envi_files import write_envi

from hsi_batch.readers.envi import EnviReader

INTERLEAVES = ("bip", "bil", "bsq")
BLOCK = 16 << 20

# Reads a recording block by block; prints by how much that raised the peak of its memory.
_PEAK = """
import pathlib, sys
from hsi_batch.readers.registry import open_source

def peak():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10

with open_source(sys.argv[1]) as source:
    y, x, channel = source.info.shape
    step = max(1, (16 << 20) // (x * channel * source.info.dtype.itemsize))
    source.frame(0).read(0, 1)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    base = peak()
    frame = source.frame(0)
    for start in range(0, y, step):
        frame.read(start, min(y, start + step))
    print(peak() - base)
"""


def peak_beyond_base(path):
    command = [sys.executable, "-c", _PEAK, str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def sparse_cube(folder, interleave, lines, samples=1000, bands=200):
    header = write_envi(
        folder, np.zeros((1, 1, 1), "u2"), interleave, lines=lines, samples=samples, bands=bands
    )
    os.truncate(folder / "scene.raw", lines * samples * bands * 2)
    return header


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_envi(tmp_path, interleave):
    header = sparse_cube(tmp_path, interleave, lines=750)  # 300 MB
    assert peak_beyond_base(header) < 1.5 * BLOCK


@pytest.mark.slow
@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_a_large_envi_file(tmp_path, interleave):
    header = sparse_cube(tmp_path, interleave, lines=7500)  # 3 GB
    assert peak_beyond_base(header) < 1.5 * BLOCK


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "a.npz", cube=np.zeros((600, 1000, 200), "u2"))  # 240 MB
    assert peak_beyond_base(tmp_path / "a.npz") < 1.5 * BLOCK


@pytest.mark.slow
def test_more_bytes_than_one_system_call_reads(tmp_path):
    lines, samples = 2200, 1 << 20
    header = write_envi(
        tmp_path, np.zeros((1, 1, 1), "u1"), "bip", lines=lines, samples=samples, bands=1
    )
    with (tmp_path / "scene.raw").open("r+b") as file:
        file.truncate(lines * samples)
        for line in (0, 2047, 2048, 2199):
            file.seek(line * samples)
            file.write(bytes([line % 251 + 1]))
    with EnviReader().open(header) as source:
        marks = source.frame(0).read(0, lines)[:, 0, 0]
    assert np.flatnonzero(marks).tolist() == [0, 2047, 2048, 2199]
    assert marks[2199] == 2199 % 251 + 1
