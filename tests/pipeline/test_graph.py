"""The graph: connecting, names, order, looking ports up, and running in memory."""

import numpy as np
import pytest
import torch
from graph_helpers import (
    Box,
    Ends,
    Scale,
    Square,
    Untold,
    chain,
    fit,
    flat,
    mahalanobis,
    ref,
    scene,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_batch.errors import ConfigError, NotFittedError, PipelineError, PlanError
from hsi_batch.nodes import (
    AnomalyDataNode,
    AnomalyDetectionMetrics,
    BandpassByWavelength,
    BinaryDecider,
    ChannelAxis,
    CU3SDataNode,
    MinMaxNormalizer,
    Node,
    PortSpec,
    RXGlobal,
    ScoreToLogit,
    SoftChannelSelector,
    Stage,
    TrainablePCA,
    ZScoreNormalizerGlobal,
)
from hsi_batch.pipeline import CuvisPipeline, Edge, Graph, Pipeline


def batch_of(*cubes, **others):
    return {"cube": torch.from_numpy(np.stack(cubes).astype("f4")), **others}


# --- connecting ---------------------------------------------------------------------------------


def test_both_ways_to_connect():
    data, norm, rx = CU3SDataNode(), MinMaxNormalizer(), RXGlobal()
    one, other = Graph(), CuvisPipeline()
    one.connect(data.outputs.cube, norm.data)
    one.connect(norm.normalized, rx.data)
    other.connect((data.outputs.cube, norm.data), (norm.normalized, rx.data))
    assert one.edges == other.edges
    assert [str(e) for e in one.edges] == [
        "CU3SDataNode.cube -> MinMaxNormalizer.data",
        "MinMaxNormalizer.normalized -> RXGlobal.data",
    ]


def test_what_is_no_pair_of_ports():
    data, norm = CU3SDataNode(name="data"), MinMaxNormalizer(name="norm")
    graph = Graph()
    with pytest.raises(PipelineError, match=r"connect takes pairs \(output, input\); found \[<Out"):
        graph.connect([data.outputs.cube, norm.data])
    with pytest.raises(PipelineError, match=r"connect takes pairs \(output, input\)"):
        graph.connect((data.outputs.cube, norm.data, norm.data))
    with pytest.raises(PipelineError, match=r"from an output to an input; found <Input.* -> <Out"):
        graph.connect((norm.data, data.outputs.cube))
    with pytest.raises(PipelineError, match=r"from an output to an input; found 'data\.cube'"):
        graph.connect(("data.cube", norm.data))
    assert not graph.nodes


def test_ports_that_do_not_fit():
    data = AnomalyDataNode(name="data")
    with pytest.raises(PipelineError, match=r"do not fit: data\.mask gives torch\.bool, rx\.data"):
        Graph().connect(data.outputs.mask, RXGlobal(name="rx").data)


def test_an_input_has_one_writer():
    a, b, rx = MinMaxNormalizer(name="a"), MinMaxNormalizer(name="b"), RXGlobal(name="rx")
    graph = Graph()
    graph.connect(a.normalized, rx.data)
    with pytest.raises(
        PipelineError, match=r"rx\.data is written twice, by a\.normalized and by b\.normalized"
    ):
        graph.connect(b.normalized, rx.data)
    with pytest.raises(PipelineError, match=r"a\.normalized -> rx\.data is there already"):
        graph.connect(a.normalized, rx.data)


class Sum(Node):
    INPUT_SPECS = {"parts": PortSpec(torch.float32, (-1,) * 4, variadic=True)}
    OUTPUT_SPECS = {"total": PortSpec(torch.float32, (-1,) * 4)}

    def channel_axis(self, axes):
        return {"total": axes["parts"]}

    def forward(self, parts):
        return {"total": sum(parts)}


def test_a_variadic_input_has_many():
    total = Sum(name="sum")
    pipeline = chain(Scale([2.0], [0.0], name="s"), total)
    pipeline.connect(pipeline.nodes["data"].outputs.cube, total.parts)
    pipeline.connect(Square(name="unused").squared, total.parts)
    pipeline.connect(pipeline.nodes["data"].outputs.cube, pipeline.nodes["unused"].data)
    out = pipeline.forward(batch_of(np.full((1, 1, 1), 3.0)))
    assert float(out["sum", "total"]) == 6 + 3 + 9


def test_cycles_are_named():
    a, b, c = (MinMaxNormalizer(name=n) for n in "abc")
    graph = Graph()
    graph.connect((a.normalized, b.data), (b.normalized, c.data))
    with pytest.raises(PipelineError, match=r"closes the cycle c -> a -> b -> c\. Data flow one"):
        graph.connect(c.normalized, a.data)
    lone = MinMaxNormalizer(name="lone")
    with pytest.raises(PipelineError, match="closes the cycle lone -> lone"):
        Graph().connect(lone.normalized, lone.data)


def test_looking_for_cycles_takes_no_time_in_a_wide_graph():
    # Forty diamonds in a row: 2**40 ways from one end to the other.
    graph, last = Graph(), Scale([1], [0], name="s")
    for i in range(40):
        left, right, total = Square(name=f"l{i}"), Square(name=f"r{i}"), Sum(name=f"t{i}")
        out = next(iter(last.outputs.values()))
        graph.connect((out, left.data), (out, right.data))
        graph.connect((left.squared, total.parts), (right.squared, total.parts))
        last = total
    with pytest.raises(PipelineError, match="closes the cycle t39 -> s"):
        graph.connect(last.total, graph.nodes["s"].data)


def test_all_pairs_are_joined_or_none():
    a, b, rx = MinMaxNormalizer(name="a"), MinMaxNormalizer(name="b"), RXGlobal(name="rx")
    data = CU3SDataNode(name="data")
    graph = Graph()
    graph.connect(data.outputs.cube, a.data)
    with pytest.raises(PipelineError, match="written twice"):
        graph.connect((a.normalized, rx.data), (b.normalized, rx.data))
    assert list(graph.nodes) == ["data", "a"]
    assert len(graph.edges) == 1
    graph.connect((a.normalized, b.data), (b.normalized, rx.data))
    graph.verify()


# --- names --------------------------------------------------------------------------------------


def test_names_that_are_taken_get_a_counter():
    graph = Graph()
    nodes = [graph.add_node(RXGlobal()) for _ in range(3)]
    assert list(graph.nodes) == ["RXGlobal", "RXGlobal-1", "RXGlobal-2"]
    assert [n.name for n in nodes] == list(graph.nodes)
    assert graph.add_node(nodes[1]) is nodes[1]
    assert len(graph.nodes) == 3
    graph.add_nodes(first=MinMaxNormalizer(), second=MinMaxNormalizer())
    assert graph.nodes["second"].name == "second"


def test_names_hold_no_dot():
    with pytest.raises(PipelineError, match=r"the name 'a\.b' holds a dot"):
        Graph().add_node(RXGlobal(name="a.b"))


# --- order --------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data())
def test_every_node_comes_after_what_feeds_it(data):
    count = data.draw(st.integers(1, 8))
    nodes = [Sum(name=f"n{i}") for i in range(count)]
    graph = Graph()
    for i in data.draw(st.permutations(range(count))):
        graph.add_node(nodes[i])
    added = list(graph.nodes)
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), unique=True)
    )
    feeds = {n: set() for n in added}
    for a, b in pairs:
        if a < b:
            graph.connect(nodes[a].total, nodes[b].parts)
            feeds[f"n{b}"].add(f"n{a}")
    order = graph.order()
    assert sorted(order) == sorted(added)
    for name, before in feeds.items():
        assert all(order.index(b) < order.index(name) for b in before)
        reachable = set()
        queue = [name]
        while queue:
            reachable |= (fresh := feeds[queue.pop()] - reachable)
            queue.extend(fresh)
        assert graph.ancestors(name) == reachable
    if not any(feeds.values()):
        assert order == added


