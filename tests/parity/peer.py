"""The same graph here and there: built here, written in their dialect, loaded and fitted there."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from hsi_batch.nodes import AnomalyDataNode, Node, node_classes
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.catalogue import cuvis_classes
from hsi_batch.stages.fit import fit

CHANNELS = 12
NM = np.arange(CHANNELS) * 40 + 450
#: Values of arguments that must be given, or that make a case short.
ARGUMENTS = {
    **dict.fromkeys(("num_channels", "input_channels", "in_channels", "n_channels"), CHANNELS),
    "num_spectral_bands": CHANNELS,
    **dict.fromkeys(("n_components", "n_select", "k", "output_channels"), 3),
    "rep_dim": CHANNELS,
    "normal_class_ids": [0],
    "min_wavelength_nm": 500.0,
    "threshold": 0.5,
    "channel": 1,
}
#: Arguments of single classes.
OWN = {
    # By default it keeps state from frame to frame, which nothing here can share out.
    "PercentileNormalizer": {"norm_mode": "per_frame"},
    # The default has the sign that the name says; theirs is the other.
    "SelectorDiversityRegularizer": {"mode": "concentrate"},
    "FixedPCAProjection": {"projection_path": str(Path(tempfile.mkdtemp()) / "pca.npz")},
}
np.savez(
    OWN["FixedPCAProjection"]["projection_path"],
    mean=np.zeros(CHANNELS, np.float32),
    comps=np.eye(CHANNELS, dtype=np.float32)[:3],
    lo=np.zeros(3, np.float32),
    hi=np.ones(3, np.float32),
)
#: Ports that no output of the library feeds, or that want a list.
NO_SOURCE = ("spectral_signature", "references", "endmembers")


def scene(frames: int = 3, height: int = 24, width: int = 20, seed: int = 0):
    """Frames ``(B, y, x, C)`` float32 of four materials with noise well above any cut-off."""
    rng = np.random.default_rng(seed)
    spectra = rng.uniform(0.1, 0.9, (4, CHANNELS))
    shares = rng.dirichlet(np.ones(4), (frames, height, width))
    cube = shares @ spectra + 0.02 * rng.standard_normal((frames, height, width, CHANNELS))
    mask = np.zeros((frames, height, width), np.int32)
    mask[:, 5:8, 6:10] = 1
    cube[mask == 1] += rng.uniform(0.1, 0.4, CHANNELS)
    return (1000 * cube).astype(np.float32), mask


def batches(cube: np.ndarray, mask: np.ndarray) -> list[dict[str, Any]]:
    """One batch per frame, as their data modules give them."""
    return [
        {
            "cube": torch.from_numpy(cube[i : i + 1]),
            "mask": torch.from_numpy(mask[i : i + 1]),
            "wavelengths": torch.from_numpy(NM.astype(np.int32))[None],
        }
        for i in range(len(cube))
    ]


class Data:
    """What their statistical trainer asks of a data module."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self.found = found

    def setup(self, stage: str) -> None:
        """Nothing to do."""

    def train_dataloader(self) -> list[dict[str, Any]]:
        """The batches, in order."""
        return self.found


def fit_here(pipeline: Pipeline, cube: np.ndarray) -> Pipeline:
    """Fit ours to all pixels."""
    dims = ("frame", "y", "x", "channel")
    fit(pipeline, xr.DataArray(cube, dims=dims, coords={"wavelength": ("channel", NM * 1.0)}))
    return pipeline


def load_there(pipeline: Pipeline, folder: Path, *, weights: bool = True) -> Any:
    """Write ours in their dialect and load it with their loader, by default with its weights."""
    from cuvis_ai_core.pipeline.pipeline import CuvisPipeline

    path = pipeline.save(folder / "ours.yaml", dialect="cuvis-ai")
    stored = path.with_suffix(".pt") if weights else None
    return CuvisPipeline.load_pipeline(path, weights_path=stored)


def fit_there(theirs: Any, found: list[dict[str, Any]]) -> Any:
    """Fit theirs with their trainer."""
    from cuvis_ai_core.training import StatisticalTrainer

    with torch.no_grad():
        StatisticalTrainer(theirs, Data(found)).fit()
    return theirs


def alike(pipeline: Pipeline, theirs: Any) -> None:
    """Start parameters that no fit sets from the same values."""
    there = nodes_there(theirs)
    for name, node in pipeline.nodes.items():
        own, other = node.state_dict(), there[name].state_dict()
        if own and all(own[key].shape == other[key].shape for key in other):
            there[name].load_state_dict(own)


def load_here(theirs: Any, folder: Path) -> Pipeline:
    """Write theirs with their writer and load it here."""
    theirs.save_to_file(str(folder / "theirs.yaml"))
    return Pipeline.from_yaml(folder / "theirs.yaml")


def nodes_there(theirs: Any) -> dict[str, Any]:
    """Their nodes by name."""
    return {node.name: node for node in theirs.nodes()}


