"""The false-alarm rate that is asked for is the one that background gives, by its exact law."""

import numpy as np
import pytest
from scipy import stats

from hsi_batch.nodes import CFARThreshold
from hsi_batch.statistics.histogram import Histogram

PIXELS, BANDS = 300_000, 30
#: Laws of RX scores: Gaussian background, and a multivariate t of 8 degrees of freedom.
LAWS = {
    "gaussian": stats.chi2(BANDS),
    "heavy": stats.f(BANDS, 8, scale=BANDS),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("pfa", [1e-3, 1e-4, 1e-5])
def test_what_is_asked_for_is_achieved(law, pfa):
    achieved = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scores = LAWS[law].rvs((PIXELS, 1), random_state=rng).astype(np.float32)
        node = CFARThreshold(pfa, "auto", tail=0.01)
        node.fit(Histogram.empty(1, "float32").update(scores))
        achieved.append(LAWS[law].sf(node.hparams["threshold"]) / pfa)
    counted = PIXELS * pfa >= 100
    # Counting errs by 1 / sqrt(n pfa); a tail of 3000 scores is carried on with more.
    spread = 3.5 / np.sqrt(PIXELS * pfa) if counted else {1e-4: 0.75, 1e-5: 1.6}[pfa]
    assert np.exp(-spread) <= min(achieved)
    assert max(achieved) <= np.exp(spread)
    assert abs(np.log(np.median(achieved))) <= spread / 2
