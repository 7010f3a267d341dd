"""Preload of the workers of chaos runs: notes each block that is done, slows and disturbs reading.

What is noted goes to ``blocks.log`` in the folder of the run, a line per block and stage, as soon
as the block is done and before its record is written. Files in its folder ``flaky`` are errors to
come: whoever reads or writes next takes one, and fails once as a bad cable would make it fail.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import time
from pathlib import Path

#: Ends the names of folders of runs.
RUN = ".run"
#: So that there is a middle in which something can happen.
_SECONDS = 0.02


def dask_setup(_worker):
    """Wrap what does blocks (called by Dask as the worker starts)."""
    from hsi_batch.archive import chunk_reader, chunk_writer
    from hsi_batch.archive.chunk_layout import store_path
    from hsi_batch.readers.raw import RawFile
    from hsi_batch.stages import convert_blocks, fit_blocks, score_blocks

    def converted(job, _frame, key, *_):
        return job.archive, f"convert {_name(key)}"

    def scored(scorer, key, *_):
        return _store_of(scorer), f"score {_name(key)} {scorer.item.digest[:8]}"

    def counted(item, places):
        asked = [[str(need) for need in job.needs] for job, _ in places]
        asked.append(hashlib.sha256(repr(places[0][0].packed.digest).encode()).hexdigest()[:8])
        digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
        keys = " ".join(_name(key) for key in fit_blocks.fit_keys(item))
        return places[0][0].archive, f"fit {keys} {digest}"

    convert_blocks._convert_block = _noting(convert_blocks._convert_block, converted)
    score_blocks._Scorer.score = _noting(score_blocks._Scorer.score, scored)
    fit_blocks._one = _noting(fit_blocks._one, counted)
    chunk_writer._replace = _failing(chunk_writer._replace, lambda path, *_: path)
    chunk_reader.read_lines = _failing(chunk_reader.read_lines, lambda array, *_: store_path(array))
    RawFile.read_into = _failing(RawFile.read_into, lambda file, *_: file.path)


def _name(key):
    return f"{key.session}/{key.frame}/{key.start}"


def _store_of(scorer):
    from hsi_batch.archive.chunk_layout import store_path

    return store_path(next(iter(scorer.outputs.values())))


def _folder(path):
    """Folder of the run that a path is of."""
    return next((p for p in Path(path).parents if p.suffix == RUN), None)


def _noting(function, told):
    @functools.wraps(function)
    def done(*arguments):
        store, text = told(*arguments)
        result = function(*arguments)
        folder = _folder(store)
        if folder is not None:
            time.sleep(_SECONDS)
            log = os.open(
                f"{os.environ['CHAOS_LOGS']}/{folder.stem}.log",
                os.O_CREAT | os.O_APPEND | os.O_WRONLY,
            )
            os.write(log, f"{text}\n".encode())
            os.close(log)
        return result

    return done


def _failing(function, place):
    @functools.wraps(function)
    def flaky(*arguments, **options):
        folder = _folder(place(*arguments))
        if folder is not None:
            for token in Path(os.environ["CHAOS_LOGS"]).glob(f"{folder.stem}.flaky-*"):
                try:
                    token.unlink()
                except FileNotFoundError:
                    continue
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return function(*arguments, **options)

    return flaky
