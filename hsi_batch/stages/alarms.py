"""The false-alarm rate that was asked for, beside the one that was achieved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import beta

from hsi_batch.stages.evaluation import Evaluation

__all__ = ["binomial_interval", "false_alarms", "requested_pfa"]


def requested_pfa(attrs: Mapping[str, Any]) -> float | None:
    """What the one threshold of a pipeline was asked for, from the attributes of its scores."""
    asked = [
        float(node["hparams"]["pfa"])
        for node in (attrs.get("pipeline") or {}).get("nodes", ())
        if node.get("class_name") == "CFARThreshold" and "pfa" in (node.get("hparams") or {})
    ]
    return asked[0] if len(asked) == 1 else None


def binomial_interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share by Clopper and Pearson (Biometrika 26, 1934).

    Examples
    --------
    >>> low, high = binomial_interval(0, 100)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0


def false_alarms(attrs: Mapping[str, Any], evaluation: Evaluation) -> str | None:
    """Requested against achieved, in words; None without a threshold for a rate, or labels."""
    requested, counts = requested_pfa(attrs), evaluation.confusion
    background = counts.false_positive + counts.true_negative
    if requested is None or not background:
        return None
    low, high = binomial_interval(counts.false_positive, background)
    return (
        f"requested {requested:g}, achieved {counts.false_positive / background:.3g}"
        f" ({low:.3g} to {high:.3g}) of {background} pixels labelled background"
    )
