"""Means and covariances of one core: exact sums of integers, centred sums of floats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.cubes import cube, exact_moments
from benchmarks.speed.harness import SCALES, Contest, Line, Scale
from benchmarks.speed.plain import ONE_THREAD
from hsi_batch.statistics import FloatMoments, IntegerMoments, kernels
from hsi_batch.statistics.grid import lines_forest
from hsi_batch.statistics.leaves import block_lines
from hsi_batch.statistics.packed import pack

__all__ = ["run"]

FAMILY = "Moments, one core"
UNIT = "Gpb/s"
#: Channels, width, and the bars against two-pass, spectral, cuvis-ai, IncrementalPCA.
CASES = (
    (61, 1000, 3.2, 4.5, 10.0, 30.0),
    (106, 600, 2.7, 4.0, 10.0, 30.0),
    (164, 400, 2.7, 4.0, 10.0, 30.0),
)
_ROWS = 4096
#: A CPU without int8 products, that numba is told to compile for: AVX2 of 2013.
_HASWELL = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,"
    "+bmi2,+lzcnt,+movbe",
}
_OLDER = [("numpy two-pass float64", 1.25)]


def run(scale: Scale) -> Iterator[Line]:
    """All lines."""
    for channels, width, *bars in CASES:
        yield from _integers(scale, channels, width, bars)
    for channels, width in ((61, 1000), (164, 400)):
        yield from _floats(scale, channels, width)


def _blocks(frame: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Pixels as an archive holds them, block by block."""
    lines = block_lines(frame.shape, frame.itemsize)
    for start in range(0, frame.shape[0], lines):
        yield frame[start : start + lines].reshape(-1, frame.shape[2])


def _ours(frame: NDArray[Any]) -> IntegerMoments:
    total = IntegerMoments.zero(frame.shape[2])
    for pixels in _blocks(frame):
        total = total.merge(IntegerMoments.zero(frame.shape[2]).update(pixels))
    return total


def _float64(frame: NDArray[Any]) -> tuple[Any, Any]:
    """Sums and packed sums of products as they are taken where nothing can be compiled."""
    total, products = 0, 0
    for pixels in _blocks(frame):
        found = kernels.sums_float64(pixels)
        total, products = total + found.total, products + found.products
    return total, products


