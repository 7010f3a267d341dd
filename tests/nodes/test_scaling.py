"""Centring and scaling of channels against scikit-learn."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, fit, flat, mahalanobis, run, scene
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from hsi_batch.errors import DataWarning, NotFittedError
from hsi_batch.nodes import MeanCenter, RXGlobal, UnitVarianceScaling
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.fitting import plan_fit
from hsi_batch.pipeline.weights import load_weights
from hsi_batch.statistics import Moments

STORED = ("moments", "extrema")


def moments(x):
    return Moments.empty(x.shape[1], x.dtype).update(x)


def forward(node, x):
    data = torch.from_numpy(np.asarray(x, np.float32)).reshape(1, len(x), 1, -1)
    return node(cube=data)["cube"].numpy().reshape(len(x), -1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_they_are_the_halves_of_a_standard_scaler(seed, channels):
    x = flat(scene(8, 5, channels, seed))
    centre, scale = MeanCenter(), UnitVarianceScaling()
    centre.fit(moments(x))
    scale.fit(moments(x))
    only_mean = StandardScaler(with_std=False).fit_transform(x)
    # scikit-learn divides by n, these by n - 1.
    only_std = StandardScaler(with_mean=False).fit_transform(x) * np.sqrt(1 - 1 / len(x))
    np.testing.assert_allclose(centre.affine()(x), only_mean, atol=1e-9)
    np.testing.assert_allclose(forward(centre, x), only_mean, atol=1e-3)
    np.testing.assert_allclose(scale.affine()(x), only_std, rtol=1e-10)
    np.testing.assert_allclose(forward(scale, x), only_std, rtol=1e-5)
    np.testing.assert_allclose(centre.mean_c, x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale.std_c, x.std(axis=0, ddof=1), rtol=1e-6)


def test_a_constant_channel_is_not_scaled():
    x = flat(scene())
    x[:, 3] = 7.0
    node = UnitVarianceScaling(name="scale")
    with pytest.warns(
        DataWarning, match=r"scale: channels \[3\] are constant; they are not scaled"
    ):
        node.fit(moments(x))
    assert (node.affine()(x)[:, 3] == 7.0).all()
    assert (forward(node, x)[:, 3] == 7.0).all()


def test_rx_behind_them_reads_no_pixels(tmp_path):
    cube = scene(40, 20)
    pipeline = chain(
        MeanCenter(name="centre"), UnitVarianceScaling(name="scale"),
        RXGlobal(name="rx", eps=0.1),
    )  # fmt: skip
    assert plan_fit(pipeline, STORED).passes == 0
    assert not pipeline.nodes["centre"]._initialized
    assert fit(pipeline, cube, stored=STORED).passes == 0
    x = flat(cube)
    standard = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    scores = run(pipeline, "rx.scores", cube=cube)
    np.testing.assert_allclose(scores.ravel(), mahalanobis(standard, eps=0.1), rtol=1e-5)
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    # What cuvis-ai goes by.
    for name in ("centre", "scale"):
        assert pipeline.nodes[name]._initialized.tolist() == [True]
        assert again.nodes[name]._initialized.tolist() == [True]
    np.testing.assert_array_equal(run(again, "rx.scores", cube=cube), scores)


@pytest.mark.parametrize(
    ("cls", "buffer"), [(MeanCenter, "mean_c"), (UnitVarianceScaling, "std_c")]
)
def test_weights_have_the_names_of_cuvis_ai(cls, buffer, tmp_path):
    node = cls(100, 3, name="n")
    assert node.hparams == {"max_fit_pixels": 100, "fit_seed": 3}
    shapes = {k: (tuple(v.shape), v.dtype) for k, v in node.state_dict().items()}
    assert shapes == {"_initialized": ((1,), torch.bool), buffer: ((0,), torch.float32)}
    # A file of cuvis-ai, fitted and not.
    values = torch.tensor([2.0, 4.0, 0.0])
    for flag, tensor in ((True, values), (False, torch.zeros(0))):
        state = {"_initialized": torch.tensor([flag]), buffer: tensor}
        torch.save({"state_dict": {"data": {}, "n": state}}, tmp_path / "w.pt")
        pipeline = chain(cls(name="n"))
        load_weights(pipeline, tmp_path / "w.pt")
        assert pipeline.nodes["n"].fitted is flag
    fitted = cls(name="n")
    fitted.mark_fitted(True)
    setattr(fitted, buffer, values)
    x = np.array([[1.0, 2.0, 3.0]])
    expected = {"mean_c": x - [2, 4, 0], "std_c": x / [2, 4, 1e-8]}[buffer]
    np.testing.assert_allclose(fitted.affine()(x), expected, rtol=1e-6)
    np.testing.assert_allclose(forward(fitted, x), expected, rtol=1e-6)


@pytest.mark.parametrize("cls", [MeanCenter, UnitVarianceScaling])
def test_not_fitted_is_an_error(cls):
    node = cls(name="n")
    for use in (node.affine, lambda: forward(node, np.zeros((1, 2)))):
        with pytest.raises(NotFittedError, match="'n' is not fitted"):
            use()
