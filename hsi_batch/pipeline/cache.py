"""One copy of a fitted pipeline per process, whatever the number of tasks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from hsi_batch.files import digest_of
from hsi_batch.nodes import PortRef
from hsi_batch.pipeline.evaluate import Evaluator
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.pipeline.frames import frame_evaluator
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.program import Program, compile_program, frame_nodes

__all__ = ["Packed", "evaluator", "pack", "unpack"]

_KEPT = 4
_loaded: OrderedDict[str, Pipeline] = OrderedDict()
_programs: dict[tuple[str, tuple[PortRef, ...]], Program] = {}
#: The threaded scheduler of Dask runs several tasks in one process.
_lock = threading.RLock()


class Packed(NamedTuple):
    """A pipeline on its way to a worker.

    Attributes
    ----------
    digest : str
        SHA-256 of what follows; names the pipeline.
    text : str
        YAML.
    weights : bytes
        Contents of the ``.pt``.
    """

    digest: str
    text: str
    weights: bytes


def pack(pipeline: Pipeline) -> Packed:
    """Serialise a pipeline."""
    text, weights = pipeline.to_bytes()
    return Packed(digest_of(text.encode() + weights), text, weights)


def unpack(packed: Packed) -> Pipeline:
    """The pipeline, built once per process and digest."""
    with _lock:
        if packed.digest in _loaded:
            _loaded.move_to_end(packed.digest)
            return _loaded[packed.digest]
        pipeline = Pipeline.from_bytes(packed.text, packed.weights)
        _loaded[packed.digest] = pipeline
        while len(_loaded) > _KEPT:
            dropped, _ = _loaded.popitem(last=False)
            for key in [key for key in _programs if key[0] == dropped]:
                del _programs[key]
        return pipeline


def evaluator(packed: Packed, wanted: tuple[PortRef, ...], source: FrameSource) -> Evaluator:
    """Evaluator of a frame; without frame-scope nodes the program is compiled once per process."""
    pipeline = unpack(packed)
    key = (packed.digest, wanted)
    with _lock:
        program = _programs.get(key)
    if program is None:
        if frame_nodes(pipeline, wanted):
            return frame_evaluator(pipeline, wanted, source, pipeline.precision)
        program = compile_program(pipeline, wanted, precision=pipeline.precision)
        with _lock:
            _programs[key] = program
    return source.evaluator(program)
