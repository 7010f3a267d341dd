"""What chaos runs work on: tiny recordings, a graph of two passes, a short training."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import yaml
import zarr
from gradient_helpers import NM, marked_scene, selection_pipeline
from recordings import scene, write_envi, write_npz

from hsi_batch.pipeline import Pipeline

STAGES = ("convert", "fit", "train", "score")
#: One pass for the normalizer and RX, one for the spread of the scores.
GRAPH = """
nodes:
  data: CU3SDataNode
  unit: PerPixelUnitNorm
  z: ZScoreNormalizerGlobal
  rx: {class_name: RXGlobal, hparams: {eps: 0.0}}
  logit: ScoreToLogit
connections:
- [data.cube, unit.data]
- [unit.normalized, z.data]
- [z.normalized, rx.data]
- [rx.scores, logit.scores]
"""
#: Attributes that tell when and where, not what, and the checksums of these.
_VOLATILE = ("scored", "environment", "archive", "pipeline_provenance", "seal")


def write_sources(folder):
    """Three cubes of six blocks, whose statistics stand by themselves; three of small frames."""
    for i in range(3):
        cube = scene(i, lines=96, samples=40, bands=6)[0]
        write_envi(folder / "in" / f"e{i}.hdr", cube, wavelength=NM)
    for i in range(3):
        scenes = [marked_scene(10 * i + k) for k in range(3)]
        cube, mask = (np.stack([one[part] for one in scenes]) for part in (0, 1))
        write_npz(folder / "in" / f"n{i}.npz", cube, wavelength=NM, mask=mask)
    (folder / "graph.yaml").write_text(GRAPH)
    selection_pipeline().save(folder / "selection.yaml")
    content = {
        "name": "chaos",
        "pipeline": str(folder / "selection.yaml"),
        "data": {
            "data_module": "archive",
            "params": {"archive": "a.zarr", "train": ["n0", "n1"], "val": "n2"},
        },
        "training": {
            "seed": 5,
            "patch": [8, 8],
            "patches_per_frame": 1,
            "balance": 0.5,
            "optimizer": {"name": "adamw", "lr": 0.02},
            "trainer": {
                "max_epochs": 4,
                "deterministic": True,
                "callbacks": {
                    "checkpoint": {"monitor": "val_loss", "save_top_k": 1, "save_last": True}
                },
            },
        },
        "loss_nodes": ["bce", "entropy"],
        "unfreeze_nodes": ["selector", "rx", "logit"],
        "output_dir": "outputs",
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(content))
    return folder


def command(stage, sources):
    """Arguments of ``hsi-batch`` for a stage, in the folder of a run."""
    return {
        "convert": ["convert", sources / "in", "--archive", "a.zarr", "--block-lines", "16"],
        "fit": ["fit", sources / "graph.yaml", "--archive", "a.zarr", "--out", "f.yaml"],
        "train": ["train", sources / "train.yaml", "--out", "t.yaml"],
        "score": ["score", "f.yaml", "--archive", "a.zarr", "--out", "s.zarr"],
    }[stage]


def results(folder, stage):
    """Everything that a stage leaves, comparable: values, attributes, statistics, weights."""
    match stage:
        case "convert":
            return store_content(folder / "a.zarr", folder)
        case "score":
            return store_content(folder / "s.zarr", folder)
        case "fit":
            return pipeline_content(folder / "f.yaml")
    return pipeline_content(folder / "t.yaml")


def store_content(path, folder):
    """Values and attributes of all arrays and groups, opened by plain Zarr."""
    root = zarr.open_group(path, mode="r")
    found = {"": _attributes(root, folder)}
    for name, group in root.groups():
        found[name] = _attributes(group, folder)
        for key, array in group.arrays():
            found[f"{name}/{key}"] = (array.dtype.str, array.shape, array[:].tobytes())
            found[f"{name}/{key}:attributes"] = _attributes(array, folder)
    found |= {f"summary {p.name}": p.name for p in Path(f"{path}.hsi-batch").glob("*")}
    return found


def _attributes(node, folder):
    kept = {k: v for k, v in node.attrs.items() if k not in _VOLATILE}
    if "digest" in kept and "session_digest" in kept:
        # Names the weights, which hold when they were fitted.
        del kept["digest"]
    text = json.dumps(kept, sort_keys=True, default=str)
    return text.replace(str(folder), "")


def pipeline_content(path):
    """Graph, weights and exact states of a fitted pipeline."""
    pipeline = Pipeline.from_yaml(path)
    found = {"graph": json.dumps(pipeline.serialize()["connections"], default=str)}
    for name, node in pipeline.nodes.items():
        for key, value in node.state_dict().items():
            found[f"{name}.{key}"] = value.numpy().tobytes()
        for key, value in node.state.items():
            found[f"{name}:{key}"] = np.asarray(value).tobytes()
    return found


def left_over(folder):
    """Temporary files, locks and run state that no finished run leaves."""
    unwanted = []
    for path in folder.rglob("*"):
        name = path.name
        hidden = name.startswith(".")
        if hidden or name.endswith((".partial", ".tmp")) or name in ("lock.json", "status.json"):
            unwanted.append(path)
        elif path.parent.name in ("convert", "score", "fit", "train") and path.is_dir():
            # A numbered folder of records, or what a fit kept.
            unwanted.append(path)
        elif path.parent.suffix == ".hsi-batch" and name in ("partials", "fit", "train"):
            unwanted += [p for p in path.rglob("*") if p.is_file()]
    return sorted({os.path.relpath(path, folder) for path in unwanted})
