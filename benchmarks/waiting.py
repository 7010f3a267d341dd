"""How long a training waits for data, and what memory it takes, by the size of the archive.

    python benchmarks/waiting.py [--gigabytes 0.5 --gigabytes 2] [--batches N] [--folder DIR]

Makes an archive of each size by a seed (labelled frames of 21 MB), fits the shipped trainruns to
it, and trains each for one epoch of patches, in a process of its own, whose memory is measured. The
share is the one that the log of every training shows. ``peak`` is the largest memory of the process
in the training, in bytes like ``block``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

import hsi_batch as hb
from hsi_batch.data.config import data_module
from hsi_batch.engine.worker import memory_peak, reset_peak
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer
from hsi_batch.training.assembly import gradient_trainer
from hsi_batch.training.results import TrainResult
from hsi_batch.training.trainrun import build_pipeline, read_trainrun
from hsi_batch.workflow import shipped

FRAME = (256, 320, 128)
FRAME_BYTES = int(np.prod(FRAME)) * 2
#: Settings besides the shipped ones: patches, as memory is that of batches.
PATCHES = {"patch": [64, 64], "patches_per_frame": 8}
METHODS = ("channel_selector", "deep_svdd")


def make_archive(folder: Path, size: float) -> Path:
    """An archive of about so many bytes, of labelled frames that all differ."""
    rng = np.random.default_rng(1)
    height, width, channels = FRAME
    spectrum = 2000 + 800 * np.sin(np.linspace(0, 6, channels))
    noise = rng.normal(0, 40, (height, width, channels)) + rng.normal(0, 200, (height, width, 1))
    scene = spectrum + noise
    mask = np.zeros((height, width), np.uint8)
    mask[100:104, 100:140] = 1
    scene[mask > 0] += 300 * np.cos(np.linspace(0, 9, channels))
    frame = scene.round().astype(np.uint16)
    store = folder / "archive.zarr"
    source = folder / "in"
    source.mkdir(parents=True)
    for i in range(round(size / FRAME_BYTES)):
        np.savez(
            source / f"f{i:04d}.npz",
            cube=np.roll(frame + np.uint16(i), 7 * i, axis=0),
            mask=np.roll(mask, 7 * i, axis=0),
            wavelengths=np.linspace(700, 1700, channels),
        )
    hb.convert([source], store)
    for path in source.iterdir():
        path.unlink()
    return store


def trainrun(name: str, store: Path, folder: Path, batches: int | None) -> Path:
    """A shipped trainrun for an archive: one epoch of all frames but one, which is for val."""
    content = yaml.safe_load((shipped() / "trainruns" / f"{name}.yaml").read_text())
    last = len(hb.open_archive(store).catalog) - 1
    split = {"train": f"glob:f*,!f{last:04d}", "val": f"f{last:04d}"}
    content["data"]["params"] = {"archive": str(store), **split}
    content["training"] |= PATCHES
    content["training"]["trainer"] = {"max_epochs": 1, "limit_train_batches": batches}
    content["output_dir"] = str(folder / "outputs")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def measure(path: Path) -> dict[str, Any]:
    """Train in this process, and say what that took."""
    config, _ = read_trainrun(path)
    data = data_module(config.data)
    fitted = path.with_suffix(".fitted.yaml")

    def one() -> tuple[TrainResult, int]:
        trainer = gradient_trainer(config, Pipeline.from_yaml(fitted), data, path)
        reset_peak()
        return trainer.fit(), memory_peak()

    assert config.training is not None
    loop = config.training.trainer
    # The first one loads libraries and brings the allocator to size.
    loop.limit_train_batches, batches = 4, loop.limit_train_batches
    one()
    loop.limit_train_batches = batches
    result, peak = one()
    return {
        "steps": result.steps,
        "waited": result.waited,
        "peak": peak,
        "block": data.archive.session("f0000").geometry.block_bytes,
        "log": str(result).splitlines()[0],
    }


def apart(path: Path) -> dict[str, Any]:
    """Fit a trainrun here, and train it in a process of its own."""
    config, _ = read_trainrun(path)
    pipeline = build_pipeline(config, path)
    StatisticalTrainer(pipeline, data_module(config.data)).fit()
    pipeline.save(path.with_suffix(".fitted.yaml"))
    command = [sys.executable, __file__, "--one", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(
    gigabytes: Annotated[list[float] | None, typer.Option(help="Sizes; 0.5 and 2.")] = None,
    batches: Annotated[int | None, typer.Option(help="Batches, at most; all frames.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where archives are made.")] = None,
    one: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print a line of JSON for each archive and trainrun."""
    if one is not None:
        typer.echo(json.dumps(measure(one)))
        return
    with tempfile.TemporaryDirectory(dir=folder) as place, hb.connect():
        for size in gigabytes or [0.5, 2.0]:
            here = Path(place) / f"{size:g}"
            store = make_archive(here, size * 1e9)
            for name in METHODS:
                found = apart(trainrun(name, store, here, batches))
                load = os.getloadavg()[0]
                line = {"gigabytes": size, "trainrun": name, "load": round(load, 1), **found}
                typer.echo(json.dumps(line))


if __name__ == "__main__":
    typer.run(main)