# --- what is wrong with the whole ---------------------------------------------------------------


def test_there_is_one_data_node():
    with pytest.raises(PipelineError, match="the pipeline has 0 data nodes; it needs one"):
        _ = Graph().source
    graph = Graph()
    graph.add_nodes(a=CU3SDataNode(), b=AnomalyDataNode())
    with pytest.raises(PipelineError, match="has 2 data nodes"):
        graph.verify()
    assert chain().source.name == "data"


def test_inputs_that_nothing_feeds_are_all_reported():
    graph = Graph()
    graph.add_nodes(rx=RXGlobal(), bp=BandpassByWavelength(1), m=AnomalyDetectionMetrics())
    with pytest.raises(PipelineError) as caught:
        graph.verify()
    assert [p.message for p in caught.value.problems[1:]] == [
        "nothing is connected to the input rx.data (RXGlobal needs it).",
        "nothing is connected to the input bp.data (BandpassByWavelength needs it).",
        "nothing is connected to the input m.targets (AnomalyDetectionMetrics needs it).",
    ]
    for use in (
        lambda: graph.resolve(ChannelAxis(3)),
        lambda: graph.forward({"cube": torch.zeros(1, 1, 1, 3)}),
    ):
        with pytest.raises(ConfigError, match="4 problems"):
            use()


