"""``nodes`` and ``graph``: the library and graphs, in words, as JSON and as pictures."""

from __future__ import annotations

import inspect
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from hsi_batch.nodes import node_classes
from hsi_batch.workflow import shipped

PIPELINES = sorted((shipped() / "pipelines").glob("*.yaml"))


def test_all_classes_are_listed_with_what_they_do(hsi):
    listed = hsi("nodes").out
    for name in node_classes():
        assert re.search(rf"^ +{name} +\S", listed, re.MULTILINE), name
    found = {entry["name"]: entry for entry in hsi("nodes", "--json").json["nodes"]}
    assert set(found) == set(node_classes())
    for name, entry in found.items():
        assert entry["summary"], name
        assert entry["scope"], name
        assert not re.search(r"``|:\w+:`", entry["summary"]), name
    assert found["MinMaxNormalizer"]["scope"] == ["pixel", "frame"]
    assert found["RXGlobal"]["fitted_from"] == ["moments of data"]
    assert found["QuantileBinaryDecider"]["scope"] == ["frame"]
    assert found["AnomalyDetectionMetrics"]["stages"] == ["val", "test"]


@pytest.mark.parametrize("name", sorted(node_classes()))
def test_every_class_has_a_page_with_all_its_parameters(hsi, name):
    entry = hsi("nodes", name, "--json").json
    cls = node_classes()[name]
    arguments = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "name")]
    assert [p["name"] for p in entry["parameters"]] == arguments
    for parameter in entry["parameters"]:
        assert parameter["description"], (name, parameter["name"])
        assert parameter["type"], (name, parameter["name"])
    assert [p["name"] for p in entry["inputs"]] == list(cls.INPUT_SPECS)
    assert [p["name"] for p in entry["outputs"]] == list(cls.OUTPUT_SPECS)
    page = hsi("nodes", name).out
    assert page.startswith(name)
    for word in (*arguments, *cls.INPUT_SPECS, *cls.OUTPUT_SPECS):
        assert re.search(rf"^{re.escape(word)} ", page, re.MULTILINE), word


def test_a_page_has_defaults_shapes_and_the_formula(hsi):
    page = hsi("nodes", "RXGlobal").out
    assert "eps = 1e-06  (float)" in page
    assert "data  float32 (batch, y, x, num_channels)" in page
    assert "(x - mu)^T (S + r I)^-1 (x - mu)" in page
    assert "folds: yes, it is quadratic" in page
    # By the names of cuvis-ai, too; a wrong name is told the nearest.
    path = "cuvis_ai.node.anomaly.rx_detector.RXGlobal"
    assert hsi("nodes", path).out == page
    wrong = hsi("nodes", "RXGlobl")
    assert (wrong.code, wrong.out) == (2, "")
    assert "Did you mean 'RXGlobal'?" in wrong.err


def test_a_word_lists_the_classes_that_have_it(hsi):
    names = [entry["name"] for entry in hsi("nodes", "rx", "--json").json["nodes"]]
    assert names == ["LocalRX", "RXGlobal", "RXPerBatch", "RobustRX"]
    listed = hsi("nodes", "laplacian").out
    assert "LADGlobal" in listed
    assert "RXGlobal" not in listed
    # A class is shown whatever the case of its letters.
    assert hsi("nodes", "rxglobal").out == hsi("nodes", "RXGlobal").out
    nothing = hsi("nodes", "qqqqqq")
    assert (nothing.code, nothing.out) == (2, "")
    assert "hsi-batch nodes lists all of them." in nothing.err


def test_tables_of_docstrings_are_aligned(hsi):
    page = hsi("nodes", "CFARThreshold").out
    assert "\nempirical     the smallest score" in page
    assert "\nf             the same for a covariance" in page
    assert "\n=====" not in page.partition("\n\n")[2]


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_every_shipped_graph_is_drawn_and_told(hsi, path, tmp_path):
    found = hsi("graph", path, "--json").json
    boxes = {box["name"]: box for box in found["boxes"]}
    tree = hsi("graph", path).out
    picture = tmp_path / "g.svg"
    assert str(picture) in hsi("graph", path, "--out", picture).out
    words = [element.text for element in ET.parse(picture).iter() if element.text]
    for name, box in boxes.items():
        assert name in words
        assert box["cls"] in words
        assert f"{name} {box['cls']} ({', '.join(box['facts'])})" in tree
    for line in found["lines"]:
        (source, output), (target, name) = line["source"], line["target"]
        assert f"{name} <- {source}.{output}: {line['dtype']} {line['shape']}" in tree
        assert line["shape"] in words
        assert boxes[source]["layer"] < boxes[target]["layer"]
    # The same graph is the same file.
    again = tmp_path / "again.svg"
    hsi("graph", path, "--out", again)
    assert again.read_bytes() == picture.read_bytes()


def test_a_fitted_graph_shows_its_channels(hsi, made):
    found = hsi("graph", made.fitted, "--json").json
    boxes = {box["name"]: box for box in found["boxes"]}
    assert "fitted from moments" in boxes["rx"]["facts"]
    shapes = {tuple(line["source"]): line["shape"] for line in found["lines"]}
    assert shapes["normalizer", "normalized"] == "(batch, y, x, 8)"
    assert shapes["rx", "scores"] == "(batch, y, x, 1)"


def test_what_is_wrong_with_a_graph_is_said(hsi, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("nodes:\n  data: CU3SDataNod\n")
    done = hsi("graph", bad, "--out", tmp_path / "g.svg")
    assert (done.code, done.out) == (2, "")
    assert "bad.yaml:2: there is no node class 'CU3SDataNod'" in done.err
    done = hsi("graph", PIPELINES[0], "--out", tmp_path / "g.png")
    assert done.code == 2
    assert "is an SVG file" in done.err
    assert [Path(p).name for p in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_picture_that_cannot_be_written_is_refused(hsi):
    done = hsi("graph", PIPELINES[0], "--out", "/proc/x.svg")
    assert done.code == 2
    assert "cannot be written to" in done.err
