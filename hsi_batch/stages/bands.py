"""Which bands of the recordings a fit uses, and in which units."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.archive.selection import Selection
from hsi_batch.archive.session import Session
from hsi_batch.archive.stored import has_statistics, stored_statistic
from hsi_batch.errors import ConfigError, PlanError
from hsi_batch.nodes import ChannelAxis, CU3SDataNode
from hsi_batch.nodes.view import STORED, View
from hsi_batch.pipeline.channels import TOLERANCE_NM
from hsi_batch.pipeline.pipeline import Pipeline

__all__ = [
    "BandChoice",
    "check_targets",
    "check_values",
    "chosen_view",
    "kept_by",
    "see",
    "values_of",
    "view_of",
]

#: Where water vapour of the air takes the light of the sun, in nm.
WATER = ((1340.0, 1450.0), (1790.0, 1970.0), (2450.0, np.inf))
_UNITS = {"nm": 1.0, "um": 1000.0}
_RANGE = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class BandChoice:
    """What a fit uses of a pixel.

    Attributes
    ----------
    bands : str
        ``good`` (not marked as bad by the source or by its references), ``all``, or ranges.
    exclude : str, optional
        Ranges, ``water`` (bands in which the air is opaque), ``constant`` (bands that hold one
        value in all valid pixels of a session), or several of these with commas.
    raw_values : bool, optional
        Nodes see stored values instead of physical ones. By default they do so in files of
        cuvis-ai, which knows no others.
    tolerance : float
        Nanometres that the channels of sessions may be apart.
    """

    bands: str = "good"
    exclude: str | None = None
    raw_values: bool | None = None
    tolerance: float = TOLERANCE_NM


def _terms(text: str) -> list[str]:
    return [term.strip() for term in text.split(",") if term.strip()]


def kept_by(text: str, axis: ChannelAxis) -> NDArray[np.bool_]:
    """The channels that ranges name.

    ``450-900nm`` and ``0.45-0.9um`` are wavelengths, both ends included; a unit holds for the
    ranges before it, too. Without one, numbers are those of channels: ``3,17,40-44``.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Not ranges, channels that do not exist, or wavelengths of recordings that state none.

    Examples
    --------
    >>> kept_by("450-500,650nm", ChannelAxis.of([450.0, 550.0, 650.0])).tolist()
    [True, False, True]
    """
    kept = np.zeros(axis.size, dtype=bool)
    unit = ""
    for term in reversed(_terms(text)):
        name = next((u for u in _UNITS if term.endswith(u)), "")
        unit = name or unit
        found = _RANGE.fullmatch(term.removesuffix(name).strip())
        if found is None:
            raise ConfigError(
                f"bands {term!r} in {text!r} are not known.",
                hint="Write ranges such as 450-900nm or 3,17,40-44, or good, all, water, constant.",
            )
        first = float(found[1])
        last = float(found[2] or found[1])
        if last < first:
            raise ConfigError(f"bands {term!r} run downwards.", hint="Write the lower end first.")
        kept |= _wave(first, last, unit, axis, text) if unit else _number(first, last, axis, text)
    return kept


def _wave(first: float, last: float, unit: str, axis: ChannelAxis, text: str) -> NDArray[np.bool_]:
    nm = _known(axis, text)
    low, high = first * _UNITS[unit], last * _UNITS[unit]
    if low == high:
        nearest = np.zeros(axis.size, dtype=bool)
        nearest[int(np.argmin(np.abs(nm - low)))] = True
        return nearest
    return np.asarray((nm >= low) & (nm <= high))


def _known(axis: ChannelAxis, text: str) -> NDArray[np.float64]:
    if axis.wavelength is None:
        raise ConfigError(
            f"bands {text!r} are wavelengths, and the recordings state none in known units.",
            hint="Add 'wavelength' and 'wavelength units' (Nanometers, Micrometers, ...) to their"
            " headers and convert again, or choose channels by number, for example 3,17,40-44.",
        )
    return axis.wavelength


def _number(first: float, last: float, axis: ChannelAxis, text: str) -> NDArray[np.bool_]:
    if last >= axis.size or first != int(first) or last != int(last):
        raise ConfigError(
            f"bands {text!r} name channel {last:g}; there are 0 to {axis.size - 1}.",
            hint="Write wavelengths with their unit: 1350-1450nm.",
        )
    kept = np.zeros(axis.size, dtype=bool)
    kept[int(first) : int(last) + 1] = True
    return kept


def view_of(
    pipeline: Pipeline,
    choice: BandChoice,
    sessions: Mapping[str, Session],
    selection: Selection,
    axis: ChannelAxis,
) -> View:
    """What the data node of a fit hands on; nothing is read but stored statistics.

    Raises
    ------
    hsi_batch.errors.ConfigError
        Bands that are not known, or no band is left.
    """
    marks = [s.good_band for s in sessions.values() if s.good_band is not None]
    first = next(iter(sessions.values())).attrs
    return chosen_view(
        pipeline, choice, marks, axis, first, lambda: _constant(sessions, selection, axis)
    )


def chosen_view(
    pipeline: Pipeline,
    choice: BandChoice,
    marks: list[NDArray[np.bool_]],
    axis: ChannelAxis,
    attrs: Mapping[Any, Any],
    constant: Callable[[], NDArray[np.bool_]] | None = None,
) -> View:
    """As :func:`view_of`, from the marks of good bands and the attributes of what is fitted.

    ``constant`` tells which bands are constant.
    """
    kept = _chosen(choice.bands, marks, axis)
    for term in _terms(choice.exclude or ""):
        if term == "constant" and constant is not None:
            kept &= ~constant()
        else:
            kept &= ~_excluded(term, choice, axis)
    if not kept.any():
        raise ConfigError(
            f"no band is left of {axis.size} (bands {choice.bands}, without"
            f" {choice.exclude or 'any exclusion'}).",
            hint="Choose more (--bands all), or exclude less.",
        )
    raw = pipeline.lenient if choice.raw_values is None else choice.raw_values
    scale = 1.0 if raw else float(attrs.get("scale") or 1.0)
    return View.of(kept, scale, 0.0 if raw else float(attrs.get("offset") or 0.0))


def _chosen(bands: str, good: list[NDArray[np.bool_]], axis: ChannelAxis) -> NDArray[np.bool_]:
    kept = np.ones(axis.size, dtype=bool)
    if bands == "good":
        for marks in good:
            kept &= marks
        if not kept.any():
            raise ConfigError(
                "every band is marked as bad by one of the recordings.",
                hint="Use them all (--bands all), or select recordings that agree.",
            )
        return kept
    return kept if bands == "all" else kept_by(bands, axis)


def _excluded(term: str, choice: BandChoice, axis: ChannelAxis) -> NDArray[np.bool_]:
    if term == "water":
        nm = _known(axis, term)
        return np.asarray(np.any([(nm >= low) & (nm <= high) for low, high in WATER], axis=0))
    # A unit at the end holds for all ranges.
    terms = [t for t in _terms(choice.exclude or "") if t not in ("water", "constant")]
    unit = next((u for u in _UNITS if terms[-1].endswith(u)), "")
    has_unit = any(term.endswith(u) for u in _UNITS)
    return kept_by(term if has_unit else term + unit, axis)


def _constant(
    sessions: Mapping[str, Session], selection: Selection, axis: ChannelAxis
) -> NDArray[np.bool_]:
    """Bands that hold one value over a session, from what conversion left."""
    constant = np.zeros(axis.size, dtype=bool)
    for name, session in sessions.items():
        own = Selection({name: selection.frames[name]}, selection.whole & {name})
        if not has_statistics({name: session}, own, "extrema", "valid"):
            raise ConfigError(
                f"constant bands are known of whole frames, and parts of session {name} are"
                " selected.",
                hint="Select whole frames, or name the bands (--exclude-bands 1350-1450nm).",
            )
        found = stored_statistic({name: session}, own, "extrema", "valid")
        if found is not None and found.count:
            constant |= found.low == found.high
    return constant


def see(pipeline: Pipeline, view: View) -> None:
    """Let the data node of a pipeline hand on a view.

    Raises
    ------
    hsi_batch.errors.PlanError
        A data node of another package, which hands on what is stored.
    """
    node = pipeline.source
    if isinstance(node, CU3SDataNode):
        node.see(view)
    elif view != STORED and view.channels is not None:
        raise PlanError(
            f"{node.name} ({type(node).__name__}) hands on all bands; it cannot leave any out.",
            hint="Use them all (--bands all), or a data node of hsi_batch.",
        )


def values_of(
    pipeline: Pipeline, sessions: Mapping[str, Session], tolerance: float
) -> dict[str, Any]:
    """What the numbers of a fit are, for its provenance."""
    first = next(iter(sessions.values())).attrs
    node = pipeline.source
    view = node.view if isinstance(node, CU3SDataNode) else STORED
    return {
        "quantity": first.get("quantity"),
        "units": first.get("units"),
        "scale": float(first.get("scale") or 1.0),
        "offset": float(first.get("offset") or 0.0),
        "channels": view.channels,
        "tolerance_nm": tolerance,
    }


def check_targets(pipeline: Pipeline, sessions: Mapping[str, Session]) -> None:
    """Refuse targets that are another quantity than what the nodes see.

    Raises
    ------
    hsi_batch.errors.PlanError
        A library of reflectance for counts, or the like.
    """
    first = next(iter(sessions.values())).attrs
    quantity = first.get("quantity")
    scaled = float(first.get("scale") or 1.0) != 1.0 or bool(first.get("offset"))
    node = pipeline.source
    stored = isinstance(node, CU3SDataNode) and node.view.scale == 1.0 and not node.view.offset
    for name, other in pipeline.nodes.items():
        theirs = getattr(other, "target_quantity", None)
        if theirs is None:
            continue
        if quantity is not None and quantity != theirs:
            raise PlanError(
                f"{name}: the targets are {theirs}, the recordings hold {quantity}.",
                hint="Convert counts with their references (convert --white --dark), or give"
                f" targets in {quantity}.",
            )
        if stored and scaled:
            raise PlanError(
                f"{name}: the targets are {theirs}, and the nodes see stored values, which are"
                f" {1 / float(first.get('scale') or 1.0):g} times as large.",
                hint="Let nodes see physical values (--physical-values).",
            )


def check_values(pipeline: Pipeline, sessions: Mapping[str, Session]) -> None:
    """Refuse to score numbers that mean something else than those of the fit.

    Raises
    ------
    hsi_batch.errors.PlanError
        Sessions whose quantity, scale or offset is another.
    """
    fitted = pipeline.provenance.get("values")
    if not fitted:
        return
    for name, session in sessions.items():
        own = {
            "quantity": session.attrs.get("quantity"),
            "scale": float(session.attrs.get("scale") or 1.0),
            "offset": float(session.attrs.get("offset") or 0.0),
        }
        for key, value in own.items():
            if value != fitted[key]:
                raise PlanError(
                    f"session {name} differs in {key} from what the pipeline {pipeline.name!r} was"
                    f" fitted on ({value} against {fitted[key]}).",
                    hint="Fit the pipeline on sessions of this kind, or convert these alike"
                    " (convert --white, --quantity).",
                )
