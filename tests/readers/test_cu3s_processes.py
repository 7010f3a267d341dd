"""The .cu3s reader over the simulated library: processes, threads, logging and memory."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from simulated_cuvis import Fault, Hole, write_session
from simulated_cuvis.helpers import random_cubes, read_all, run
from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401

from hsi_batch.errors import SourceError
from hsi_batch.readers.cu3s import Cu3sReader

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture
def reader() -> Cu3sReader:
    return Cu3sReader()


@pytest.mark.parametrize("send", [pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy])
def test_a_source_cannot_be_sent(tmp_path: Path, reader: Cu3sReader, send: Any) -> None:
    written = random_cubes(1)
    with reader.open(str(write_session(tmp_path / "a.cu3s", written))) as source:
        with pytest.raises(TypeError, match="send the path and open it there"):
            send(source)
        assert np.array_equal(read_all(source), written)  # and it is as it was


def test_what_comes_out_can_be_sent(tmp_path: Path, reader: Cu3sReader) -> None:
    (cube,) = written = random_cubes(1)
    with reader.open(str(write_session(tmp_path / "a.cu3s", written))) as source:
        info, frame = pickle.loads(pickle.dumps((source.info, source.frame(0))))
    assert info.metadata == source.info.metadata
    assert np.array_equal(frame.read(0, 3), cube)
    assert pickle.loads(pickle.dumps(reader)).name == "cu3s"


def test_threads_take_turns_on_one_source(tmp_path: Path, reader: Cu3sReader) -> None:
    written = random_cubes(16)
    slow = [Fault("apply", i, status=1, sleep_ms=2) for i in range(16)]
    path = write_session(tmp_path / "a.cu3s", written, faults=slow)
    wrong: list[int] = []
    with reader.open(str(path)) as source:

        def work(first: int) -> None:
            order = [*range(first, 16), *range(first)]
            wrong.extend(
                i for i in order if not np.array_equal(source.frame(i).read(0, 3), written[i])
            )

        threads = [threading.Thread(target=work, args=(4 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_error_can_be_read_where_there_is_no_sdk(tmp_path: Path, reader: Cu3sReader) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(1), faults=[Fault("apply", 0)])
    with pytest.raises(SourceError) as e:
        reader.open(str(path))
    (tmp_path / "error").write_bytes(pickle.dumps(e.value))
    script = """
import os, pickle, sys
del os.environ["CUVIS"]
with open(sys.argv[1], "rb") as file:
    error = pickle.load(file)
assert not any(name.startswith("cuvis") for name in sys.modules)
print(error)
"""
    assert run(script, tmp_path / "error").strip() == str(e.value)


def test_spawned_workers_open_for_themselves(tmp_path: Path) -> None:
    written = random_cubes(4)
    path = write_session(tmp_path / "a.cu3s", written)
    script = tmp_path / "workers.py"
    script.write_text("""
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from hsi_batch.readers.cu3s import Cu3sReader

def total(task):
    path, index = task
    with Cu3sReader().open(path) as source:
        return int(source.frame(index).read(0, 3).sum(dtype="int64"))

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        print(*pool.map(total, [(sys.argv[1], i) for i in range(4)]))
""")
    done = subprocess.run(
        [sys.executable, str(script), str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(cube.sum(dtype=np.int64)) for cube in written]


def test_a_forked_process_is_refused(tmp_path: Path) -> None:
    script = """
import os, sys
from hsi_batch.errors import SourceError
from hsi_batch.readers.cu3s import Cu3sReader
Cu3sReader().open(sys.argv[1]).close()
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    Cu3sReader().open(sys.argv[1])
except SourceError as error:
    print(error)
"""
    out = run(script, write_session(tmp_path / "a.cu3s", random_cubes(1)))
    assert "forked" in out
    assert "spawn" in out


def test_nothing_is_logged_or_printed(tmp_path: Path) -> None:
    """A failure of the SDK leaves no handler on the root logger and no line on stderr."""
    script = """
import logging, sys
from hsi_batch.errors import SourceError
from hsi_batch.readers.cu3s import Cu3sReader
with Cu3sReader().open(sys.argv[1]) as source:       # fps and hash are absent, too
    for index in range(2):
        try:
            source.frame(index)
        except SourceError as error:
            print(error.frame)
print(logging.getLogger().handlers)
"""
    path = write_session(tmp_path / "a.cu3s", random_cubes(2), faults=[Fault("apply", 1)])
    assert run(script, path).split("\n")[:2] == ["1", "[]"]


def test_logging_of_others_is_as_it_was(
    tmp_path: Path, reader: Cu3sReader, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(1), faults=[Fault("apply", 0)])
    with caplog.at_level(logging.INFO), pytest.raises(SourceError):
        reader.open(str(path))
    assert caplog.records == []
    import cuvis

    garbage = tmp_path / "b.cu3s"
    garbage.write_bytes(b"x")
    with pytest.raises(cuvis.cuvis_aux.SDKException):
        cuvis.SessionFile(garbage)
    assert [record.name for record in caplog.records] == ["root"]
    caplog.clear()


MEMORY = """
import sys
from hsi_batch.readers.cu3s import Cu3sReader

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

warm, path, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Cu3sReader().open(warm) as source:
    source.frame(0).read(0, 1)
base = kilobytes("VmRSS")
with Cu3sReader().open(path) as source:
    for index in range(source.info.frames):
        frame = source.frame(index)
        for start in range(0, source.info.shape[0], lines):
            frame.read(start, start + lines)
        del frame  # else it is held while the next is computed
print(kilobytes("VmHWM") - base)
"""


def test_memory_stays_below_four_frames(tmp_path: Path) -> None:
    """Ten frames of 32 MiB.

    The library holds two cubes of a frame (the stored and the computed one), the reader a third.
    """
    shape = (256, 512, 128)
    entry = {"Raw": Hole(shape), "Reflectance": Hole(shape)}
    path = write_session(tmp_path / "a.cu3s", [entry] * 10, stored="Raw")
    warm = write_session(tmp_path / "b.cu3s", random_cubes(1))
    frame, block = 32 * 1024, 8 * 1024
    peak = int(run(MEMORY, warm, path, 64))
    assert peak > 2 * frame  # or nothing was measured
    assert peak < 3 * frame + 2 * block


@pytest.mark.slow
def test_two_gigabytes_pass_through(tmp_path: Path, reader: Cu3sReader) -> None:
    """A sparse session of 2 GB, with something to find in its last frame."""
    shape = (1000, 1000, 50)
    (last,) = random_cubes(1, shape=shape)
    path = write_session(tmp_path / "a.cu3s", [*[Hole(shape)] * 20, last])
    assert path.stat().st_size > 2 * 10**9
    with reader.open(str(path)) as source:
        assert not source.frame(10).read(0, 1000).any()
        assert np.array_equal(source.frame(20).read(0, 1000), last)