# --- looking outputs up -------------------------------------------------------------------------


def test_outputs_by_name():
    pipeline = chain(MinMaxNormalizer(name="n"), RXGlobal(name="a"))
    pipeline.connect(pipeline.nodes["n"].normalized, RXGlobal(name="b").data)
    assert pipeline.port("normalized") == pipeline.port("n.normalized") == ("n", "normalized")
    assert pipeline.port("n.outputs.normalized") == ("n", "normalized")
    assert pipeline.port("b.scores") == ("b", "scores")
    with pytest.raises(PipelineError, match=r"'scores' is ambiguous: a\.scores, b\.scores\. Name"):
        pipeline.port("scores")
    with pytest.raises(PipelineError, match=r"no output 'score'\. Did you mean 'scores'\? It has"):
        pipeline.port("score")
    with pytest.raises(PipelineError, match=r"no output 'a\.logits'.*It has data\.cube, data\.mas"):
        pipeline.port("a.logits")


def test_the_picture_of_a_graph():
    pipeline = chain(RXGlobal(name="rx", eps=0.0), BinaryDecider(name="d"), name="p")
    assert repr(pipeline).splitlines() == [
        "<Pipeline 'p': 3 nodes>",
        "  data (CU3SDataNode)",
        "  rx (RXGlobal) data<-data.cube not fitted",
        "  d (BinaryDecider) logits<-rx.scores",
    ]
    fit(pipeline, scene())
    assert "rx (RXGlobal) data<-data.cube fitted" in repr(pipeline)
    assert list(pipeline.scopes()) == [("data", "pixel"), ("rx", "pixel"), ("d", "pixel")]


# --- running in memory --------------------------------------------------------------------------


def test_forward_gives_every_output():
    cube = scene()
    pipeline = chain(
        MinMaxNormalizer(name="n"), RXGlobal(name="rx", eps=1e-3), ScoreToLogit(name="l")
    )
    fit(pipeline, cube)
    out = pipeline.forward(batch_of(cube, cube))
    assert set(out) == {ref(t) for t in ("data.cube", "n.normalized", "rx.scores", "l.logits")}
    x = flat(cube)
    scaled = (x - x.min()) / np.ptp(x)
    expected = mahalanobis(scaled, eps=1e-3)
    for image in out["rx", "scores"].numpy():
        np.testing.assert_allclose(image.ravel(), expected, rtol=1e-3)
    bias = expected.mean() + 2 * expected.std(ddof=1)
    np.testing.assert_allclose(
        out["l", "logits"][0].numpy().ravel(), expected - bias, rtol=1e-3, atol=0.05
    )
    assert not out["rx", "scores"].requires_grad


