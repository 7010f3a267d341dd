"""The ideal: a process that reads chunks, decodes them and runs the kernel, and nothing else.

Started by :class:`Plain`, told what to do by a line of JSON, and to go by any line after it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ONE_THREAD", "Plain"]

#: Environment of a process that computes with one thread.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
_CRC, _HEADER = 4, 16


class Plain:
    """Plain processes that do the same on parts of the work.

    Parameters
    ----------
    jobs : list of dict
        One for each process; see :func:`_work`.
    """

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.speed.plain"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **ONE_THREAD},
            )
            for _ in jobs
        ]
        for process, job in zip(self._processes, jobs, strict=True):
            self._say(process, json.dumps(job))
        for process in self._processes:
            self._hear(process)

    @staticmethod
    def _say(process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin is not None
        process.stdin.write(text + "\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("a plain process died; see its message above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def run(self) -> tuple[float, list[dict[str, Any]]]:
        """Let all go at once; seconds until the last is done, and what they say."""
        begun = time.perf_counter()
        for process in self._processes:
            self._say(process, "go")
        found = [self._hear(process) for process in self._processes]
        return time.perf_counter() - begun, found

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _keep_memory() -> None:
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 32 * 2**20)
    libc.mallopt(-1, 2**30)


class _Chunks:
    """Chunks of a store, decoded into memory that is used again."""

    def __init__(self, shape: list[int], dtype: str) -> None:
        import numpy as np

        self._chunk = np.empty(shape, dtype)
        self._stored = np.empty(self._chunk.nbytes + 2**20, np.uint8)

    def read(self, path: str) -> Any:
        import google_crc32c
        from numcodecs import blosc

        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            stored = self._stored[:size]
            assert file.readinto(stored.data) == size
        crc = int(google_crc32c.value(stored[:-_CRC]))
        assert crc.to_bytes(_CRC, "little") == stored[-_CRC:].tobytes()
        blosc.decompress(stored[:-_CRC], self._chunk)
        return self._chunk


def _fit(job: dict[str, Any]) -> Callable[[], Any]:
    from hsi_batch.statistics import IntegerMoments

    chunks = _Chunks(job["chunk"], job["dtype"])
    channels = job["chunk"][-1]

    def run() -> Any:
        total = IntegerMoments.zero(channels)
        for path, lines in job["files"]:
            pixels = chunks.read(path)[:lines].reshape(-1, channels)
            total = total.merge(IntegerMoments.zero(channels).update(pixels))
        return {"count": total.count, "sum": [int(s) for s in total.total]}

    return run


def _score(job: dict[str, Any]) -> Callable[[], Any]:
    import google_crc32c
    import numpy as np
    from numcodecs import Blosc

    from hsi_batch.pipeline import Pipeline
    from hsi_batch.pipeline.frame_source import FrameSource
    from hsi_batch.pipeline.program import compile_program

    pipeline = Pipeline.from_yaml(job["pipeline"])
    ref = pipeline.nodes["rx"].outputs.scores.ref
    program = compile_program(pipeline, (ref,), precision=pipeline.precision)
    chunks = _Chunks(job["chunk"], job["dtype"])
    codec = Blosc("lz4", 5, Blosc.SHUFFLE)
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)

    def run() -> Any:
        total = 0.0
        for number, (path, lines) in enumerate(job["files"]):
            block = chunks.read(path)[:lines]
            source = FrameSource(
                lines=lambda start, stop, block=block: block[start:stop],  # type: ignore[misc]
                valid=lambda _start, _stop: None,
                shape=block.shape,
                dtype=block.dtype,
                blocks=((0, lines),),
            )
            scores = source.evaluator(program).block(0, lines)[ref]
            body = codec.encode(np.ascontiguousarray(scores, dtype=np.float32))
            crc = int(google_crc32c.value(body)).to_bytes(_CRC, "little")
            (out / f"{job['name']}-{number}").write_bytes(body + crc)
            total += float(scores.sum(dtype=np.float64))
        return {"sum": total}

    return run


def _part(job: dict[str, Any]) -> Callable[[], Any]:
    """A part of converting: writing what was read, summing, or checksums."""
    import hashlib

    import google_crc32c
    import numpy as np
    import zarr

    from hsi_batch.archive.chunk_writer import write_lines
    from hsi_batch.archive.store import create_array
    from hsi_batch.readers.registry import open_source
    from hsi_batch.statistics import IntegerMoments

    shape, height, lines = job["shape"], job["shape"][0], job["chunk"][0]
    spans = [(a, min(a + lines, height)) for a in range(0, height, lines)]
    channels = shape[2]
    array = create_array(
        zarr.open_group(job["out"], mode="r+", zarr_format=3),
        job["name"],
        shape=(len(job["frames"]), *shape),
        chunks=(1, lines, *shape[1:]),
        dtype=job["dtype"],
        dims=("frame", "y", "x", "channel"),
    )
    held: dict[tuple[int, int], Any] = {}
    if not job["part"].startswith("write"):
        with open_source(job["frames"][0][0]) as source:
            frame = source.frame(job["frames"][0][1])
            # Of one frame, which the others are like.
            held = {span: np.array(frame.read(*span)) for span in spans}

    def write() -> None:
        for index, (path, number) in enumerate(job["frames"]):
            with open_source(path) as source:
                frame = source.frame(number)
                for span in spans:
                    write_lines(array, index, *span, frame.read(*span))

    def write_by_zarr() -> None:
        for index, (path, number) in enumerate(job["frames"]):
            with open_source(path) as source:
                frame = source.frame(number)
                for start, stop in spans:
                    array[index, start:stop] = frame.read(start, stop)

    # Kernels are loaded when they are first called.
    for block in held.values():
        IntegerMoments.zero(channels).update(block[:1].reshape(-1, channels))

    def moments() -> None:
        for _ in job["frames"]:
            for block in held.values():
                IntegerMoments.zero(channels).update(block.reshape(-1, channels))

    def checksums() -> None:
        for _ in job["frames"]:
            for block in held.values():
                raw = block.reshape(-1).view(np.uint8)
                google_crc32c.value(raw)
                hashlib.sha256(raw)

    def run() -> Any:
        parts = {
            "write": write,
            "write by Zarr": write_by_zarr,
            "moments": moments,
            "checksums": checksums,
        }
        parts[job["part"]]()
        return {}

    return run


_WORK = {"fit": _fit, "score": _score, "convert": _part}


def main() -> None:
    _keep_memory()
    import torch
    from numcodecs import blosc

    blosc.use_threads = False
    torch.set_num_threads(1)
    import hsi_batch.engine.worker  # noqa: F401 - kernels are registered as in workers

    job = json.loads(sys.stdin.readline())
    run = _WORK[job["do"]](job)
    if job.get("warm"):
        few = {**job, "files": job["files"][:1]} if "files" in job else job
        _WORK[job["do"]](few)()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        cpu = time.process_time()
        found = run()
        cpu = time.process_time() - cpu
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        print(json.dumps({"cpu": cpu, "faults": faults, "found": found}), flush=True)


if __name__ == "__main__":
    main()
