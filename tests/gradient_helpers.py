"""A fitted channel selection, small enough to train in a second."""

from __future__ import annotations

import numpy as np
import torch
from recordings import write_npz

from hsi_batch.data import ArchiveDataModule
from hsi_batch.nodes import (
    AnomalyBCEWithLogits,
    AnomalyDataNode,
    AnomalyDetectionMetrics,
    BinaryDecider,
    MinMaxNormalizer,
    RXGlobal,
    ScoreToLogit,
    SelectorEntropyRegularizer,
    SoftChannelSelector,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import GradientTrainer, OptimizerConfig, TrainerConfig

NM = np.arange(400, 460, 10)


def marked_scene(seed, lines=14, samples=12):
    """Six channels of one material; odd pixels differ in the last one only."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(100, 3, (lines, samples, 6)) + rng.normal(0, 9, (lines, samples, 1))
    mask = np.zeros((lines, samples), np.uint8)
    mask[2:5, 3:6] = 1
    cube[mask > 0, 5] += 12
    return cube.round().astype("uint16"), mask


def write_scenes(folder, count=4):
    for i in range(count):
        cube, mask = marked_scene(i)
        write_npz(folder / f"s{i}.npz", cube, wavelength=NM, mask=mask)
    return folder


def scenes(archive, **options):
    """Frames of an archive of four such scenes, for train, val and test."""
    return ArchiveDataModule(
        archive, **{"train": ["s0", "s1"], "val": "s2", "test": "s3"} | options
    )


def selection_pipeline(**selector):
    pipeline = Pipeline("selection")
    data, norm = AnomalyDataNode(), MinMaxNormalizer(name="norm")
    chosen = SoftChannelSelector(
        3, init_method="variance", name="selector", **{"temperature_decay": 0.5, **selector}
    )
    rx, logit = RXGlobal(eps=0.0, name="rx"), ScoreToLogit(name="logit")
    decider = BinaryDecider(name="decider")
    bce = AnomalyBCEWithLogits(weight=10.0, name="bce")
    entropy = SelectorEntropyRegularizer(weight=0.1, name="entropy")
    metrics = AnomalyDetectionMetrics(name="metrics_anomaly")
    pipeline.connect(
        (data.cube, norm.data),
        (norm.normalized, chosen.data),
        (chosen.selected, rx.data),
        (rx.scores, logit.scores),
        (logit.logits, decider.logits),
        (logit.logits, bce.predictions),
        (data.outputs.mask, bce.targets),
        (chosen.weights, entropy.weights),
        (decider.decisions, metrics.decisions),
        (logit.logits, metrics.logits),
        (data.outputs.mask, metrics.targets),
    )
    return pipeline


def loaded(fitted, *names):
    pipeline = Pipeline.from_yaml(fitted)
    pipeline.unfreeze_nodes_by_name(names or ["selector", "rx", "logit"])
    return pipeline


def trainer(pipeline, archive, epochs=3, losses=("bce",), **options):
    settings = TrainerConfig(max_epochs=epochs, **options.pop("config", {}))
    options = {"optimizer_config": OptimizerConfig(lr=0.01), **options}
    module = options.pop("datamodule", None) or scenes(archive)
    return GradientTrainer(pipeline, module, losses, None, settings, **options)


def weights(pipeline):
    return {
        f"{name}.{key}": value.clone()
        for name, node in pipeline.nodes.items()
        for key, value in node.state_dict().items()
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
