"""Pictures of archives, pipelines and scores: functions that take and return matplotlib axes.

Each draws on the axes it is given (``ax``), or on those of a new figure, and returns them, so that
titles, limits and colours are changed with matplotlib. Nothing starts workers. Where a picture can
be made of what an archive or its scores keep beside the pixels, no pixel is read, and the docstring
says so.
"""

from hsi_batch.plots.cube_images import band, bands, false_color
from hsi_batch.plots.curves import precision_recall, roc, score_histogram
from hsi_batch.plots.matrices import correlation, covariance, eigen_spectrum
from hsi_batch.plots.overview import archive_overview
from hsi_batch.plots.score_images import score_map
from hsi_batch.plots.spectrum import spectra
from hsi_batch.plots.timeline import drift
from hsi_batch.plots.weights import channel_weights

__all__ = [
    "archive_overview",
    "band",
    "bands",
    "channel_weights",
    "correlation",
    "covariance",
    "drift",
    "eigen_spectrum",
    "false_color",
    "precision_recall",
    "roc",
    "score_histogram",
    "score_map",
    "spectra",
]
