"""Synthetic cubes and recordings by seed: mixed endmembers, 12-bit counts, noise of shots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["cube", "exact_moments", "recordings"]

ENDMEMBERS = 8


def cube(
    lines: int, width: int, channels: int, seed: int = 0, *, hard: bool = False
) -> NDArray[np.uint16]:
    """A frame ``(lines, width, channels)``.

    Parameters
    ----------
    lines, width, channels : int
    seed : int
        Of the mixture and the noise; the endmembers are those of the sensor, always the same.
    hard : bool
        Almost no noise on a high level: the condition of the covariance is above 1e7, not 1e3.
    """
    sensor = np.random.default_rng(channels)
    spectra = np.cumsum(sensor.normal(size=(ENDMEMBERS, channels)), axis=1)
    spectra -= spectra.min(axis=1, keepdims=True)
    spectra /= spectra.max(axis=1, keepdims=True)
    rng = np.random.default_rng([seed, lines, width, channels])
    shares = rng.standard_exponential((lines * width, ENDMEMBERS), dtype=np.float32)
    shares /= shares.sum(axis=1, keepdims=True)
    clean = (300 + (10_000 if hard else 3000) * (shares @ spectra.astype(np.float32))).astype(
        np.float32
    )
    if hard:
        clean += 40_000
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    clean += noise * (0.6 if hard else np.sqrt(clean))
    np.rint(clean, out=clean)
    top = 65535 if hard else 4095
    return clean.clip(0, top, out=clean).astype(np.uint16).reshape(lines, width, channels)


def exact_moments(pixels: NDArray[np.uint16]) -> tuple[int, list[int], NDArray[np.object_]]:
    """``n``, ``sum x`` and ``sum x x^T`` in Python integers, by another route than the package.

    Bytes are multiplied in float64: their sums stay below 2**53.
    """
    rows, channels = pixels.shape
    high, low = pixels >> 8, pixels & 255
    parts = np.zeros((3, channels, channels))
    for start in range(0, rows, 65536):
        h, w = (part[start : start + 65536].astype(np.float64) for part in (high, low))
        parts += [h.T @ h, h.T @ w, w.T @ w]
    hh, hl, ll = (part.astype(np.int64).astype(object) for part in parts)
    products = 65536 * hh + 256 * (hl + hl.T) + ll
    return rows, [int(s) for s in pixels.sum(axis=0, dtype=np.int64)], products


def recordings(folder: Path, frames: int, *, lines: int = 1000, width: int = 1000) -> list[Path]:
    """Write ``.npz`` recordings of up to six frames of 61 channels; six frames are different."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [cube(lines, width, 61, seed) for seed in range(min(frames, 6))]
    files = []
    for first in range(0, frames, 6):
        path = folder / f"session_{first // 6:03d}.npz"
        chosen = [np.roll(made[i % 6], i, axis=0) for i in range(first, min(first + 6, frames))]
        np.savez(path, cube=np.stack(chosen), wavelengths=np.linspace(400, 1000, 61))
        files.append(path)
    return files
