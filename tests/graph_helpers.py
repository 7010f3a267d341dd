"""Graphs, nodes of other kinds than the library's, and references in plain NumPy.

The references compute on whole arrays in float64 and use nothing of the package.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pixel_strategies  # noqa: F401 - loads the hypothesis profile
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import xarray as xr

from hsi_batch.nodes import (
    ChannelAxis,
    CU3SDataNode,
    Node,
    PortRef,
    PortSpec,
    Request,
    Scope,
    registry,
)
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.cache import pack
from hsi_batch.pipeline.fitting import FitPlan, Fitting, plan_fit
from hsi_batch.pipeline.frame_source import FrameSource
from hsi_batch.pipeline.frames import frame_evaluator
from hsi_batch.pipeline.gather import finished
from hsi_batch.pipeline.passes import gather_frame
from hsi_batch.statistics import Affine, Bundle
from hsi_batch.statistics.leaves import leaf_lines

CUBE = PortSpec(torch.float32, (-1, -1, -1, -1))
FLAT = PortSpec(torch.float32, (-1, -1, -1, 1))


# --- nodes that the library does not have -----------------------------------------------------


class Scale(Node):
    """Affine and diagonal, with any factors: also negative and zero ones."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"scaled": CUBE}
    AFFINE = ("data", "scaled")

    def __init__(self, factor, shift, name=None):
        super().__init__(name, factor=factor, shift=shift)
        self.factor, self.shift = np.asarray(factor, float), np.asarray(shift, float)

    def affine(self):
        return Affine.scaling(self.factor, self.shift)

    def forward(self, data):
        return {"scaled": data * torch.from_numpy(self.factor) + torch.from_numpy(self.shift)}


class Mix(Node):
    """Affine with any matrix: square or not, of full rank or not."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"mixed": CUBE}
    AFFINE = ("data", "mixed")
    mixes_channels = True

    def __init__(self, matrix, shift, name=None):
        super().__init__(name, matrix=matrix, shift=shift)
        self.matrix, self.shift = np.asarray(matrix, float), np.asarray(shift, float)

    def channel_axis(self, axes):  # noqa: ARG002
        return {"mixed": ChannelAxis(len(self.matrix))}

    def affine(self):
        return Affine(self.matrix, self.shift)

    def forward(self, data):
        mixed = data.double() @ torch.from_numpy(self.matrix).T + torch.from_numpy(self.shift)
        return {"mixed": mixed.float()}


class Square(Node):
    """Pixel by pixel, but not affine."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"squared": CUBE}

    scope = Scope.PIXEL

    def channel_axis(self, axes):
        return {"squared": axes["data"]}

    def forward(self, data):
        return {"squared": data * data}


class Box(Node):
    """Mean over a square window; at the edges of the frame the nearest pixel stands in."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"smooth": CUBE}
    scope = Scope.WINDOW

    def __init__(self, radius=1, name=None):
        super().__init__(name, radius=radius)
        self.radius = radius

    @property
    def halo(self):
        return self.radius

    def channel_axis(self, axes):
        return {"smooth": axes["data"]}

    def forward(self, data):
        side = 2 * self.radius + 1
        padded = F.pad(data.permute(0, 3, 1, 2).double(), (self.radius,) * 4, mode="replicate")
        height, width = data.shape[1:3]
        total = sum(
            padded[:, :, i : i + height, j : j + width] for i in range(side) for j in range(side)
        )
        return {"smooth": (total / side**2).float().permute(0, 2, 3, 1)}


class Ends(Node):
    """Two outputs with pixels, one of them affine, and one that is made only when asked."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {
        "third": CUBE,
        "least": FLAT,
        "largest": FLAT,
        "never": PortSpec(torch.float32, (-1, -1, -1, 1), optional=True),
    }
    AFFINE = ("data", "third")

    def affine(self):
        size = self.axes["data"].size
        return Affine.scaling([1 / 3] * size, [0.0] * size)

    def forward(self, data):
        return {
            "third": data * torch.tensor(1 / 3),
            "least": data.amin(dim=-1, keepdim=True),
            "largest": data.amax(dim=-1, keepdim=True),
        }


class Drift(Node):
    """Keeps state from frame to frame."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"steady": CUBE}
    scope = Scope.SEQUENCE

    def channel_axis(self, axes):
        return {"steady": axes["data"]}

    def forward(self, data):
        return {"steady": data}


class Untold(Node):
    """Says nothing about its channels or its scope, as a plugin might."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"result": CUBE}

    def forward(self, data):
        return {"result": data}


class WeightedSum(Node):
    """A frame-scope node with an input that is no pixels: the weights of a selector."""

    INPUT_SPECS: ClassVar = {"data": CUBE, "weights": PortSpec(torch.float32, (-1,))}
    OUTPUT_SPECS: ClassVar = {"summed": FLAT}
    scope = Scope.FRAME

    def forward(self, data, weights):
        centred = data - data.mean(dim=(1, 2), keepdim=True)
        return {"summed": (centred * weights).sum(dim=-1, keepdim=True)}


class Shift(Node):
    """Fitted from all frames, and looks at a whole frame: it says nothing of its scope."""

    INPUT_SPECS: ClassVar = {"data": CUBE}
    OUTPUT_SPECS: ClassVar = {"shifted": CUBE}

    def __init__(self, name=None):
        super().__init__(name)
        self.register_buffer("mean", torch.zeros(0))

    def request(self):
        return Request("data", "moments")

    def fit(self, statistic):
        self.set_state({"mean": statistic.mean}, mean=statistic.mean)

    def channel_axis(self, axes):
        return {"shifted": axes["data"]}

    def forward(self, data):
        return {"shifted": data - data.amax(dim=(1, 2), keepdim=True) + self.mean}


