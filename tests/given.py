"""What the examples of documents and docstrings take for given, in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from recordings import scene, write_cu3s, write_envi

import hsi_batch as hb
from hsi_batch.workflow import shipped

__all__ = ["make_place", "renewed"]

NM = np.arange(8) * 20.0 + 450


def make_place(folder: Path) -> Path:
    """Write recordings, an archive of them, a fitted pipeline and its scores."""
    for i in range(2):
        cube, mask = scene(i)
        path = folder / "recordings" / f"scene_{i:03d}.hdr"
        write_envi(path, cube, wavelength=NM, mask=mask)
    for i in range(12):
        cube, _ = scene(i + 10)
        name = f"{'morning' if i < 6 else 'evening'}_{i % 6}"
        write_envi(folder / "scans" / f"{name}.hdr", cube, wavelength=NM)
    frames, masks = zip(*(scene(i) for i in range(5)), strict=True)
    write_cu3s(folder / "lentils.cu3s", frames, wavelength=NM, masks=masks)
    shutil.copytree(shipped(), folder / "workflows")
    hb.convert(str(folder / "recordings"), folder / "archive.zarr")
    archive = hb.open_archive(folder / "archive.zarr")
    pipeline = hb.Pipeline.from_yaml(folder / "workflows" / "pipelines" / "rx_global.yaml")
    hb.fit(pipeline, archive)
    pipeline.save(folder / "fitted.yaml")
    hb.score(pipeline, archive, folder / "scores.zarr")
    shutil.copytree(folder, _kept(folder))
    return folder


def renewed(place: Path) -> Path:
    """Put the place back to what :func:`make_place` left; paths and times of files are the same."""
    shutil.rmtree(place)
    shutil.copytree(_kept(place), place)
    return place


def _kept(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.kept")
