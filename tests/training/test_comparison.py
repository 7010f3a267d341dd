"""A trained pipeline keeps what it was worth before and after, and scores by one folded map."""

import json

import numpy as np
import pytest
import torch
import yaml
import zarr
from browser import visit
from gradient_helpers import selection_pipeline
from PIL import Image

import hsi_batch as hb
from hsi_batch.errors import DataWarning
from hsi_batch.nodes import PortRef
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fold import CUBE
from hsi_batch.pipeline.program import QuadraticStep, compile_program
from hsi_batch.stages.report import report
from hsi_batch.stages.training_report import training_section
from hsi_batch.training.trained_run import train

SPLIT = {"train": ["s0", "s1"], "val": "s2", "test": "s3"}


def run(archive, folder, client, split):
    selection_pipeline().save(folder / "pipeline.yaml")
    content = {
        "name": "selection",
        "pipeline": "pipeline",
        "data": {"data_module": "archive", "params": {"archive": str(archive), **split}},
        "training": {"optimizer": {"lr": 0.05}, "trainer": {"max_epochs": 4}},
        "loss_nodes": ["bce", "entropy"],
        "metric_nodes": ["metrics_anomaly"],
        "unfreeze_nodes": ["selector", "rx", "logit"],
        "output_dir": str(folder / "outputs"),
    }
    (folder / "trainrun.yaml").write_text(yaml.safe_dump(content))
    result = train(folder / "trainrun.yaml", out=folder / "trained.yaml", client=client)
    return result, Pipeline.from_yaml(folder / "trained.yaml")


@pytest.fixture(scope="module")
def trained(archive, client, tmp_path_factory):
    return run(archive, tmp_path_factory.mktemp("trained"), client, SPLIT)


def area(logits, targets):
    """Area under the ROC by ranks (Mann and Whitney), ties counted half."""
    high, low = logits[targets], logits[~targets]
    wins = (high[:, None] > low).sum() + 0.5 * (high[:, None] == low).sum()
    return wins / (high.size * low.size)


def test_scores_are_those_of_the_training_by_one_folded_step(trained, archive, client, tmp_path):
    _, pipeline = trained
    hb.score(pipeline, archive, tmp_path / "s.zarr", outputs=["scores"], client=client)
    stored = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert not np.array_equal(pipeline.nodes["rx"].cov_inv, torch.eye(6))
    program = compile_program(pipeline, (PortRef("rx", "scores"),))
    (step,) = program.steps
    assert isinstance(step, QuadraticStep)
    assert step.inputs == (CUBE,)
    # As the losses saw them: through the parameters, with gradients.
    pipeline.unfreeze_nodes_by_name(["selector", "rx", "logit"])
    for node in pipeline.nodes.values():
        node.train()
    for name in ("s0", "s3"):
        session = hb.open_archive(archive).session(name)
        labels = torch.from_numpy(session.labels(0, 0, 14).astype("i4"))[None]
        cube = torch.from_numpy(session.read(0, 0, 14))[None]
        found = pipeline.forward({"cube": cube, "mask": labels}, stage="train")
        scores = found["rx", "scores"]
        assert scores.requires_grad
        np.testing.assert_allclose(
            stored[name]["scores"][0], scores.detach()[0, ..., 0], rtol=1e-5, atol=1e-5
        )


def test_before_and_after_are_kept(trained, archive):
    result, pipeline = trained
    kept = pipeline.provenance["training"]["compared"]
    assert set(kept["splits"]) == {"val", "test"}
    for split, found in kept["splits"].items():
        for name, (was, now) in found["metrics"].items():
            assert was == result.before[split].metrics[name]
            assert now == result.after[split].metrics[name]
        before, after = found["roc"]
        assert before["auc"] != after["auc"]
        for curve in (before, after):
            for key in ("false_positive_rate", "true_positive_rate"):
                assert curve[key][0] == 0.0
                assert curve[key][-1] == 1.0
                assert (np.diff(curve[key]) >= 0).all()
    session = hb.open_archive(archive).session("s3")
    cube, labels = session.read(0, 0, 14), session.labels(0, 0, 14)
    logits = pipeline.forward({"cube": torch.from_numpy(cube)[None]})["logit", "logits"]
    expected = area(logits.detach().numpy().ravel(), labels.ravel() == 1)
    assert kept["splits"]["test"]["roc"][1]["auc"] == pytest.approx(expected, abs=1e-6)
    weights = kept["weights"]["selector"]
    now = pipeline.nodes["selector"].get_selection_weights().detach()
    np.testing.assert_allclose(weights["values"][1], now, rtol=1e-5)
    assert weights["values"][0] != weights["values"][1]
    assert weights["wavelength"] == list(range(400, 460, 10))
    cubes = [hb.open_archive(archive).session(name).read(0, 0, 14) for name in ("s0", "s1")]
    np.testing.assert_allclose(weights["mean"], np.mean(cubes, axis=(0, 1, 2)), rtol=1e-6)


