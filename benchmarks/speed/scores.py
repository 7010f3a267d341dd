"""RX scores of one core, in float32 and float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from benchmarks.speed.cubes import cube
from benchmarks.speed.harness import Contest, Line, Scale
from benchmarks.speed.moments import two_pass
from hsi_batch.nodes import ChannelAxis, CU3SDataNode, RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.pipeline.precision import Precision
from hsi_batch.pipeline.program import compile_program
from hsi_batch.statistics import IntegerMoments
from hsi_batch.statistics.leaves import block_lines

__all__ = ["fitted_rx", "run"]

FAMILY = "RX scores, one core"
UNIT = "Mpx/s"
CASES = ((61, 1000), (164, 400))
_ROWS = 4096


def run(scale: Scale) -> Iterator[Line]:
    """All lines."""
    for channels, width in CASES:
        yield from _scores(scale, channels, width)


def fitted_rx(frame: NDArray[Any]) -> Pipeline:
    """RX, fitted to all pixels of a frame."""
    channels = frame.shape[2]
    pipeline = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    pipeline.connect((data.outputs.cube, rx.data))
    pipeline.resolve(ChannelAxis(channels))
    rx.fit(IntegerMoments.zero(channels).update(frame.reshape(-1, channels)))
    return pipeline


def _ours(pipeline: Pipeline, frame: NDArray[Any], dtype: Any) -> Callable[[], NDArray[Any]]:
    ref = pipeline.nodes["rx"].outputs.scores.ref
    program = compile_program(pipeline, (ref,), precision={"rx": Precision(dtype)})
    lines = block_lines(frame.shape, frame.itemsize)
    source = FrameSource(
        lines=lambda start, stop: frame[start:stop],
        valid=lambda _start, _stop: None,
        shape=frame.shape,
        dtype=frame.dtype,
        blocks=((0, len(frame)),),
    )

    def scores() -> NDArray[Any]:
        running = source.evaluator(program)
        tops = range(0, len(frame), lines)
        found = [running.block(top, min(top + lines, len(frame)))[ref] for top in tops]
        return np.concatenate(found).reshape(-1)

    return scores


def _reference(pixels: NDArray[Any]) -> NDArray[np.float64]:
    mean, covariance = two_pass(pixels)
    factor = scipy.linalg.cho_factor(covariance, lower=True)
    found = np.empty(len(pixels))
    for start in range(0, len(pixels), 65536):
        centred = pixels[start : start + 65536] - mean
        solved = scipy.linalg.cho_solve(factor, centred.T)
        found[start : start + 65536] = np.einsum("ij,ji->i", centred, solved)
    return found


def _near(reference: NDArray[np.float64], bound: float) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        error = np.abs(np.asarray(found, dtype=np.float64).reshape(-1) / reference - 1).max()
        assert error <= bound, f"scores err by {error:.1e}"

    return check


def _theirs(frame: NDArray[Any]) -> tuple[Any, Any]:
    import torch
    from cuvis_ai.node.anomaly.rx_detector import RXGlobal as TheirRX

    tensor = torch.from_numpy(frame.astype(np.float32))[None]
    node = TheirRX(num_channels=frame.shape[2], eps=0.0)
    node.statistical_initialization(iter([{"data": tensor}]))
    node.eval()
    return node, tensor


def _scores(scale: Scale, channels: int, width: int) -> Iterator[Line]:
    import spectral
    import torch

    frame = cube(scale.frame_lines, width, channels)
    pixels = frame.reshape(-1, channels)
    reference = _reference(pixels)
    pipeline = fitted_rx(frame)
    stats = spectral.calc_stats(frame)
    node, tensor = _theirs(frame)
    short = tensor.reshape(1, 1, -1, channels).split(_ROWS, dim=2)

    def by_parts() -> Any:
        with torch.no_grad():
            return torch.cat([node(data=part)["scores"].reshape(-1) for part in short]).numpy()

    def by_frames() -> Any:
        with torch.no_grad():
            return node(data=tensor)["scores"].numpy()

    for dtype, bound, bars in (
        ("float32", 1e-6, (3.5, 1.7, 5.0)),
        ("float64", 1e-7, (1.8, None, None)),
    ):
        contest = Contest(len(pixels) / 1e6, scale.repeats)
        contest.add("ours", _ours(pipeline, frame, dtype), _near(reference, bound))
        contest.add(
            "spectral.rx", lambda: spectral.rx(frame, background=stats), _near(reference, 1e-9)
        )
        # float32 and a pseudo-inverse: its error is what it is, and printed in docs/numbers.md.
        contest.add("cuvis-ai node, 4096 pixels", by_parts, _near(reference, 0.05))
        contest.add("cuvis-ai node, whole frames", by_frames, _near(reference, 0.05))
        names = ("spectral.rx", "cuvis-ai node, 4096 pixels", "cuvis-ai node, whole frames")
        what = f"{dtype}, {channels} channels"
        note = f"error below {bound:g}"
        yield from contest.lines(
            FAMILY, what, "ours", tuple(zip(names, bars, strict=True)), UNIT, note
        )
