"""The statistical trainer: the fit it makes, and metrics of the pixels that count."""

import numpy as np
import pytest
import torch
from archive_helpers import make_archive
from graphs import chain
from recordings import scene, write_npz
from sklearn.metrics import average_precision_score

import hsi_batch as hb
from hsi_batch.archive.session import Session
from hsi_batch.data import ArchiveDataModule
from hsi_batch.errors import ConfigError, DataWarning, NotFittedError, PlanError
from hsi_batch.nodes import (
    AnomalyDataNode,
    AnomalyDetectionMetrics,
    BinaryDecider,
    MinMaxNormalizer,
    Node,
    PortSpec,
    RXGlobal,
    ScoreToLogit,
    Stage,
)
from hsi_batch.nodes.metrics import Metric
from hsi_batch.pipeline import Pipeline
from hsi_batch.training import StatisticalTrainer, evaluation


def judged():
    pipeline = Pipeline("judged")
    data, rx, head = AnomalyDataNode(name="data"), RXGlobal(eps=0.0, name="rx"), ScoreToLogit()
    decider = BinaryDecider(0.5, name="decider")
    metrics = AnomalyDetectionMetrics(name="m")
    pipeline.connect(
        (data.outputs.cube, rx.data),
        (rx.scores, head.scores),
        (head.logits, decider.logits),
        (decider.decisions, metrics.decisions),
        (head.logits, metrics.logits),
        (data.outputs.mask, metrics.targets),
    )
    return pipeline


@pytest.fixture(scope="module")
def archive(client, tmp_path_factory):
    """Four frames: of frame 2 only the upper half is labelled, frame 3 is not labelled at all."""
    here = tmp_path_factory.mktemp("statistical")
    cubes, masks = zip(*[scene(i) for i in range(4)], strict=True)
    cubes = np.stack(cubes).astype(np.float32)
    cubes[1, 5:8] = np.nan
    write_npz(here / "s.npz", cubes, mask=np.stack(masks))
    hb.convert(here / "s.npz", here / "a.zarr", client=client)
    labels = Session.open(here / "a.zarr", "s", "r+").group["label"]
    labels[2, 20:], labels[3] = -1, -1
    return hb.open_archive(here / "a.zarr")


def expected(archive, frames):
    """Metrics by scikit-learn and numpy, over valid labelled pixels."""
    session = archive["s"]
    cube = session.cube.values.reshape(4, -1, 8).astype(np.float64)
    labels = session.label.values.reshape(4, -1)
    train = cube[0]
    inverse = np.linalg.inv(np.cov(train.T))

    def score(pixels):
        away = pixels - train.mean(0)
        return np.einsum("ni,ij,nj->n", away, inverse, away)

    threshold = score(train).mean() + 2 * score(train).std(ddof=1)
    pixels, true = cube[frames].reshape(-1, 8), labels[frames].ravel()
    counted = (true >= 0) & np.isfinite(pixels).all(1)
    found, true = score(pixels[counted]), true[counted] > 0
    said = found >= threshold
    return (said & true).sum() / (said | true).sum(), average_precision_score(true, found)


def test_metrics_are_pooled_over_the_pixels_that_count(archive, client):
    module = ArchiveDataModule(archive, train="s[0]", val="s[1]", test=["s[1:4]"])
    trainer = StatisticalTrainer(judged(), module, client=client)
    assert trainer.fit().pixels == 1200
    for results, frames in ((trainer.validate(), [1]), (trainer.test(), [1, 2, 3])):
        iou, precision = expected(archive, frames)
        assert results["m/iou"] == pytest.approx(iou)
        assert results["m/average_precision"] == pytest.approx(precision, rel=1e-6)
        assert results.frames == len(frames)
        assert dict(results.metrics) == {m.name: m.value for m in results["metrics"]}
    assert results.stage is Stage.TEST
    # Called again, nothing is left of before.
    assert trainer.test() == results


def test_the_fit_is_that_of_the_stage(archive, client):
    module = ArchiveDataModule(archive, train=["s[0]", "s[2]"], val="s[1]")
    pipeline, other = judged(), judged()
    result = StatisticalTrainer(client=client, pixels="labelled-normal").fit(pipeline, module)
    hb.fit(other, archive, frames=["s[0]", "s[2]"], pixels="labelled-normal", client=client)
    assert result.passes == 1
    np.testing.assert_array_equal(pipeline.nodes["rx"].cov, other.nodes["rx"].cov)
    assert pipeline.provenance["selection"] == "s[0],s[2]"


