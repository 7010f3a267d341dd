"""Mergeable statistics of spectra: numpy only; knows no dask, torch or zarr.

Each statistic is a value object: ``empty`` is the identity, ``update`` absorbs ``(n, channel)``
pixels, ``merge`` is associative, ``to_arrays`` and ``from_arrays`` reach the disk and back.
"""

from hsi_batch.statistics.affine import Affine
from hsi_batch.statistics.extrema import Extrema
from hsi_batch.statistics.float_histogram import FloatHistogram
from hsi_batch.statistics.float_moments import FloatMoments
from hsi_batch.statistics.histogram import Histogram, IntegerHistogram
from hsi_batch.statistics.integer_moments import IntegerMoments
from hsi_batch.statistics.measure import Measure
from hsi_batch.statistics.moments import Moments
from hsi_batch.statistics.ranking import Confusion, RocCurve, roc_curve
from hsi_batch.statistics.tree import Bundle, Forest

__all__ = [
    "Affine",
    "Bundle",
    "Confusion",
    "Extrema",
    "FloatHistogram",
    "FloatMoments",
    "Forest",
    "Histogram",
    "IntegerHistogram",
    "IntegerMoments",
    "Measure",
    "Moments",
    "RocCurve",
    "roc_curve",
]
