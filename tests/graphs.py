"""Pipelines that several tests build."""

from __future__ import annotations

from hsi_batch.nodes import (
    AnomalyDataNode,
    BinaryDecider,
    MinMaxNormalizer,
    QuantileBinaryDecider,
    RXGlobal,
    RXPerBatch,
    ScoreToLogit,
    SoftChannelSelector,
    TrainablePCA,
)
from hsi_batch.pipeline import Pipeline


def chain(*nodes, name="test") -> Pipeline:
    """Join nodes by their first matching ports, one behind the other."""
    pipeline = Pipeline(name)
    data = AnomalyDataNode(name="data")
    last = data.outputs.cube
    for node in nodes:
        port = next(iter(node.INPUT_SPECS))
        pipeline.connect((last, node.inputs[port]))
        last = node.outputs[next(iter(node.OUTPUT_SPECS))]
    return pipeline


def rx_raw(eps=0.0) -> Pipeline:
    return chain(RXGlobal(name="rx", eps=eps))


def rx_statistical(eps=0.0) -> Pipeline:
    return chain(
        MinMaxNormalizer(name="norm"),
        RXGlobal(name="rx", eps=eps),
        ScoreToLogit(name="logit"),
        BinaryDecider(name="decider"),
    )


def rx_quantile() -> Pipeline:
    return chain(RXGlobal(name="rx", eps=0.0), QuantileBinaryDecider(name="decider", quantile=0.98))


def rx_per_frame() -> Pipeline:
    return chain(
        MinMaxNormalizer(name="norm", use_running_stats=False),
        RXPerBatch(name="rx", eps=0.0),
        QuantileBinaryDecider(name="decider", quantile=0.98),
    )


def selector() -> Pipeline:
    return chain(
        MinMaxNormalizer(name="norm"),
        SoftChannelSelector(3, name="selector", init_method="variance"),
        RXGlobal(name="rx", eps=0.0),
    )


def pca(components=3) -> Pipeline:
    return chain(TrainablePCA(name="pca", n_components=components))
