"""First use of everything a worker needs, so that its base memory is measured after it.

Libraries allocate tables, thread pools and compiled kernels when they are used for the first time;
none of that belongs to a block.
"""

from __future__ import annotations

import tempfile

import numpy as np
import zarr

from hsi_batch.archive.chunk_reader import read_lines
from hsi_batch.archive.chunk_writer import write_lines
from hsi_batch.archive.store import checksum, create_array
from hsi_batch.statistics import Extrema, Moments
from hsi_batch.statistics.columns import ColumnMoments
from hsi_batch.statistics.quality import flag_pixels

__all__ = ["converting", "scoring"]

_SHAPE = (16, 64, 8)


def converting() -> None:
    """Convert a tiny block."""
    _pixels()
    # Compiled when they are first needed, or loaded from the disk.
    for dtype in ("uint16", "float32"):
        lines = np.zeros(_SHAPE, dtype=dtype)
        ColumnMoments.empty(*_SHAPE[1:], dtype).update(lines)


def _pixels() -> None:
    import PIL.Image  # noqa: F401
    import pycocotools.mask  # noqa: F401

    import hsi_batch.readers.envi
    import hsi_batch.readers.npz
    import hsi_batch.stages.convert_blocks  # noqa: F401

    cube = np.arange(np.prod(_SHAPE), dtype=np.uint16).reshape(_SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        array = create_array(
            zarr.create_group(folder),
            "cube",
            shape=(1, *_SHAPE),
            chunks=(1, *_SHAPE),
            dtype="uint16",
            dims=("frame", "y", "x", "channel"),
        )
        write_lines(array, 0, 0, _SHAPE[0], cube)
        array[0, :1] = cube[:1]
        checksum(read_lines(array, 0, 0, _SHAPE[0]))
    flag_pixels(cube, nodata=0.0)
    pixels = cube.reshape(-1, _SHAPE[2])
    for dtype in ("uint16", "float32"):
        Moments.empty(_SHAPE[2], dtype).update(pixels.astype(dtype)).merge(
            Moments.empty(_SHAPE[2], dtype)
        )
    Extrema.empty(_SHAPE[2], "uint16").update(pixels)


def scoring() -> None:
    """Fit and score a tiny cube."""
    import hsi_batch.stages.fit_blocks
    import hsi_batch.stages.score_blocks  # noqa: F401
    from hsi_batch.nodes import BinaryDecider, ChannelAxis, CU3SDataNode, RXGlobal, ScoreToLogit
    from hsi_batch.pipeline import Pipeline
    from hsi_batch.pipeline.cache import evaluator, pack
    from hsi_batch.pipeline.frame_source import FrameSource

    _pixels()
    cube = np.random.default_rng(0).normal(100, 5, _SHAPE).astype(np.float32)
    pipeline = Pipeline("warm")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx")
    logit, decider = ScoreToLogit(name="logit"), BinaryDecider(name="decider")
    pipeline.connect(
        (data.outputs.cube, rx.data), (rx.scores, logit.scores), (logit.logits, decider.logits)
    )
    pipeline.resolve(ChannelAxis(_SHAPE[2]))
    rx.fit(Moments.empty(_SHAPE[2], "float32").update(cube.reshape(-1, _SHAPE[2])))
    logit.mark_fitted(True)
    source = FrameSource(
        lines=lambda start, stop: cube[start:stop],
        valid=lambda _start, _stop: None,
        shape=_SHAPE,
        dtype=cube.dtype,
        blocks=((0, _SHAPE[0]),),
    )
    wanted = (rx.outputs.scores.ref, decider.outputs.decisions.ref)
    evaluator(pack(pipeline), wanted, source).block(0, _SHAPE[0])
