"""The same graph here and there: built here, written in their dialect, loaded and fitted there."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml
from cases import CHANNELS, NM, SOURCES, Case

from hsi_batch.nodes import ChannelAxis
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fitting import Fitting, plan_fit
from hsi_batch.pipeline.forward import resolve_batch
from hsi_batch.pipeline.frames import FrameSource
from hsi_batch.pipeline.gather import finished
from hsi_batch.pipeline.passes import gather_frame
from hsi_batch.stages.fit import fit
from hsi_batch.statistics import Bundle


def scene(frames: int = 3, height: int = 24, width: int = 20, seed: int = 0, unit: float = 1000.0):
    """Frames ``(B, y, x, C)`` float32 of four materials with noise well above any cut-off, and
    class numbers: 1 for a target, 2 for normal pixels of another kind.
    """
    rng = np.random.default_rng(seed)
    # Brighter with the wavelength, so that no index divides by almost nothing.
    spectra = rng.uniform(0.1, 0.9, (4, CHANNELS)) * np.linspace(0.3, 1.0, CHANNELS)
    shares = rng.dirichlet(np.ones(4), (frames, height, width))
    cube = shares @ spectra + 0.02 * rng.standard_normal((frames, height, width, CHANNELS))
    mask = np.zeros((frames, height, width), np.int32)
    mask[:, 5:8, 6:10] = 1
    mask[:, 12:15, 2:6] = 2
    cube[mask == 1] += rng.uniform(0.1, 0.4, CHANNELS)
    return (unit * cube).astype(np.float32), mask


def materials(frames: int = 3, height: int = 24, width: int = 20, seed: int = 1):
    """Frames of four materials that do not mix, so that clusters are not a matter of chance."""
    rng = np.random.default_rng(seed)
    spectra = rng.uniform(0.0, 2.0, (4, CHANNELS))
    kind = rng.integers(0, 4, (frames, height, width))
    cube = spectra[kind] + 0.1 * rng.standard_normal((frames, height, width, CHANNELS))
    return cube.astype(np.float32), np.zeros((frames, height, width), np.int32)


def batches(cube: np.ndarray, mask: np.ndarray | None, size: int = 1) -> list[dict[str, Any]]:
    """Batches of frames, as their data modules give them.

    A port that nothing feeds takes what the batch has of that name there, so the clusterers are
    given no mask.
    """
    found = []
    for start in range(0, len(cube), size):
        part = slice(start, start + size)
        batch = {
            "cube": torch.from_numpy(cube[part]),
            "wavelengths": torch.from_numpy(NM.astype(np.int32)).expand(len(cube[part]), -1),
        }
        if mask is not None:
            batch["mask"] = torch.from_numpy(mask[part])
            batch["class_mask"] = torch.from_numpy(mask[part])
        found.append(batch)
    return found


class Data:
    """What their statistical trainer asks of a data module."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self.found = found

    def setup(self, stage: str) -> None:
        """Nothing to do."""

    def train_dataloader(self) -> list[dict[str, Any]]:
        """The batches, in order."""
        return self.found


def fit_here(pipeline: Pipeline, cube: np.ndarray, mask: np.ndarray | None = None) -> Pipeline:
    """Fit ours to all pixels, and the labels if there are any."""
    if mask is None:
        dims = ("frame", "y", "x", "channel")
        fit(pipeline, xr.DataArray(cube, dims=dims, coords={"wavelength": ("channel", NM * 1.0)}))
        return pipeline
    pipeline.resolve(ChannelAxis.of(NM * 1.0))
    fitting = Fitting(pipeline, plan_fit(pipeline))
    while needs := fitting.needs():
        bundle = Bundle()
        for index, (frame, labels) in enumerate(zip(cube, mask.astype(np.int16), strict=True)):
            source = FrameSource(
                lines=lambda a, b, frame=frame: frame[a:b],
                valid=lambda _a, _b: None,
                labels=lambda a, b, labels=labels: labels[a:b],
                shape=frame.shape,
                dtype=frame.dtype,
                blocks=((0, len(frame)),),
            )
            place = ((index, len(cube)),)
            part = gather_frame(pack(pipeline), needs, source, source.blocks, place)
            bundle = bundle.merge(part)
        fitting.supply({need: finished(bundle)[str(need)] for need in needs})
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
            fitted = there[name]._statistically_initialized
            there[name].load_state_dict(own)
            there[name]._statistically_initialized = fitted


def load_here(theirs: Any, folder: Path) -> Pipeline:
    """Write theirs with their writer and load it here."""
    path = folder / "theirs.yaml"
    theirs.save_to_file(str(path))
    if any(type(node).__module__ == SOURCES for node in theirs.nodes()):
        # Their graph does not keep what its file said of plugins.
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**content, "plugins": [SOURCES]}, sort_keys=False))
    return Pipeline.from_yaml(path)


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


@dataclass
class Both:
    """A graph around one class, fitted here and there on the same frames."""

    case: Case
    ours: Pipeline
    theirs: Any
    found: list[dict[str, Any]]
    folder: Path
    #: Their number of each cluster of ours.
    order: list[int] = field(default_factory=list)


def both(case: Case, pipeline: Pipeline, folder: Path) -> Both:
    """Fit a graph here and there."""
    clusters = case.name in ("KMeansClusterer", "GaussianMixtureClusterer")
    if clusters:
        cube, mask = materials()
    else:
        cube, mask = scene(unit=1.0 if case.reflectance else 1000.0)
    labels = None if clusters else mask
    found = batches(cube, labels)
    resolve_batch(pipeline, found[0])
    theirs = load_there(pipeline, folder, weights=False)
    alike(pipeline, theirs)
    supervised = case.name.startswith("Supervised")
    if case.together and supervised:
        # Their bounds are those of single frames here.
        cube, mask = cube[:1], mask[:1]
        labels = mask
    fit_there(theirs, batches(cube, labels, len(cube)) if case.together else found)
    fit_here(pipeline, cube, mask if supervised else None)
    made = Both(case, pipeline, theirs, found, folder)
    if clusters:
        buffer = "centroids" if case.name.startswith("KMeans") else "means"
        made.order = matched(
            *(getattr(n, buffer) for n in (pipeline.nodes["node"], nodes_there(theirs)["node"]))
        )
    return made


def matched(ours: torch.Tensor, theirs: torch.Tensor) -> list[int]:
    """The order of their centres in which they are nearest to ours."""
    apart = torch.cdist(ours.double(), theirs.double())
    orders = permutations(range(len(ours)))
    return list(min(orders, key=lambda o: sum(float(apart[i, k]) for i, k in enumerate(o))))


def same_vectors(ours: Any, theirs: Any) -> list[int]:
    """Their number of each support vector of ours, where there are any."""
    if not hasattr(ours, "support_vectors"):
        return []
    apart = torch.cdist(ours.support_vectors.double(), theirs.support_vectors.double())
    return [int(i) for i in apart.argmin(dim=1)]


def aligned(name: str, found: Any, expected: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays in float64; components, and projections on them, with one sign each."""
    got, want = (np.asarray(torch.as_tensor(v).detach().double()) for v in (found, expected))
    axes = {"_components": (1,), "components": (1,), "projected": (0, 1, 2)}.get(name)
    if axes is not None and got.shape == want.shape:
        got = got * np.sign((got * want).sum(axis=axes, keepdims=True))
    return got, want