class Mean(Node):
    """Takes optional inputs named like keys of the batch."""

    INPUT_SPECS = {
        "data": PortSpec(torch.float32, (-1,) * 4),
        "mask": PortSpec(torch.Tensor, (-1, -1, -1), optional=True),
        "cube": PortSpec(torch.float32, (-1,) * 4, optional=True),
    }
    OUTPUT_SPECS = {"mean": PortSpec(torch.float32, (-1,) * 4)}

    def forward(self, data, mask=None, cube=None):
        assert mask is None
        assert cube is None
        return {"mean": data.mean(dim=-1, keepdim=True)}


def test_ports_are_fed_by_connections_only():
    # A key of the batch that bears the name of a port that is not connected does not reach it.
    mean = Mean(name="mean")
    pipeline = chain(mean)
    cube = scene()
    mask = torch.ones(1, *cube.shape[:2], dtype=torch.int32)
    out = pipeline.forward(batch_of(cube, mask=mask, unknown=3))
    np.testing.assert_allclose(out["mean", "mean"][0, ..., 0], cube.mean(axis=-1), rtol=1e-6)
    assert ("data", "mask") in out


def test_a_required_input_is_never_taken_from_the_batch():
    metrics = AnomalyDetectionMetrics(name="m")
    pipeline = chain(RXGlobal(name="rx"), source=AnomalyDataNode(name="data"))
    pipeline.connect(pipeline.nodes["data"].outputs.mask, metrics.targets)
    fit(pipeline, scene())
    wrong = torch.ones(1, 48, 20, 1, dtype=torch.bool)
    with pytest.raises(PipelineError, match=r"m\.targets got nothing"):
        pipeline.forward(batch_of(scene(), targets=wrong), stage="val")


def test_the_batch_holds_a_cube():
    with pytest.raises(PipelineError, match="the batch has no 'cube'; it has image, mask"):
        chain().forward({"image": 1, "mask": 2})
    with pytest.raises(PipelineError, match="the batch has no 'cube'; it has nothing"):
        chain().forward({})


def test_not_fitted():
    with pytest.raises(NotFittedError, match="'rx' is not fitted"):
        chain(RXGlobal(name="rx")).forward(batch_of(scene()))


def test_stages_are_told_to_nodes():
    seen = []

    class Watch(Node):
        INPUT_SPECS = {"data": PortSpec(torch.float32, (-1,) * 4)}
        OUTPUT_SPECS = {"seen": PortSpec(torch.float32, (-1,) * 4)}

        def forward(self, data, context=None):
            seen.append((self.training, context.stage))
            return {"seen": data}

    pipeline = chain(Watch(name="watch"))
    # What is frozen does in training what it does in inference.
    for names in ([], ["watch"]):
        pipeline.unfreeze_nodes_by_name(names)
        seen.clear()
        for stage in Stage:
            pipeline.forward(batch_of(scene()), stage=stage)
        assert seen == [(bool(names) and s is Stage.TRAIN, s) for s in Stage]
    with pytest.raises(ValueError, match="warmup"):
        pipeline.forward(batch_of(scene()), stage="warmup")


def test_gradients_flow_in_training_only():
    cube = scene()
    selector = SoftChannelSelector(2, name="s")
    pipeline = chain(selector)
    fit(pipeline, cube)
    selector.channel_logits.requires_grad_(True)
    out = {
        s: pipeline.forward(batch_of(cube), stage=s)["s", "selected"].requires_grad for s in Stage
    }
    assert out == {Stage.TRAIN: True, Stage.VAL: False, Stage.TEST: False, Stage.INFERENCE: False}


# --- channels of a batch ------------------------------------------------------------------------