def forget(node: Any) -> None:
    """Begin the pooled values of a metric anew."""
    if "metrics" in node.OUTPUT_SPECS and "Metric" in type(node).__name__:
        getattr(node, "reset", lambda: None)()


def run_there(
    theirs: Any, batch: dict[str, Any], stage: str = "inference"
) -> dict[tuple[str, str], Any]:
    """All outputs of a stage."""
    from cuvis_ai_schemas.enums import ExecutionStage

    for node in theirs.nodes():
        node.eval()
        forget(node)
    with torch.no_grad():
        return dict(theirs.forward(dict(batch), stage=ExecutionStage(stage)))


def run_here(
    pipeline: Pipeline, batch: dict[str, Any], stage: str = "inference"
) -> dict[tuple[str, str], Any]:
    """All outputs of a stage."""
    for node in pipeline.nodes.values():
        forget(node)
    with torch.no_grad():
        found = pipeline.forward(dict(batch), stage)
    return {tuple(ref): value for ref, value in found.items()}


def case(name: str) -> Pipeline | None:
    """A graph around one class, whose inputs come from fitted nodes; None if one has no source."""
    cls = node_classes()[name]
    node = make(cls)
    pipeline = Pipeline(name)
    data = AnomalyDataNode((0,), name="data")
    pipeline.add_node(data)
    for port, spec in cls.INPUT_SPECS.items():
        if port not in cuvis_classes()[name].inputs:
            continue
        source = source_of(pipeline, port, spec)
        known = cuvis_classes()[name]
        if source is not None and len(spec.shape) == known.axes[port]:
            pipeline.connect((source, node.inputs[port]))
        elif not known.inputs[port]:
            return None
    return pipeline


def make(cls: type[Node], **more: Any) -> Node:
    """A node with arguments that both sides take."""
    known = cuvis_classes()[cls.__name__].arguments
    own = inspect.signature(cls.__init__).parameters
    given = {
        k: v
        for k, v in ARGUMENTS.items()
        if k in own and (own[k].default is inspect.Parameter.empty or known.get(k))
    }
    if "inverse" in own:
        given["inverse"] = "pinv32"
    return cls(**{**given, **OWN.get(cls.__name__, {}), **more}, name="node")


def source_of(pipeline: Pipeline, port: str, spec: Any) -> Any:
    """An output of the pipeline that fits a port, made where there is none."""
    data = pipeline.nodes["data"]
    if port in NO_SOURCE or (spec.optional and len(spec.shape) == 1 and port != "wavelengths"):
        return None
    last = spec.shape[-1] if spec.shape else None
    if spec.dtype is np.int32 and port == "wavelengths":
        return data.outputs["wavelengths"]
    if spec.dtype is torch.bool and len(spec.shape) == 4:
        if port != "decisions":
            return data.outputs["mask"]
        return helper(
            pipeline, "QuantileBinaryDecider", scores(pipeline), "decisions", quantile=0.9
        )
    if spec.dtype is torch.float32 and len(spec.shape) == 4:
        if last == 3:
            cube = data.outputs["cube"]
            return helper(pipeline, "TrainablePCA", cube, "projected", n_components=3)
        return scores(pipeline) if last == 1 or port == "logits" else data.outputs["cube"]
    if spec.dtype is torch.float32 and len(spec.shape) == 1:
        cube = data.outputs["cube"]
        by = {"n_select": 3, "init_method": "variance"}
        return helper(pipeline, "SoftChannelSelector", cube, "weights", **by)
    if spec.dtype is torch.float32 and len(spec.shape) == 2:
        return helper(pipeline, "TrainablePCA", data.outputs["cube"], "components", n_components=3)
    return None


def scores(pipeline: Pipeline) -> Any:
    """Scores of each frame against itself."""
    return helper(pipeline, "RXPerBatch", pipeline.nodes["data"].outputs["cube"], "scores")


def helper(pipeline: Pipeline, name: str, source: Any, port: str, **arguments: Any) -> Any:
    """The output of a node that stands in the pipeline once."""
    if name not in pipeline.nodes:
        cls = node_classes()[name]
        node = cls(**arguments, name=name)
        pipeline.connect((source, node.inputs[next(iter(cls.INPUT_SPECS))]))
    return pipeline.nodes[name].outputs[port]


def aligned(name: str, found: Any, expected: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays in float64; components, and projections on them, with one sign each."""
    got, want = (np.asarray(torch.as_tensor(v).detach().double()) for v in (found, expected))
    axes = {"_components": (1,), "components": (1,), "projected": (0, 1, 2)}.get(name)
    if axes is not None:
        got = got * np.sign((got * want).sum(axis=axes, keepdims=True))
    return got, want


def shared() -> list[str]:
    """Classes that both have, without those that bring in data."""
    both = set(node_classes()) & set(cuvis_classes())
    return sorted(name for name in both if not node_classes()[name].is_source)
