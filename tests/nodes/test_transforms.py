"""Fixed functions of values against SciPy and the formula of the standard."""

import numpy as np
import torch
from graph_helpers import chain, fit, flat, mahalanobis, run, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import expit

from hsi_batch.nodes import (
    ChannelAxis,
    DisplayNormalizer,
    IdentityNormalizer,
    RXGlobal,
    SigmoidTransform,
)
from hsi_batch.pipeline.fitting import plan_fit

VALUES = npst.arrays(np.float32, st.integers(1, 20), elements=st.floats(-100, 100, width=32))


def forward(node, x):
    return next(iter(node(data=torch.from_numpy(x).reshape(1, 1, 1, -1)).values())).numpy().ravel()


@given(VALUES)
def test_sigmoid(x):
    np.testing.assert_allclose(
        forward(SigmoidTransform(), x), expit(x.astype("f8")), rtol=1e-5, atol=1e-37
    )


@given(VALUES)
def test_identity(x):
    data = torch.from_numpy(x).reshape(1, 1, 1, -1)
    assert IdentityNormalizer()(data=data)["normalized"] is data


@given(npst.arrays(np.float32, st.integers(1, 20), elements=st.floats(0, 1, width=32)))
def test_display_is_srgb(x):
    v = x.astype("f8")
    expected = np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(forward(DisplayNormalizer(), x), expected, atol=2e-7)


def test_values_of_the_standard():
    # IEC 61966-2-1: code values 0, 10, 128, 255 of 255 and their linear light.
    linear = np.array([0.0, 0.003035, 0.215861, 1.0], np.float32)
    codes = np.array([0, 10, 128, 255]) / 255
    np.testing.assert_allclose(forward(DisplayNormalizer(), linear), codes, atol=1e-5)


def test_the_gradient_is_finite_at_zero():
    data = torch.zeros(1, 1, 1, 1, requires_grad=True)
    DisplayNormalizer()(data=data)["normalized"].sum().backward()
    np.testing.assert_allclose(data.grad, 12.92, rtol=1e-6)


def test_they_run_by_pixel_and_keep_the_axis():
    cube = scene(dtype="float32") / 2000
    wavelength = np.arange(5.0)
    pipeline = chain(
        IdentityNormalizer(name="same"), SigmoidTransform(name="s"), DisplayNormalizer(name="d")
    )
    pipeline.resolve(ChannelAxis.of(wavelength))
    np.testing.assert_array_equal(pipeline.nodes["d"].axes["data"].wavelength, wavelength)
    v = expit(cube.astype("f8"))
    out = run(pipeline, "d.normalized", cube=cube, block=1)
    np.testing.assert_allclose(out, 1.055 * v ** (1 / 2.4) - 0.055, rtol=1e-5)


def test_the_identity_is_folded():
    cube = scene(40, 20)
    pipeline = chain(IdentityNormalizer(), RXGlobal(name="rx", eps=0.0))
    assert plan_fit(pipeline, ("moments",)).passes == 0
    fit(pipeline, cube, stored=("moments",))
    scores = run(pipeline, "rx.scores", cube=cube).ravel()
    np.testing.assert_allclose(scores, mahalanobis(flat(cube)), rtol=1e-5)