def test_the_report_says_it(trained):
    result, pipeline = trained
    section = training_section(pipeline.provenance)
    assert "selector, rx, logit in 4 epochs" in section["words"]
    assert [split["title"] for split in section["splits"]] == ["val (1 frame)", "test (1 frame)"]
    rows = {name: values for name, *values in section["splits"][1]["rows"]}
    wanted = "metrics_anomaly/average_precision"
    pair = result.before["test"].metrics[wanted], result.after["test"].metrics[wanted]
    assert rows[wanted] == [f"{value:.4f}" for value in pair]
    (selector,) = section["selectors"]
    largest = np.argsort(-pipeline.nodes["selector"].get_selection_weights().detach().numpy())[:3]
    assert selector["chosen"][1] == ", ".join(f"{400 + 10 * c}" for c in sorted(largest)) + " nm"
    assert training_section({}) is None


LOOK = """
JSON.stringify([...document.querySelectorAll('.card.training')].map(card => ({
  title: card.querySelector('h3').innerText,
  rows: [...card.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.innerText)),
  text: card.innerText,
  plots: [...card.querySelectorAll('svg')].map(svg => {
    const frame = svg.getBoundingClientRect();
    const drawn = {};
    for (const path of svg.querySelectorAll('path')) {
      const box = path.getBoundingClientRect();
      const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1
        && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
      const colour = getComputedStyle(path).stroke;
      (drawn[colour] ??= []).push([box.width / frame.width, box.height / frame.height, inside]);
    }
    return {width: frame.width, height: frame.height, drawn};
  }),
})))
"""
FITTED, TRAINED, SPECTRUM = "rgb(138, 148, 160)", "rgb(76, 120, 168)", "rgb(224, 138, 46)"


def test_before_and_after_in_a_browser(trained, archive, client, tmp_path):
    result, pipeline = trained
    hb.score(pipeline, archive, tmp_path / "s.zarr", outputs=["logits", "decisions"], client=client)
    page = tmp_path / "report.html"
    report(tmp_path / "s.zarr", page, archive=archive)
    seen = visit(page, LOOK, tmp_path / "profile")
    assert seen.complaints == []
    assert [r for r in seen.requests if not r.startswith("data:")] == [page.as_uri()]
    Image.fromarray(seen.picture).save(tmp_path / "report.png")
    val, test, channels = json.loads(seen.value)
    assert [val["title"], test["title"]] == ["val (1 frame)", "test (1 frame)"]
    for card, split in ((val, "val"), (test, "test")):
        head, *rows = card["rows"]
        assert head[1:] == ["fitted", "trained"]
        shown = {name: values for name, *values in rows}
        before, after = result.before[split].metrics, result.after[split].metrics
        for name, value in after.items():
            assert shown[name] == [f"{before[name]:.4f}", f"{value:.4f}"]
        (plot,) = card["plots"]
        assert plot["width"] > 200
        # Two curves, across the plot; the axis is logarithmic, and cuts them where the rate is 0.
        for colour in (FITTED, TRAINED):
            assert max(width for width, *_ in plot["drawn"][colour]) > 0.3
    assert channels["title"] == "Channels of selector"
    (plot,) = channels["plots"]
    for colour in (FITTED, TRAINED, SPECTRUM):
        assert max(width for width, *_ in plot["drawn"][colour]) > 0.5
        assert all(inside for *_, inside in plot["drawn"][colour])
    largest = np.argsort(-pipeline.nodes["selector"].get_selection_weights().detach().numpy())[:3]
    assert ", ".join(f"{400 + 10 * c}" for c in sorted(largest)) + " nm" in channels["text"]
    # What the curves are drawn in is on the picture, and neither lies upon the other.
    colours = seen.picture.reshape(-1, 3)
    for colour in ((138, 148, 160), (76, 120, 168)):
        assert (np.abs(colours.astype(int) - colour).max(axis=1) < 8).sum() > 100


def test_without_frames_for_val_and_test_it_is_said_of_train(archive, client, tmp_path):
    with pytest.warns(DataWarning, match="no frames were named"):
        result, pipeline = run(archive, tmp_path, client, {})
    assert set(result.before) == set(result.after) == {"train"}
    assert "train, 4 frames, fitted -> trained:" in str(result)
    (split,) = training_section(pipeline.provenance)["splits"]
    assert split["title"] == "train: no frames were named for val and test (4 frames)"