EXTRA = (Scale, Mix, Square, Box, Ends, Drift, Untold, WeightedSum, Shift)


@contextmanager
def known(*classes):
    """Put classes into the library, so that pipelines with them travel."""
    library = {**registry.node_classes(), **{cls.__name__: cls for cls in classes}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "node_classes", lambda: library)
        yield


@pytest.fixture
def extra_nodes():
    """The nodes above are in the library."""
    with known(*EXTRA):
        yield


def first_output(node):
    ends = node.AFFINE or node.QUADRATIC
    return node.outputs[ends[1] if ends else next(iter(node.OUTPUT_SPECS))]


def chain(*nodes, source=None, name="test"):
    """Nodes one behind the other, by their first input and main output, behind a data node."""
    pipeline = Pipeline(name)
    last = source or CU3SDataNode(name="data")
    pipeline.add_node(last)
    for node in nodes:
        pipeline.connect(first_output(last), node.inputs[next(iter(node.INPUT_SPECS))])
        last = node
    return pipeline


def scene(height=48, width=20, channels=5, seed=0, dtype="uint16"):
    """Correlated pixels around 1000 with a spread of 50 to 150, ``(y, x, channel)``."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels)) * 20 + 40 * np.eye(channels)
    pixels = rng.normal(size=(height, width, channels)) @ mixing + 1000
    return np.rint(pixels).astype(dtype) if np.dtype(dtype).kind in "iu" else pixels.astype(dtype)


def labelled(cube, wavelength=None, **attrs):
    """As a DataArray with the dimensions that apply takes."""
    dims = ("frame", "y", "x", "channel")[-cube.ndim :]
    coords = {} if wavelength is None else {"wavelength": ("channel", np.asarray(wavelength))}
    return xr.DataArray(cube, dims=dims, coords=coords, attrs=attrs)


class Counted:
    """Lines of a frame; counts how often each was asked for."""

    def __init__(self, cube):
        self.cube = cube
        self.times = np.zeros(len(cube), int)

    def __call__(self, start, stop):
        assert 0 <= start < stop <= len(self.cube), f"lines {start}:{stop} are not in the frame"
        self.times[start:stop] += 1
        return self.cube[start:stop]


def source_of(cube, valid=None, block=None, lines=None):
    """A frame in blocks of ``block`` leaves (one block if None)."""
    height, width = cube.shape[:2]
    step = height if block is None else block * leaf_lines(width)
    return FrameSource(
        lines=lines or Counted(cube),
        valid=lambda a, b: None if valid is None else valid[a:b],
        shape=cube.shape,
        dtype=cube.dtype,
        blocks=tuple((s, min(s + step, height)) for s in range(0, height, step)),
    )


def fit(pipeline, *cubes, axis=None, valid=None, stored=(), block=None, sample=True) -> FitPlan:
    """Fit to frames in memory as a stage does: pass by pass, blocks and frames merged.

    Statistics of the kinds ``stored`` are handed over before the first pass.
    """
    pipeline.resolve(axis or ChannelAxis(cubes[0].shape[2]))
    plan = plan_fit(pipeline, stored)
    pixels = cubes[0].reshape(-1, cubes[0].shape[2])
    if valid is not None:
        pixels = pixels[valid.ravel()]
    fitting = Fitting(pipeline, plan, (lambda: pixels) if sample else (lambda: None))
    needs = fitting.stored()
    while needs or not fitting.done:
        bundle = Bundle()
        for index, cube in enumerate(cubes):
            source = source_of(cube, valid, block)
            place = ((index, len(cubes)),)
            bundle = bundle.merge(gather_frame(pack(pipeline), needs, source, source.blocks, place))
            assert source.lines.times.max() <= 1, "a pass reads every line once"
        fitting.supply({need: finished(bundle)[str(need)] for need in needs})
        needs = fitting.needs()
    assert fitting.done
    assert pipeline.fitted
    return plan


def run(pipeline, *wanted, cube, valid=None, block=None):
    """Outputs ``(y, x, k)`` of a frame that is scored block by block."""
    refs = tuple(pipeline.port(name) for name in wanted)
    source = source_of(cube, valid, block)
    evaluator = frame_evaluator(pipeline, refs, source, pipeline.precision)
    parts = [evaluator.block(start, stop) for start, stop in source.blocks]
    whole = [np.concatenate([part[ref] for part in parts]) for ref in refs]
    return whole[0] if len(whole) == 1 else whole


def ref(text):
    return PortRef(*text.split("."))


# --- references -------------------------------------------------------------------------------


def flat(cube):
    """Pixels in float64."""
    return np.asarray(cube, np.float64).reshape(-1, np.shape(cube)[-1])


def mahalanobis(x, background=None, eps=0.0, loading=0.0):
    """Squared distance of pixels from the mean of a background (of themselves by default)."""
    known = x if background is None else background
    covariance = np.atleast_2d(np.cov(known, rowvar=False))
    ridge = eps + loading * np.trace(covariance) / len(covariance)
    centred = x - known.mean(axis=0)
    whitened = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), centred.T).T
    return np.einsum("ij,ij->i", centred, whitened)


def principal(x, count):
    """Leading eigenvalues and eigenvectors (rows), the largest entry of each positive."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x, rowvar=False)))
    values, vectors = values[::-1][:count], vectors.T[::-1][:count]
    largest = np.abs(vectors).argmax(axis=1)
    return values, vectors * np.sign(vectors[np.arange(count), largest])[:, None]


def box(cube, radius=1):
    """Mean over a square window with the edges repeated."""
    side = 2 * radius + 1
    padded = np.pad(np.asarray(cube, np.float64), ((radius,) * 2, (radius,) * 2, (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return windows.mean(axis=(-2, -1))