def test_an_unfitted_graph_follows_the_batch():
    pipeline = chain(BandpassByWavelength(500, name="bp"))
    for wavelengths, size in (([400, 500, 600], 2), ([500, 600], 2), ([300, 400, 450, 700], 1)):
        batch = batch_of(scene(channels=len(wavelengths)), wavelengths=np.array([wavelengths]))
        assert pipeline.forward(batch)["bp", "filtered"].shape[-1] == size


def test_a_fitted_graph_refuses_other_channels():
    axis = ChannelAxis.of([400.3, 500.4, 600.5])
    pipeline = chain(BandpassByWavelength(450, name="bp"), RXGlobal(name="rx", eps=0.0))
    cube = scene(channels=3)
    fit(pipeline, cube, axis=axis)
    before = pipeline.forward(batch_of(cube))["rx", "scores"]
    whole = torch.tensor([[400, 500, 600]])
    after = pipeline.forward(batch_of(cube, wavelengths=whole))["rx", "scores"]
    assert torch.equal(before, after)
    assert pipeline.axis is axis, "the exact wavelengths of the fit stay"
    with pytest.raises(PlanError, match=r"the batch does not have .* differ by up to 600 nm"):
        pipeline.forward(batch_of(cube, wavelengths=torch.tensor([[1000, 1100, 1200]])))
    with pytest.raises(PlanError, match=r"fit against data: 3 channels against 5"):
        pipeline.forward(batch_of(scene()))


def test_wavelengths_that_come_later_are_taken_up():
    pipeline = chain(RXGlobal(name="rx", eps=0.0))
    cube = scene(channels=2)
    fit(pipeline, cube)
    pipeline.forward(batch_of(cube, wavelengths=torch.tensor([[500, 600]])))
    assert pipeline.axis.wavelength.tolist() == [500.0, 600.0]


def test_nodes_that_are_joined_later_learn_their_channels():
    axis = ChannelAxis.of([400, 500, 600])
    pipeline = chain(RXGlobal(name="rx", eps=0.0))
    cube = scene(channels=3)
    fit(pipeline, cube, axis=axis)
    bandpass = BandpassByWavelength(450, name="bp")
    pipeline.connect(pipeline.nodes["data"].outputs.cube, bandpass.data)
    assert pipeline.forward(batch_of(cube))["bp", "filtered"].shape[-1] == 2
    assert bandpass.axes["data"].size == 3


# --- channel axes -------------------------------------------------------------------------------


def test_wavelengths_travel_through_nodes_that_keep_channels_apart():
    bandpass, rest = BandpassByWavelength(450, 650, name="bp"), BandpassByWavelength(550, name="b2")
    pipeline = chain(
        MinMaxNormalizer(),
        bandpass,
        SoftChannelSelector(2),
        ZScoreNormalizerGlobal(),
        rest,
        RXGlobal(name="rx"),
    )
    pipeline.resolve(ChannelAxis.of([400, 500, 600, 700]))
    assert rest.axes["data"].wavelength.tolist() == [500.0, 600.0]
    rx = pipeline.nodes["rx"]
    assert rx.axes["data"].wavelength.tolist() == [600.0]
    assert rx.num_channels == 1


def test_wavelengths_end_where_channels_are_mixed():
    pipeline = chain(TrainablePCA(n_components=2, name="pca"), BandpassByWavelength(1, name="bp"))
    with pytest.raises(ConfigError, match=r"bp needs wavelengths, but .* a node before it mixes"):
        pipeline.resolve(ChannelAxis.of([400, 500, 600]))


def test_without_wavelengths_the_reason_is_given_once():
    # The nodes behind know nothing either; that is no second problem.
    pipeline = chain(BandpassByWavelength(1, name="bp"), RXGlobal(name="rx"), ScoreToLogit())
    with pytest.raises(ConfigError) as caught:
        pipeline.resolve(ChannelAxis(4))
    assert len(caught.value.problems) == 1
    assert "bp needs wavelengths" in str(caught.value)
    assert pipeline.axis is None


