"""Recordings for tests: arrays as ENVI, npz and cu3s files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from simulated_cuvis import write_session

_CODES = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12}
_AXES = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (2, 0, 1)}


def write_envi(path: Path, cube, *, interleave="bil", wavelength=None, extra="", mask=None) -> Path:
    """Write ``path`` (.hdr) and its data file with plain numpy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines, samples, bands = cube.shape
    cube.transpose(_AXES[interleave]).tofile(path.with_suffix(".raw"))
    header = (
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\n"
        f"data type = {_CODES[cube.dtype.name]}\ninterleave = {interleave}\nbyte order = 0\n"
    )
    if wavelength is not None:
        values = ", ".join(f"{w:.6f}" for w in wavelength)
        header += f"wavelength units = Nanometers\nwavelength = {{{values}}}\n"
    path.write_text(header + extra)
    if mask is not None:
        from PIL import Image

        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(
            path.with_name(f"{path.stem}_mask.png")
        )
    return path


def write_npz(path: Path, cube, *, wavelength=None, mask=None, compressed=False) -> Path:
    """Write an npz recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"cube": cube}
    if wavelength is not None:
        arrays["wavelengths"] = np.asarray(wavelength, dtype=np.float64)
    if mask is not None:
        arrays["mask"] = mask
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def write_cu3s(path: Path, frames, *, wavelength="auto", masks=None, **options) -> Path:
    """Write a session for the simulated library, with COCO labels beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_session(path, list(frames), wavelengths=wavelength, **options)
    if masks is not None:
        height, width = masks[0].shape
        coco = {
            "images": [
                {"id": i, "height": height, "width": width, "file_name": f"{i}"}
                for i in range(len(masks))
            ],
            "categories": [{"id": 0, "name": "background"}, {"id": 1, "name": "anomaly"}],
            "annotations": [
                {
                    "id": i,
                    "image_id": i,
                    "category_id": 1,
                    "iscrowd": 1,
                    "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
                }
                for i, mask in enumerate(masks)
                if mask.any()
            ],
        }
        path.with_suffix(".json").write_text(json.dumps(coco))
    return path


def run_lengths(mask) -> list[int]:
    """Column-major run lengths of a mask, beginning with zeros."""
    flat = (np.asarray(mask) > 0).ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], ends, [flat.size]])
    lengths = np.diff(edges).tolist()
    return [0, *lengths] if flat[0] else lengths


def scene(seed, lines=40, samples=30, bands=8, dtype="uint16", scale=3000.0):
    """A cube of correlated channels with a few odd pixels, and the mask of those."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(3, bands))
    values = rng.normal(size=(lines, samples, 3)) @ mixing + rng.normal(
        size=(lines, samples, bands), scale=0.2
    )
    mask = np.zeros((lines, samples), dtype=np.uint8)
    for _ in range(4):
        y, x = rng.integers(lines - 1), rng.integers(samples - 1)
        mask[y : y + 2, x : x + 2] = 1
    values[mask > 0] += rng.normal(size=bands) * 3
    values = values * scale / 10 + scale
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(np.rint(values), info.min, info.max)
    return values.astype(dtype), mask
