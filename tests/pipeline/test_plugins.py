"""Node classes of other packages, named in ``plugins``."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import yaml
from graph_helpers import chain, labelled, scene

from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError, NotFittedError, PipelineError
from hsi_batch.nodes import ChannelAxis, Scope, Stage
from hsi_batch.nodes.plugin import PluginNode, covering
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit

MODULE = '''
"""Nodes as another package has them: nothing here knows of hsi_batch."""
from dataclasses import dataclass
import torch
from torch import nn


@dataclass
class Spec:
    dtype: object
    shape: tuple
    description: str = ""
    optional: bool = False
    variadic: bool = False


CUBE = Spec(torch.float32, (-1, -1, -1, -1))


class Deviation(nn.Module):
    """Distance from the mean of the image."""
    INPUT_SPECS = {"data": CUBE}
    OUTPUT_SPECS = {"scores": Spec(torch.float32, (-1, -1, -1, 1))}
    EXECUTION_STAGES = frozenset({"always"})

    def __init__(self, power=1.0, name=None, **kwargs):
        super().__init__()
        self.power = power
        self.register_buffer("gain", torch.tensor(2.0))

    def forward(self, data, context=None, **_):
        assert context is not None
        away = data - data.mean(dim=(1, 2), keepdim=True)
        return {"scores": self.gain * away.abs().sum(-1, keepdim=True) ** self.power}


class Halved(nn.Module):
    """Mean of neighbouring channels; pixel by pixel."""
    INPUT_SPECS = {"data": CUBE}
    OUTPUT_SPECS = {"half": CUBE}
    scope = "pixel"

    def forward(self, data):
        return {"half": (data[..., 0::2] + data[..., 1::2]) / 2}


class Shown(Deviation):
    EXECUTION_STAGES = {"val", "test"}


class Streamed(Deviation):
    requires_initial_fit = True
    _statistically_initialized = False

    def statistical_initialization(self, input_stream):
        raise NotImplementedError


class Broken(nn.Module):
    INPUT_SPECS = {"data": CUBE}
    OUTPUT_SPECS = {"scores": CUBE}

    def __init__(self, size):
        raise ValueError("size")


class NoPorts(nn.Module):
    pass


def function():
    pass
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package ``hsi_other`` with nodes."""
    (tmp_path / "lib" / "hsi_other").mkdir(parents=True)
    (tmp_path / "lib" / "hsi_other" / "__init__.py").write_text("")
    (tmp_path / "lib" / "hsi_other" / "nodes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("HSI_BATCH_PLUGINS", "hsi_other")
    yield "hsi_other"
    for name in [m for m in sys.modules if m.startswith("hsi_other")]:
        del sys.modules[name]


def read(cls, plugins="[hsi_other]", more=""):
    text = (
        f"plugins: {plugins}\nnodes:\n- {{name: data, class_name: CU3SDataNode}}\n"
        f"- {{name: other, class_name: hsi_other.nodes.{cls}{more}}}\n"
        "connections:\n- {source: data.outputs.cube, target: other.inputs.data}\n"
    )
    return Pipeline.from_document(read_yaml("p.yaml", text=text))


def test_a_module_with_ports_runs_as_it_is_on_whole_frames(package, tmp_path):
    pipeline = read("Deviation", more=", hparams: {power: 2.0, extra: 1}")
    node = pipeline.nodes["other"]
    assert isinstance(node, PluginNode)
    assert node.scope is Scope.FRAME
    cube = scene()
    # In this process: the workers of other tests do not have the package.
    found = pipeline.apply(labelled(cube)).compute(scheduler="synchronous").to_numpy()
    x = cube.astype(np.float64)
    axes = tuple(range(x.ndim - 3, x.ndim - 1))
    expected = 2 * np.abs(x - x.mean(axis=axes, keepdims=True)).sum(axis=-1) ** 2
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4)
    # Saved and read back, with its own names of buffers, by the path that it was named by.
    node.module.gain += 1
    path = pipeline.save(tmp_path / "p.yaml")
    content = yaml.safe_load(path.read_text())
    assert content["plugins"] == ["hsi_other"]
    assert content["nodes"][1]["class_name"] == "hsi_other.nodes.Deviation"
    stored = torch.load(path.with_suffix(".pt"), weights_only=True)["state_dict"]
    assert list(stored["other"]) == ["gain"]
    other = Pipeline.from_yaml(path)
    assert float(other.nodes["other"].module.gain) == 3.0
    again = other.apply(labelled(cube)).compute(scheduler="synchronous").to_numpy()
    np.testing.assert_allclose(again, found * 1.5, rtol=1e-6)
    # Written for cuvis-ai it is named alike.
    assert pipeline.serialize("cuvis-ai")["plugins"] == ["cuvis_ai_builtin", "hsi_other"]


def test_what_a_module_says_of_itself_holds(package):
    pipeline = read("Halved")
    node = pipeline.nodes["other"]
    assert node.scope is Scope.PIXEL
    pipeline.resolve(ChannelAxis(6))
    assert node.channel_axis(node.axes)["half"].size == 3
    assert read("Shown").nodes["other"].stages == {Stage.VAL, Stage.TEST}


