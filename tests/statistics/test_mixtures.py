"""Sums of mixtures: any split gives those of all pixels."""

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_strategies import groupings, merged_in_groups, seeded_pixels, splits
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from hsi_batch.statistics.mixtures import Mixture, MixtureMeasure, MixtureSums


def mixture_of(rng, pixels, clusters):
    x = pixels.astype(np.float64)
    spread = max(float(np.ptp(x)), 1.0)
    channels = x.shape[1]
    means = x.min() + rng.uniform(0, spread, (clusters, channels))
    mixing = rng.normal(size=(clusters, channels, channels))
    covariances = (mixing @ np.swapaxes(mixing, 1, 2) + np.eye(channels)) * (spread / 3) ** 2
    weights = rng.dirichlet(np.ones(clusters))
    return Mixture.of(weights, means, covariances), covariances


@settings(max_examples=25)
@given(
    st.data(),
    seeded_pixels(dtypes=("uint8", "uint16", "float32"), count=st.integers(1, 200)),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_sums_are_those_of_all_pixels(data, pixels, clusters, seed):
    mixture, covariances = mixture_of(np.random.default_rng(seed), pixels, clusters)
    parts = [MixtureSums.of(pixels[part], mixture) for part in data.draw(splits(len(pixels)))]
    merged = merged_in_groups(parts, data.draw(groupings(len(parts))))
    x = pixels.astype(np.float64)
    each = np.array(
        [
            multivariate_normal(mean, cov, allow_singular=True).logpdf(x) + np.log(weight)
            for weight, mean, cov in zip(mixture.weights, mixture.means, covariances, strict=True)
        ]
    ).reshape(clusters, len(x))
    total = np.logaddexp.reduce(each, axis=0)
    shares = np.exp(each - total)
    apart = x[None] - mixture.means[:, None]
    size = max(float(np.abs(apart).max()), 1.0)
    assert merged.count == len(x)
    np.testing.assert_allclose(merged.likelihood, total.sum(), rtol=1e-7)
    np.testing.assert_allclose(merged.totals, shares.sum(axis=1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        merged.sums, np.einsum("kn,knc->kc", shares, apart), rtol=1e-6, atol=1e-6 * size
    )
    np.testing.assert_allclose(
        merged.squares,
        np.einsum("kn,knc,knd->kcd", shares, apart, apart),
        rtol=1e-6,
        atol=1e-6 * size**2,
    )


def test_a_step_is_that_of_scikit_learn():
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(0, 1, (300, 3)), rng.normal(3, 2, (200, 3))])
    mixture, _ = mixture_of(rng, x, 2)
    model = GaussianMixture(
        2,
        weights_init=mixture.weights,
        means_init=mixture.means,
        precisions_init=mixture.factors @ np.swapaxes(mixture.factors, 1, 2),
        max_iter=1,
        tol=0,
        reg_covar=1e-4,
        init_params="random",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x)
    sums = MixtureMeasure(mixture).of(x.reshape(10, 50, 3), None, None)
    found = sums.mixture(mixture, 1e-4)
    np.testing.assert_allclose(found.weights, model.weights_, rtol=1e-10)
    np.testing.assert_allclose(found.means, model.means_, rtol=1e-10)
    np.testing.assert_allclose(found.factors, model.precisions_cholesky_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.shares(x)[1], model.score_samples(x), rtol=1e-10)


def test_what_is_not_valid_is_left_out():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 6, 2))
    mixture, _ = mixture_of(rng, x.reshape(-1, 2), 2)
    valid = rng.random((4, 6)) < 0.6
    dark = x.copy()
    dark[~valid] = np.nan
    a = MixtureMeasure(mixture).of(x, valid, None)
    b = MixtureMeasure(mixture).of(dark, None, None)
    assert a.count == b.count == valid.sum()
    np.testing.assert_array_equal(a.squares, b.squares)
    again, _ = mixture_of(rng, x.reshape(-1, 2), 2)
    assert MixtureMeasure(mixture) == MixtureMeasure(mixture)
    assert MixtureMeasure(mixture) != MixtureMeasure(again)
