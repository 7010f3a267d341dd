"""Nodes with statistics of their own, with several, and with fits that go on for some passes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from distributed import Client
from graph_helpers import fit, known
from graphs import chain
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import scene, write_npz

from hsi_batch.nodes import (
    AnomalyDataNode,
    MinMaxNormalizer,
    Node,
    PerPixelUnitNorm,
    PortSpec,
    Request,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit as fit_stage
from hsi_batch.statistics import Measure
from hsi_batch.statistics.measure import chosen_pixels

CUBE = PortSpec(torch.float32, (-1, -1, -1, -1), "cube")


@dataclass(frozen=True)
class Total:
    """Sum of the pixels that lie above a bound, and how many of which class there were."""

    value: float
    normal: int = 0
    anomalous: int = 0

    def merge(self, other):
        return Total(
            self.value + other.value, self.normal + other.normal, self.anomalous + other.anomalous
        )


class Above(Measure):
    labelled = True

    def __init__(self, bound):
        self.bound = float(bound)

    @property
    def name(self):
        return f"above-{self.bound!r}"

    def of(self, lines, valid, classes):
        pixels = chosen_pixels(lines, valid).astype(np.float64)
        counts = (0, 0) if classes is None else ((classes == 0).sum(), (classes == 1).sum())
        return Total(pixels[pixels > self.bound].sum(), *map(int, counts))


class Climb(Node):
    """Asks for the sum above 0, 10, 20 .. until it is zero: a fit of several passes."""

    INPUT_SPECS = {"data": CUBE}
    OUTPUT_SPECS = {"same": CUBE}

    def __init__(self, name=None):
        super().__init__(name)
        self.bound, self.sums, self.extrema, self.last = 0.0, [], None, None
        self.register_buffer("found", torch.zeros(1))

    @property
    def most_passes(self):
        return 4

    @property
    def unsettled(self):
        return self.last.value > 0 and len(self.sums) < self.most_passes

    def requests(self):
        return (Request("data", Above(self.bound)), Request("data", "extrema"))

    def fit(self, *statistics):
        self.last, self.extrema = statistics
        self.sums.append(self.last.value)
        self.bound += 10.0
        self.set_state({"sums": np.array(self.sums)}, found=np.array([self.last.value]))

    def forward(self, data):
        return {"same": data}


@pytest.fixture(autouse=True, scope="module")
def climb_is_known():
    """Pipelines travel by the names of their classes."""
    with known(Climb):
        yield


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 50), st.integers(1, 3))
def test_a_fit_goes_on_until_the_node_has_settled(seed, top, block):
    rng = np.random.default_rng(seed)
    cubes = [rng.integers(0, top, (n, 7, 2)).astype(np.float32) for n in (40, 23)]
    node = Climb(name="climb")
    pipeline = chain(node)
    plan = fit(pipeline, *cubes, block=block)
    values = np.concatenate([cube.ravel() for cube in cubes]).astype(np.float64)
    expected = [values[values > bound].sum() for bound in (0, 10, 20, 30)]
    zero = next((i + 1 for i, total in enumerate(expected) if total == 0), 4)
    assert node.sums == expected[:zero]
    assert plan.passes == 4
    assert str(plan).startswith("up to 4 passes")
    assert node.extrema.maximum.max() == values.max()


def test_nodes_behind_wait_until_it_has_settled():
    first, second = Climb(name="first"), Climb(name="second")
    pipeline = chain(first, PerPixelUnitNorm(name="unit"), second)
    assert plan_fit(pipeline).passes == 8
    # Stored extrema help, what is its own has to be read.
    assert [n.reading for n in plan_fit(pipeline, {"extrema"}).nodes] == [1, 0, 5, 5]


def test_what_is_its_own_is_not_carried_through_affine_nodes():
    plan = plan_fit(chain(MinMaxNormalizer(name="norm"), Climb(name="climb")))
    reading = {str(n.need): n.reading for n in plan.nodes}
    assert reading["above-0.0 of norm.normalized"] == 2
    assert reading["extrema of cube"] == 1


@pytest.fixture
def threads():
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


def test_equal_measures_are_taken_once_and_labels_are_handed_over(tmp_path, threads):
    made = [scene(seed, lines=70, samples=60) for seed in (1, 2)]
    write_npz(tmp_path / "in" / "a.npz", made[0][0], mask=made[0][1])
    write_npz(tmp_path / "in" / "b.npz", made[1][0])
    convert(tmp_path / "in", tmp_path / "a.zarr", block_lines=16, client=threads)
    node = Climb(name="climb")
    pipeline = Pipeline("both")
    data = AnomalyDataNode(name="data")
    twin = Climb(name="twin")
    pipeline.connect((data.outputs.cube, node.inputs.data), (data.outputs.cube, twin.inputs.data))
    result = fit_stage(pipeline, tmp_path / "a.zarr", client=threads)
    assert result.passes == 4
    assert node.sums[0] == sum(cube.astype(np.float64).sum() for cube, _ in made)
    assert twin.sums == node.sums
    mask = made[0][1]
    assert (node.last.normal, node.last.anomalous) == ((mask == 0).sum(), (mask > 0).sum())
    assert str(result.plan).count("above-0.0 of cube") == 2