def test_several_problems_at_once():
    pipeline = chain(BandpassByWavelength(1, name="bp"))
    cube = pipeline.nodes["data"].outputs.cube
    pipeline.connect(
        (cube, RXGlobal(7, name="rx").data),
        (cube, TrainablePCA(n_components=5, name="pca").data),
        (cube, ScoreToLogit(name="l").scores),
    )
    with pytest.raises(ConfigError, match="4 problems") as caught:
        pipeline.resolve(ChannelAxis(4))
    text = str(caught.value)
    for part in (
        "bp needs wavelengths",
        "rx declares num_channels 7, but 4 channels reach it (data.cube). Set num_channels to 4",
        "pca: n_components 5 is more than the 4 channels",
        "l.scores takes 1 channel, but 4 reach it from data.cube",
    ):
        assert part in text


def test_a_node_that_does_not_say_its_channels():
    pipeline = chain(Untold(name="plugin"), RXGlobal(name="rx"))
    with pytest.raises(ConfigError, match=r"reach rx\.data are not known: plugin does not say"):
        pipeline.resolve(ChannelAxis(3))
    pipeline = chain(Untold(name="plugin"), TrainablePCA(name="pca"))
    with pytest.raises(ConfigError, match=r"reach pca\.data are not known: plugin does not say"):
        pipeline.resolve(ChannelAxis(3))


DECLARED = [
    (RXGlobal, "num_channels", {}),
    (ZScoreNormalizerGlobal, "num_channels", {}),
    (TrainablePCA, "num_channels", {"n_components": 2}),
    (SoftChannelSelector, "input_channels", {"n_select": 2}),
]


@pytest.mark.parametrize(("cls", "argument", "others"), DECLARED)
def test_declared_counts_are_checked_in_our_dialect(cls, argument, others):
    node = cls(name="n", **{argument: 7}, **others)
    with pytest.raises(ConfigError, match=rf"n declares {argument} 7, but 4 channels reach it"):
        chain(node).resolve(ChannelAxis(4))
    chain(cls(name="n", **{argument: 4}, **others)).resolve(ChannelAxis(4))
    free = cls(name="n", **others)
    chain(free).resolve(ChannelAxis(4))
    assert getattr(free, argument) == 4


@pytest.mark.parametrize(("cls", "argument", "others"), DECLARED)
def test_declared_counts_are_corrected_in_the_lenient_dialects(cls, argument, others):
    node = cls(name="n", **{argument: 7}, **others)
    pipeline = chain(node)
    pipeline.lenient = True
    with pytest.warns(UserWarning, match=rf"n declares {argument} 7, but 4 .*; 4 is used"):
        pipeline.resolve(ChannelAxis(4))
    assert getattr(node, argument) == node.hparams[argument] == 4
    pipeline.resolve(ChannelAxis(4))


def test_declared_counts_that_disagree_with_each_other():
    pca, rx = TrainablePCA(n_components=2, name="pca"), RXGlobal(5, name="rx")
    with pytest.raises(PipelineError, match=r"axis 3 of pca\.projected has size 2, rx\.data takes"):
        Graph().connect(pca.projected, rx.data)
    lenient = Pipeline(lenient=True)
    lenient.connect((CU3SDataNode().outputs.cube, pca.data), (pca.projected, rx.data))
    with pytest.warns(UserWarning, match="rx declares num_channels 5, but 2 channels reach it"):
        fit(lenient, scene())
    assert rx.mu.shape == (2,)


def test_fixed_sizes_are_checked_even_if_nothing_is_declared():
    pipeline = chain(Ends(name="e"), Box(name="b"))
    pipeline.connect(pipeline.nodes["e"].least, ScoreToLogit(name="l").scores)
    pipeline.resolve(ChannelAxis(6))
    assert pipeline.nodes["l"].axes["scores"].size == 1
    assert pipeline.nodes["b"].axes["data"].size == 6


def test_edges_are_plain_values():
    edge = Edge(ref("a.x"), ref("b.y"))
    assert str(edge) == "a.x -> b.y"
    assert edge == (("a", "x"), ("b", "y"))
