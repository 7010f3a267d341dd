"""The method ``auto`` of CFARThreshold is the one of its two that there are scores for."""

import numpy as np
import pytest

from hsi_batch.nodes import CFARThreshold
from hsi_batch.statistics.histogram import Histogram


@pytest.mark.parametrize(("pixels", "method"), [(200_000, "empirical"), (20_000, "gpd")])
def test_auto_takes_the_method_that_there_are_scores_for(pixels, method):
    scores = np.random.default_rng(0).chisquare(10, (pixels, 1)).astype(np.float32)
    auto, known = (CFARThreshold(1e-3, m, tail=0.05, name="cfar") for m in ("auto", method))
    for node in (auto, known):
        node.fit(Histogram.empty(1, "float32").update(scores))
    assert auto.hparams["threshold"] == known.hparams["threshold"]
    assert auto.in_words() == known.in_words()