def test_names_of_plugins():
    assert covering("cuvis_ai_dinomaly.node.X", ["adaclip", "dinomaly"]) == "dinomaly"
    assert covering("cuvis_ai.node.video.ToVideoNode", ["cuvis_ai_builtin"]) == "cuvis_ai_builtin"
    assert covering("hsi_other.nodes.X", ["hsi_othe", "hsi", "other.nodes", "nodes"]) is None
    assert covering("hsi_other", ["hsi_other"]) is None


def test_what_is_not_named_is_not_imported(package):
    with pytest.raises(ConfigError, match=r"p\.yaml:4: .*list its package in `plugins`"):
        read("Deviation", plugins="null")
    assert not [m for m in sys.modules if m.startswith("hsi_other")]


def test_what_the_user_has_not_allowed_is_not_imported(package, tmp_path, monkeypatch):
    monkeypatch.delenv("HSI_BATCH_PLUGINS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"p\.yaml:4: .*which you have not allowed.*--plugins"):
        read("Deviation")
    monkeypatch.setenv("HSI_BATCH_PLUGINS", "hsi, hsi_othe")
    with pytest.raises(ConfigError, match="not allowed"):
        read("Deviation")
    assert not [m for m in sys.modules if m.startswith("hsi_other")]
    (tmp_path / "hsi-batch").mkdir()
    (tmp_path / "hsi-batch" / "plugins").write_text("# mine\nhsi_other  # and this\n")
    assert isinstance(read("Deviation").nodes["other"], PluginNode)
    # In Python, for one file.
    (tmp_path / "hsi-batch" / "plugins").unlink()
    monkeypatch.delenv("HSI_BATCH_PLUGINS")
    path = Pipeline(name="p").save(tmp_path / "p.yaml")
    path.write_text(
        "plugins: [hsi_other]\nnodes: {data: CU3SDataNode, other: hsi_other.nodes.Halved}\n"
        "connections: [[data.cube, other.data]]\n"
    )
    path.with_suffix(".pt").unlink()
    sys.modules.pop("hsi_other.nodes")
    with pytest.raises(ConfigError, match="not allowed"):
        Pipeline.from_yaml(path)
    with pytest.raises(ConfigError, match="not allowed"):
        Pipeline.from_yaml(path, plugins=["hsi_othe"])
    assert "other" in Pipeline.from_yaml(path, plugins=["hsi_other"]).nodes
    # What runs already may be named by anybody.
    assert isinstance(read("Deviation").nodes["other"], PluginNode)


@pytest.mark.parametrize(
    ("cls", "more", "says"),
    [
        ("NoPorts", "", "is no node: a torch module with INPUT_SPECS"),
        ("function", "", "is no node"),
        ("Missing", "", "cannot be imported: AttributeError"),
        ("Broken", "", "needs the parameter 'size'"),
        ("Broken", ", hparams: {size: 1}", "cannot be made with these arguments: ValueError: size"),
        ("Halved", ", hparams: {sise: 1}", "Halved has no parameter 'sise'"),
    ],
)
def test_mistakes_have_their_line(package, cls, more, says):
    with pytest.raises(PipelineError) as caught:
        read(cls, more=more)
    assert says in str(caught.value)
    assert caught.value.problems[0].line == 4


def test_a_module_that_is_fitted_by_a_stream(package):
    pipeline = read("Streamed")
    assert not pipeline.fitted
    plan = plan_fit(pipeline)
    assert plan.passes == 1
    assert "other: an ordered stream of frames on one worker, pass 1" in str(plan)
    with pytest.raises(NotFittedError, match="Streamed 'other' is not fitted"):
        pipeline.nodes["other"](data=torch.zeros(1, 2, 2, 3))
    pipeline.nodes["other"].mark_fitted(True)
    assert pipeline.fitted
    assert pipeline.nodes["other"].module._statistically_initialized


def test_nodes_written_for_us_in_another_package(package, tmp_path):
    (tmp_path / "lib" / "hsi_other" / "mine.py").write_text(
        "from hsi_batch.nodes import MinMaxNormalizer\nclass Mine(MinMaxNormalizer): pass\n"
    )
    text = (
        "plugins: [hsi_other]\nnodes:\n  data: CU3SDataNode\n  mine: hsi_other.mine.Mine\n"
        "connections: [[data.cube, mine.data]]\n"
    )
    pipeline = Pipeline.from_document(read_yaml("p.yaml", text=text))
    assert not isinstance(pipeline.nodes["mine"], PluginNode)
    assert pipeline.nodes["mine"].AFFINE == ("data", "normalized")
    # Built in Python, its package is named by itself.
    built = chain(type(pipeline.nodes["mine"])(name="mine"))
    again = Pipeline.from_yaml(built.save(tmp_path / "p.yaml"))
    assert type(again.nodes["mine"]) is type(pipeline.nodes["mine"])