def test_frames_without_labels_add_nothing(archive, client):
    trainer = StatisticalTrainer(
        judged(), ArchiveDataModule(archive, train="s[0]", val="s[3]"), client=client
    )
    trainer.fit()
    with pytest.warns(DataWarning, match="none of the 1 val frames is labelled"):
        results = trainer.validate()
    assert (results["metrics"], results.frames) == ([], 1)
    with pytest.raises(KeyError, match="no frame labels"):
        _ = results["m/iou"]
    undivided = StatisticalTrainer(trainer.pipeline, ArchiveDataModule(archive))
    with pytest.warns(DataWarning, match="metrics of the frames of the fit"):
        undivided.validate()


class MeanScore(Node):
    """A metric as plug-ins write them: values of the batch alone."""

    INPUT_SPECS = {"scores": PortSpec(torch.float32, (-1, -1, -1, 1))}
    OUTPUT_SPECS = {"metrics": PortSpec(list)}
    stages = frozenset({Stage.VAL, Stage.TEST})

    def forward(self, scores):
        return {"metrics": [Metric("mean", float(scores.mean()))]}


def test_other_metrics_get_valid_pixels_and_are_averaged(archive, client):
    pipeline = chain(RXGlobal(eps=0.0, name="rx"))
    own = MeanScore(name="own")
    pipeline.connect(pipeline.nodes["rx"].scores, own.scores)
    module = ArchiveDataModule(archive, train="s[0]", val=["s[1]", "s[3]"])
    trainer = StatisticalTrainer(pipeline, module, client=client)
    trainer.fit()
    alone = chain(RXGlobal(eps=0.0, name="rx"))
    hb.fit(alone, archive, frames="s[0]", client=client)
    cube = archive["s"].cube
    means = [float(np.nanmean(alone.apply(cube[i]).values)) for i in (1, 3)]
    assert trainer.validate()["own/mean"] == pytest.approx(np.mean(means), rel=1e-5)


def test_loose_nodes(archive, client):
    pipeline = judged()
    loose = pipeline.add_node(MinMaxNormalizer(name="loose"))
    trainer = StatisticalTrainer(pipeline, ArchiveDataModule(archive, train="s[0]"), client=client)
    with pytest.warns(UserWarning, match="loose is not connected yet"):
        trainer.fit()
    cube = archive["s"].cube[0].values
    assert float(loose.running_min) == cube.min()
    assert set(pipeline.precision) == {"rx"}
    assert pipeline.provenance["frames"] == 1
    assert pipeline.edges == judged().edges


def test_what_is_missing(archive, client, monkeypatch):
    with pytest.raises(ConfigError, match="the trainer has no pipeline"):
        StatisticalTrainer().fit()
    with pytest.raises(ConfigError, match="the trainer has no datamodule"):
        StatisticalTrainer(judged()).fit()
    module = ArchiveDataModule(archive, train="s[0]", val="s[1]")
    with pytest.raises(NotFittedError, match="is not fitted"):
        StatisticalTrainer(judged(), module).validate()
    trainer = StatisticalTrainer(judged(), module, client=client)
    trainer.fit()
    with pytest.raises(ConfigError, match="no frames for test"):
        trainer.test()
    monkeypatch.setattr(evaluation, "MAX_FRAME_BYTES", 1000)
    with pytest.raises(PlanError, match="at most 0 GiB are run whole"):
        trainer.validate()


def test_a_frame_that_cannot_be_read(tmp_path, client):
    cubes = np.stack([scene(i)[0] for i in range(3)])
    make_archive(tmp_path / "a.zarr", {"s": cubes}, lines=16)
    chunk = tmp_path / "a.zarr" / "s" / "cube" / "c.1.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    pipeline = chain(RXGlobal(name="rx"))
    trainer = StatisticalTrainer(
        pipeline,
        ArchiveDataModule(tmp_path / "a.zarr", train="s[0]", val=["s[1:3]"]),
        client=client,
    )
    trainer.fit()
    with pytest.warns(DataWarning, match="a frame was left out"):
        results = trainer.validate()
    assert (results.frames, len(results.failures), results["metrics"]) == (1, 1, [])