def two_pass(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and covariance in float64, in blocks that fit the cache."""
    rows, channels = pixels.shape
    mean = np.zeros(channels)
    for start in range(0, rows, _ROWS):
        mean += pixels[start : start + _ROWS].sum(axis=0, dtype=np.float64)
    mean /= rows
    scatter = np.zeros((channels, channels))
    for start in range(0, rows, _ROWS):
        centred = pixels[start : start + _ROWS] - mean
        scatter += centred.T @ centred
    return mean, scatter / (rows - 1)


def two_pass_whole(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same on all pixels at once."""
    mean = pixels.mean(axis=0, dtype=np.float64)
    centred = pixels - mean
    return mean, centred.T @ centred / (len(pixels) - 1)


def _spectral(frame: NDArray[Any]) -> tuple[Any, Any]:
    import spectral

    stats = spectral.calc_stats(frame)
    return stats.mean, stats.cov


def _cuvis(tensor: Any, rows: int | None = None) -> tuple[Any, Any]:
    from cuvis_ai.utils.welford import WelfordAccumulator

    accumulator = WelfordAccumulator(tensor.shape[1], track_covariance=True)
    for part in (tensor,) if rows is None else tensor.split(rows):
        accumulator.update(part)
    # Its getters round to float32.
    mean, scatter = (getattr(accumulator, name).numpy() for name in ("_mean", "_M2"))
    return mean, scatter / (accumulator.count - 1)


def _incremental_pca(pixels: NDArray[Any]) -> Any:
    from sklearn.decomposition import IncrementalPCA

    # It covers its input with NaN checks and a copy in float64.
    found = IncrementalPCA(pixels.shape[1], batch_size=pixels.shape[0] // 2).fit(pixels)
    return found.mean_, (found.components_.T * found.explained_variance_) @ found.components_


def _dask(pixels: NDArray[Any]) -> Any:
    import dask
    import dask.array as da

    with dask.config.set(scheduler="synchronous"):
        return pixels.mean(axis=0), da.cov(
            da.from_array(pixels.astype(np.float64), chunks=(65536, -1)), rowvar=False
        ).compute()


def _dask_pca(pixels: NDArray[Any]) -> Any:
    import dask
    import dask.array as da
    from dask_ml.decomposition import PCA

    with dask.config.set(scheduler="synchronous"):
        array = da.from_array(pixels.astype(np.float64), chunks=(len(pixels) // 2, -1))
        found = PCA(pixels.shape[1], svd_solver="full").fit(array)
    return found.mean_, (found.components_.T * found.explained_variance_) @ found.components_


def _near(mean: Any, covariance: Any, bound: float) -> Callable[[Any], None]:
    deviations = np.sqrt(np.diag(covariance))

    def check(found: Any) -> None:
        error = np.abs(np.asarray(found[1]) - covariance) / np.outer(deviations, deviations)
        assert error.max() <= bound, f"covariance errs by {error.max():.1e}"
        shift = np.abs(np.asarray(found[0]) - mean) / deviations
        assert shift.max() <= bound, f"mean errs by {shift.max():.1e}"

    return check


def _exact(frame: NDArray[Any]) -> Callable[[IntegerMoments], None]:
    count, total, products = exact_moments(frame.reshape(-1, frame.shape[2]))
    row = np.concatenate([[count], total, pack(products)]).astype(np.int64)

    def check(found: IntegerMoments) -> None:
        assert np.array_equal(found.row, row), "sums are not exact"

    return check


def _integers(scale: Scale, channels: int, width: int, bars: list[float]) -> Iterator[Line]:
    import torch

    hard = cube(min(scale.frame_lines, 200), width, channels, hard=True)
    # Its speed is that of the other; its result is where rounding would show.
    _exact(hard)(_ours(hard))
    frame = cube(scale.frame_lines, width, channels)
    pixels = frame.reshape(-1, channels)
    count, total, products = exact_moments(pixels)
    exact = _exact(frame)
    scatter = products * count - np.outer(np.array(total, object), np.array(total, object))
    covariance = (scatter / (count * (count - 1))).astype(np.float64)
    mean = np.array([s / count for s in total])
    part = pixels[: scale.slow_rows]
    near, near_part = _near(mean, covariance, 1e-9), _near(*two_pass(part), 1e-9)

    def same(found: tuple[Any, Any]) -> None:
        assert np.array_equal(found[1], pack(products).astype(np.int64)), "not exact"

    tensor = torch.from_numpy(pixels.astype(np.float32))
    contest = Contest(pixels.size / 1e9, scale.repeats)
    contest.add("ours", lambda: _ours(frame), exact)
    contest.add("numpy two-pass float64", lambda: two_pass(pixels), near)
    contest.add("numpy two-pass, whole frame", lambda: two_pass_whole(pixels), near)
    contest.add("spectral.calc_stats", lambda: _spectral(frame), near)
    contest.add("cuvis-ai accumulator, whole frames", lambda: _cuvis(tensor), near)
    contest.add("cuvis-ai accumulator, 4096 pixels", lambda: _cuvis(tensor, 4096), near)
    contest.add("IncrementalPCA", lambda: _incremental_pca(part), near_part, part.size / 1e9)
    contest.add("dask da.cov", lambda: _dask(part), near_part, part.size / 1e9)
    others: list[tuple[str, float | None]] = [
        ("numpy two-pass float64", bars[0]),
        ("numpy two-pass, whole frame", None),
        ("spectral.calc_stats", bars[1]),
        ("cuvis-ai accumulator, whole frames", bars[2]),
        ("cuvis-ai accumulator, 4096 pixels", None),
        ("IncrementalPCA", bars[3]),
        ("dask da.cov", None),
    ]
    try:
        import dask_ml  # noqa: F401

        contest.add("dask-ml PCA", lambda: _dask_pca(part), near_part, part.size / 1e9)
        others.append(("dask-ml PCA", None))
    except ImportError:
        pass
    what = f"uint16, {channels} channels"
    yield from contest.lines(FAMILY, what, "ours", others, UNIT, f"{kernels.kernel_name()}, exact")
    yield from _older(scale, channels, width)
    plain = Contest(pixels.size / 1e9, scale.repeats)
    plain.add("ours", lambda: _float64(frame), same)
    plain.add("numpy two-pass float64", lambda: two_pass(pixels), near)
    what = f"uint16, {channels} channels, nothing compiled"
    # No bar: both sides are one symmetric product of BLAS, and little beside it.
    peers = [(peer, None) for peer, _ in _OLDER]
    yield from plain.lines(FAMILY, what, "ours", peers, UNIT, "float64 products, exact")


def _older(scale: Scale, channels: int, width: int) -> Iterator[Line]:
    """As CPUs without int8 products do it: another process compiles for one."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.moments", scale.name, str(channels), str(width)],
        env={**os.environ, **ONE_THREAD, **_HASWELL},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in json.loads(said.stdout):
        yield Line(**line)


def _on_older(scale: Scale, channels: int, width: int) -> list[Line]:
    frame = cube(scale.frame_lines, width, channels)
    pixels = frame.reshape(-1, channels)
    contest = Contest(pixels.size / 1e9, scale.repeats)
    contest.add("ours", lambda: _ours(frame), _exact(frame))
    near = _near(*two_pass(pixels), 1e-9)
    contest.add("numpy two-pass float64", lambda: two_pass(pixels), near)
    what = f"uint16, {channels} channels, without int8 products"
    note = f"{kernels.kernel_name()} by AVX2, exact"
    return contest.lines(FAMILY, what, "ours", _OLDER, UNIT, note)


def _floats(scale: Scale, channels: int, width: int) -> Iterator[Line]:
    frame = cube(scale.frame_lines, width, channels).astype(np.float32) * np.float32(1.1)
    pixels = frame.reshape(-1, channels)

    def ours() -> FloatMoments:
        identity = FloatMoments.zero(channels)
        lines = block_lines(frame.shape, frame.itemsize)
        whole = None
        for start in range(0, len(frame), lines):
            part = frame[start : start + lines]
            forest = lines_forest(identity, part, None, start=start, height=len(frame))
            whole = forest if whole is None else whole.merge(forest)
        assert whole is not None
        return whole.result()

    near = _near(*two_pass(pixels.astype(np.float64)), 1e-12)
    contest = Contest(pixels.size / 1e9, scale.repeats)
    contest.add("ours", ours, lambda found: near((found.mean, _covariance(found))))
    contest.add("numpy two-pass float64", lambda: two_pass(pixels), near)
    what = f"float32, {channels} channels"
    others: list[tuple[str, float | None]] = [("numpy two-pass float64", 1.0)]
    yield from contest.lines(FAMILY, what, "ours", others, UNIT, "error below 1e-12")


def _covariance(found: Any) -> NDArray[np.float64]:
    upper = found.packed_covariance()
    channels = len(found.mean)
    full = np.zeros((channels, channels))
    full[np.triu_indices(channels)] = upper
    return full + np.triu(full, 1).T


if __name__ == "__main__":
    found = _on_older(SCALES[sys.argv[1]], *map(int, sys.argv[2:]))
    print(json.dumps([asdict(line) for line in found]))
