"""A small synthetic archive with planted targets, and a workflow that finds them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.stages.outputs import check_place
from hsi_batch.workflow import WorkflowResult, run_workflow, shipped

if TYPE_CHECKING:
    from distributed import Client

    from hsi_batch.engine.events import Observer

__all__ = ["run_demo", "write_recordings"]

_SCENES = (("field_a", 0), ("field_a", 1), ("field_b", 0), ("field_b", 1))
_LINES, _SAMPLES, _BANDS = 180, 240, 64
_TARGETS = 14
_SEED = 20261121


def _spectra(wavelength: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reflectance of soil, dry and green vegetation, shade and stone; and of the target."""

    def bump(centre: float, width: float) -> NDArray[Any]:
        return np.exp(-(((wavelength - centre) / width) ** 2))

    edge = 1 / (1 + np.exp(-(wavelength - 715) / 12))
    soil = 0.12 + 0.22 * (wavelength - 400) / 600
    dry = 0.16 + 0.26 / (1 + np.exp(-(wavelength - 600) / 60))
    green = 0.05 + 0.09 * bump(550, 35) + 0.42 * edge
    shade = 0.03 + 0.02 * (wavelength - 400) / 600
    stone = 0.30 + 0.04 * bump(900, 150)
    target = 0.14 + 0.20 * bump(480, 40) + 0.16 * edge + 0.1 * bump(820, 45)
    return np.stack([soil, dry, green, shade, stone]), target


def _blurred(field: NDArray[Any], width: float) -> NDArray[Any]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(field, (0, width, width), mode="wrap"))


def _scene(
    rng: np.random.Generator, wavelength: NDArray[np.float64]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    members, target = _spectra(wavelength)
    fields = _blurred(rng.standard_normal((len(members), _LINES, _SAMPLES)), 9.0)
    raised = np.exp(fields / fields.std() * 1.6)
    share = raised / raised.sum(axis=0)
    mask = np.zeros((_LINES, _SAMPLES), dtype=np.uint8)
    fill = np.zeros((_LINES, _SAMPLES))
    for _ in range(_TARGETS):
        y, x = rng.integers(4, _LINES - 6), rng.integers(4, _SAMPLES - 6)
        height, width = rng.integers(1, 4, 2)
        fill[y : y + height, x : x + width] = rng.uniform(0.06, 0.45)
        mask[y : y + height, x : x + width] = 1
    light = 1 + 0.15 * _blurred(rng.standard_normal((1, _LINES, _SAMPLES)), 25.0)[0] * 25
    cube = np.einsum("kyx,kc->yxc", share, members) * (1 - fill)[..., None]
    cube += fill[..., None] * target
    cube *= np.clip(light, 0.5, 1.5)[..., None]
    counts = cube * 6000 + 120
    noisy = counts + rng.standard_normal(counts.shape) * np.sqrt(counts * 0.6 + 60)
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), mask


def write_recordings(folder: str | os.PathLike[str]) -> list[Path]:
    """Write four ENVI recordings with label masks beside them; the same ones every time.

    Parameters
    ----------
    folder : path
        Made if needed.

    Returns
    -------
    list of Path
        The headers.
    """
    from PIL import Image
    from spectral.io import envi

    rng = np.random.default_rng(_SEED)
    wavelength = np.linspace(400, 1000, _BANDS)
    written = []
    for day, (field, number) in enumerate(_SCENES, start=1):
        cube, mask = _scene(rng, wavelength)
        header = Path(folder) / field / f"scene_{number:03d}.hdr"
        header.parent.mkdir(parents=True, exist_ok=True)
        envi.save_image(
            str(header),
            cube,
            dtype=np.uint16,
            interleave="bil",
            force=True,
            ext=".raw",
            metadata={
                "description": "synthetic scene of hsi_batch",
                "sensor type": "synthetic",
                "acquisition time": f"2026-06-{day:02d}T10:00:00Z",
                "wavelength units": "Nanometers",
                "wavelength": [f"{nm:.2f}" for nm in wavelength],
            },
        )
        # 1 becomes white, so that the mask can be looked at.
        Image.fromarray(mask * 255).save(header.with_name(f"{header.stem}_mask.png"))
        written.append(header)
    return written


def run_demo(
    folder: str | os.PathLike[str],
    *,
    client: Client | None = None,
    workers: int | None = None,
    force: bool = False,
    observer: Observer | None = None,
) -> tuple[Path, WorkflowResult]:
    """Write the recordings and the quickstart workflow to a folder and run it.

    Parameters
    ----------
    folder : path
        Made if needed. Files of the demo in it are written over.
    client : distributed.Client, optional
    workers : int, optional
    force : bool
        Do everything again, though nothing changed.
    observer : callable, optional

    Returns
    -------
    Path
        The workflow, to edit and run again.
    WorkflowResult
    """
    target = Path(folder)
    check_place(target / "recordings", folder=True)
    if not (target / "recordings" / "field_b" / "scene_001.hdr").exists():
        write_recordings(target / "recordings")
    workflow = target / "quickstart.yaml"
    pipelines = target / "pipelines"
    pipelines.mkdir(parents=True, exist_ok=True)
    for source, copy in (
        (shipped() / "quickstart.yaml", workflow),
        (shipped() / "pipelines" / "rx_global.yaml", pipelines / "rx_global.yaml"),
    ):
        if not copy.exists():
            shutil.copyfile(source, copy)
    return workflow, run_workflow(
        workflow, client=client, workers=workers, force=force, observer=observer
    )
