"""How far the sessions of an archive have moved from what a pipeline was fitted on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.archive import Archive
from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import PixelChoice, Session
from hsi_batch.archive.stored import has_statistics, stored_statistic
from hsi_batch.errors import ConfigError
from hsi_batch.nodes.gaussian import covariance_rank, eigh
from hsi_batch.pipeline.channels import differ, tolerance_of
from hsi_batch.pipeline.groups import group_of
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.pipeline.reference import Reference
from hsi_batch.stages.agreement import axis_of
from hsi_batch.statistics import Moments

__all__ = ["DriftResult", "Moved", "SessionDrift", "drift", "moved"]


@dataclass(frozen=True)
class Moved:
    """How far pixels have moved from those of a fit.

    With mean ``m0`` and covariance ``S0`` of the fit, mean ``m`` and covariance ``S`` of the new
    pixels, and the eigenvalues ``l_i`` of ``S0^-1 S`` (in the directions in which the fit varies).

    Attributes
    ----------
    shift : float
        Mahalanobis distance of the means, ``sqrt((m - m0)^T S0^-1 (m - m0))``.
    divergence : float, optional
        Symmetrised Kullback-Leibler divergence of the Gaussians of both covariances with equal
        means, ``sum(l_i + 1 / l_i - 2) / 2`` nats; 0 if they are equal. None if the new pixels
        vary in fewer directions.
    inflation : float
        Mean squared Mahalanobis distance of the new pixels over that of the fit,
        ``(sum l_i + shift^2) / rank``; the mean RX score grows by this factor.
    channel : int
        The channel whose mean moved most, in its standard deviations.
    channel_shift : float, optional
        By how many; None if it was constant in the fit.
    """

    shift: float
    divergence: float | None
    inflation: float
    channel: int
    channel_shift: float | None


@dataclass(frozen=True)
class SessionDrift:
    """One session.

    Attributes
    ----------
    session : str
    frames, pixels : int
        Selected frames, and their pixels that count.
    moved : Moved, optional
        None if it cannot be told.
    wavelength : float, optional
        Of ``moved.channel``, in nm.
    reason : str
        Why it cannot be told.
    against : str, optional
        The background it is compared with, of a pipeline that holds several.
    """

    session: str
    frames: int
    pixels: int = 0
    moved: Moved | None = None
    wavelength: float | None = None
    reason: str = ""
    against: str | None = None

    def __str__(self) -> str:
        if self.moved is None:
            return f"{self.session}: not known: {self.reason}"
        found = self.moved
        shape = "not comparable" if found.divergence is None else f"{found.divergence:.3g} nats"
        band = f"channel {found.channel}"
        if self.wavelength is not None:
            band += f" ({self.wavelength:g} nm)"
        by = (
            "was constant"
            if found.channel_shift is None
            else f"by {found.channel_shift:+.2f} standard deviations"
        )
        against = "" if self.against in (None, self.session) else f" (against {self.against})"
        return (
            f"{self.session}{against}: mean moved {found.shift:.3g}, covariance {shape},"
            f" mean score x {found.inflation:.3g}; most in {band}, {by}"
        )


@dataclass(frozen=True)
class DriftResult:
    """All sessions.

    Attributes
    ----------
    sessions : tuple of SessionDrift
    fitted_on : mapping
        Date, archive, selection and number of pixels of the fit.
    """

    sessions: tuple[SessionDrift, ...]
    fitted_on: Mapping[str, Any]

    def __str__(self) -> str:
        known = self.fitted_on
        head = f"against {known.get('pixel_count', 0)} pixels of the fit"
        if known.get("date"):
            head += f" of {known['date']}"
        if known.get("groups"):
            head += f", {known['groups']} backgrounds, one per {known['background']}"
        return "\n".join([head, *(f"  {session}" for session in self.sessions)])


def drift(
    pipeline: Pipeline | str | os.PathLike[str],
    archive: Archive | str | os.PathLike[str],
    *,
    frames: str | Sequence[str] | None = None,
) -> DriftResult:
    """Compare the sessions of an archive with what a pipeline was fitted on; reads no pixels.

    All channels as recorded are compared, also those that the pipeline drops, over the same kind of
    pixels as in the fit (all valid ones where a session has no labels). With one background per
    session, sensor or attribute, each session is compared with what it would be scored against.

    Parameters
    ----------
    pipeline : Pipeline or path
        Fitted by this version or a later one.
    archive : Archive or path
    frames : str or sequence of str, optional
        Selection; everything by default.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The file does not say what the pipeline was fitted on.

    Examples
    --------
    >>> print(drift("fitted.yaml", "archive.zarr"))  # doctest: +SKIP
    """
    path = None if isinstance(pipeline, Pipeline) else os.fspath(pipeline)
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_yaml(pipeline)
    if not isinstance(archive, Archive):
        archive = Archive(archive)
    groups = pipeline.groups
    known = list(groups.states.values())[:1] if groups is not None else [pipeline]
    if any(each.reference is None for each in known):
        raise ConfigError(
            f"it is not known what the pipeline {pipeline.name!r} was fitted on: the weights hold"
            " no moments of the pixels.",
            path=path,
            hint="Fit it with hsi-batch fit on an archive that holds statistics.",
        )
    chosen = archive.select(frames)
    provenance = pipeline.provenance
    kept = (
        "background",
        "groups",
        "date",
        "archive",
        "selection",
        "pixel_count",
        "pixels",
        "software",
    )
    return DriftResult(
        tuple(_one(pipeline, archive.session(name), chosen) for name in chosen.sessions),
        {key: provenance[key] for key in kept if key in provenance},
    )


def _against(pipeline: Pipeline, session: Session) -> tuple[Reference | None, str | None, str]:
    """What a session is compared with, its name if there are several, and why there is none."""
    groups = pipeline.groups
    if groups is None:
        return pipeline.reference, None, ""
    own = group_of(groups.by, session.name, session.attrs)
    state = None if own is None else groups.find(own)
    if state is None:
        lacks = f"it states no {groups.by.removeprefix('attr:')!r}" if own is None else repr(own)
        return None, None, f"the pipeline has no background for it ({lacks})."
    found = groups.states[state].reference if state else pipeline.reference
    return found, state or groups.fallback, "the fit had no moments of its background."


def _one(pipeline: Pipeline, session: Session, chosen: Selection) -> SessionDrift:
    name = session.name
    frames = chosen.frames[name]
    axis = axis_of(session)
    reference, against, why_none = _against(pipeline, session)
    if reference is None:
        return SessionDrift(name, len(frames), reason=why_none)
    why = None if pipeline.axis is None else differ(pipeline.axis, axis, tolerance_of(pipeline))
    if why is not None or axis.size != len(reference.mean):
        why = why or f"{axis.size} channels against {len(reference.mean)}"
        return SessionDrift(name, len(frames), reason=f"other channels than in the fit: {why}.")
    wanted: PixelChoice = pipeline.provenance.get("pixels", "valid")
    pixels: PixelChoice = wanted if session.labelled else "valid"
    own = Selection({name: frames}, chosen.whole & {name}, name)
    sessions = {name: session}
    if not has_statistics(sessions, own, "moments", pixels):
        return SessionDrift(
            name, len(frames), reason="the archive holds no statistics of these frames alone."
        )
    found: Moments | None = stored_statistic(sessions, own, "moments", pixels)
    if found is None or found.count < 2:
        return SessionDrift(name, len(frames), reason="fewer than 2 valid pixels.")
    result = moved(reference, found.mean, found.covariance())
    wavelength = None if axis.wavelength is None else float(axis.wavelength[result.channel])
    return SessionDrift(name, len(frames), found.count, result, wavelength, against=against)


def moved(
    reference: Reference, mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> Moved:
    """Compare a mean ``(C,)`` and a covariance ``(C, C)`` with those of a fit.

    Examples
    --------
    >>> fit = Reference(100, np.zeros(2), np.diag([1.0, 4.0]))
    >>> moved(fit, np.array([0.0, 2.0]), np.diag([1.0, 4.0]))
    Moved(shift=1.0, divergence=0.0, inflation=1.5, channel=1, channel_shift=1.0)
    """
    values, vectors = eigh(reference.covariance)
    rank = max(covariance_rank(values), 1)
    if values[0] <= 0:
        raise ConfigError(
            "the pixels of the fit did not vary at all.", hint="Fit on pixels that differ."
        )
    factor = vectors[:rank] / np.sqrt(values[:rank])[:, None]
    away = mean - reference.mean
    shift = float(np.linalg.norm(factor @ away))
    ratios, _ = eigh(factor @ covariance @ factor.T)
    comparable = covariance_rank(ratios) == rank
    divergence = float(np.sum(ratios + 1 / ratios - 2) / 2) if comparable else None
    deviation = np.sqrt(np.clip(np.diagonal(reference.covariance), 0.0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(away == 0, 0.0, away / deviation)
    channel = int(np.argmax(np.abs(steps)))
    step = float(steps[channel])
    return Moved(
        shift,
        divergence,
        float((np.clip(ratios, 0.0, None).sum() + shift**2) / rank),
        channel,
        step if np.isfinite(step) else None,
    )
