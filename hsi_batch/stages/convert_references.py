"""White and dark references of scans: chosen, checked, averaged, kept with the session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from hsi_batch.archive.session import Session
from hsi_batch.archive.store import create_array
from hsi_batch.engine.carried import submit_carried
from hsi_batch.errors import ConfigError, PipelineError, SourceError
from hsi_batch.files import digest_of_file
from hsi_batch.readers.calibration import Calibration, ReferenceMean, mean_of_columns
from hsi_batch.readers.cropped import Crop
from hsi_batch.readers.protocol import SourceInfo
from hsi_batch.readers.references import Reference, find_references
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.convert_places import dead_columns, region_of
from hsi_batch.stages.convert_plan import ConvertOptions

__all__ = [
    "PreparedReferences",
    "ReferenceMeans",
    "SessionReferences",
    "as_calibrated",
    "calibration_of",
    "check_options",
    "choose_references",
    "write_references",
]

#: Means of references that are kept at once: one pair often serves a folder of scans.
_KEPT = 8
_SIBLING, _NONE = "sibling", "none"
#: Fields of headers that state the integration time; the same one must be in both files.
_EXPOSURES = ("tint", "integration time", "exposure time", "exposure")
#: Wavelengths of a reference that differ by no more than this are those of its scan.
_TOLERANCE_NM = 0.01


@dataclass(frozen=True)
class SessionReferences:
    """What a scan is calibrated with.

    Attributes
    ----------
    white : Reference
    dark : Reference, optional
        None for a dark signal of zero.
    panel : str, optional
        Reflectance of the white panel: a number, or a file with its spectrum.
    ratio : float
        Integration time of the white reference over that of the scan.
    files : tuple of str
        Every file of the references.
    notes : tuple of str
        What was assumed.
    """

    white: Reference
    dark: Reference | None
    panel: str | None
    ratio: float
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedReferences:
    """References, averaged: arrays of shape ``(x, channel)``, of the panel ``(channel,)``."""

    white: NDArray[np.float64]
    dark: NDArray[np.float64]
    bad: NDArray[np.bool_]
    panel: NDArray[np.float64]
    ratio: float
    attrs: Mapping[str, Any]

    @property
    def calibration(self) -> Calibration:
        """The map that they make."""
        return Calibration.of(self.white, self.dark, self.bad, panel=self.panel, ratio=self.ratio)


def check_options(options: ConvertOptions) -> None:
    """Refuse settings of references that cannot be meant.

    Raises
    ------
    hsi_batch.errors.ConfigError
        A file that is not there, one reference without the other, or a panel without a white
        reference.
    """
    if options.crop is not None:
        Crop.parse(options.crop)
    if options.roi is not None:
        region_of(options.roi)
    if options.dead_columns is not None:
        dead_columns(options.dead_columns)
    for option, given in (("white", options.white), ("dark", options.dark)):
        if given not in (_SIBLING, _NONE) and not Path(Reference.parse(given).path).exists():
            raise ConfigError(
                f"there is no such {option} reference.",
                path=given,
                hint=f"Name a file (FILE or FILE:FRAME), or write --{option} sibling or none.",
            )
    if options.white == _NONE:
        if options.dark not in (_SIBLING, _NONE):
            raise ConfigError(
                "a dark reference without a white one gives no reflectance.",
                path=options.dark,
                hint="Name the white reference too (--white FILE).",
            )
        if options.panel is not None:
            raise ConfigError(
                "the reflectance of a panel is of use only with a white reference.",
                hint="Name the white reference (--white FILE), or leave --panel out.",
            )
    if options.panel is not None and not _is_number(options.panel):
        if not Path(options.panel).exists():
            raise ConfigError(
                "there is no such spectrum of a panel.",
                path=options.panel,
                hint="Give a number such as 0.99, or a .csv, .sli, .yaml or .npz file.",
            )
    elif options.panel is not None and not 0 < float(options.panel) <= 2:
        raise ConfigError(
            f"the reflectance of the panel is {options.panel}; expected a number above 0, 1 being"
            " all light.",
            hint="Write 0.99 for 99 %.",
        )


def choose_references(
    path: str, info: SourceInfo, options: ConvertOptions
) -> SessionReferences | None:
    """The references of a scan, checked against it; None if it stays as recorded.

    Raises
    ------
    hsi_batch.errors.SourceError
        They do not fit the scan, one is missing, or it needs none.
    """
    named = {options.white, options.dark} - {_SIBLING, _NONE}
    if options.white == _NONE:
        return None
    if info.quantity not in (None, "dn") or info.mode is not None:
        if not named:
            return None
        what = info.quantity if info.mode is None else f"what the SDK made of it ({info.mode})"
        raise SourceError(
            f"it holds {what}, not counts; references would calibrate it twice.",
            path=path,
            hint="Convert it on its own, with --white none.",
        )
    sibling = find_references(path) if _SIBLING in (options.white, options.dark) else None
    white = _chosen(options.white, sibling and sibling.white)
    dark = _chosen(options.dark, sibling and sibling.dark)
    if white is None or (dark is None and options.dark != _NONE):
        if white is None and dark is None and not named:
            return None
        lacking, there = ("white", dark) if white is None else ("dark", white)
        if not named:
            # What lies beside it by chance must not stop a conversion, nor pass unseen.
            return SessionReferences(
                Reference(""), None, None, 1.0, (), (_half(str(there), lacking),)
            )
        raise SourceError(
            f"there is no {lacking} reference to go with {there}.",
            path=path,
            hint=f"Name it with --{lacking} FILE"
            + (", or write --dark none for a dark signal of zero." if lacking == "dark" else "."),
        )
    infos = {kind: _info(ref, options) for kind, ref in (("white", white), ("dark", dark)) if ref}
    for kind, other in infos.items():
        _check_fits(path, info, kind, other)
    ratio, notes = _ratio(info, infos["white"])
    files = tuple(dict.fromkeys(f for other in infos.values() for f in other.files))
    panel = options.panel
    if panel is not None and not _is_number(panel):
        files += (panel,)
    return SessionReferences(white, dark, panel, ratio, files, notes)


def _half(there: str, lacking: str) -> str:
    return (
        f"the reference {Path(there).name} lies beside it, but no {lacking} one: it is not"
        f" calibrated. Name it with --{lacking} FILE, or write --white none."
    )


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _chosen(given: str, sibling: str | None) -> Reference | None:
    if given == _NONE:
        return None
    if given == _SIBLING:
        return None if sibling is None else Reference(sibling)
    return Reference.parse(given)


def _info(reference: Reference, options: ConvertOptions) -> SourceInfo:
    with open_source(reference.path, mode=options.mode) as source:
        info = source.info
    if reference.frame is not None and not 0 <= reference.frame < info.frames:
        raise SourceError(
            f"frame {reference.frame} is asked for; the reference has {info.frames}.",
            path=reference.path,
            hint="Frames count from 0.",
        )
    return info


def _check_fits(path: str, info: SourceInfo, kind: str, other: SourceInfo) -> None:
    apart = 0.0
    if info.wavelength is not None and other.wavelength is not None:
        same = info.wavelength.shape == other.wavelength.shape
        apart = float(np.abs(info.wavelength - other.wavelength).max()) if same else 0.0
    if info.shape[1:] != other.shape[1:] or apart > _TOLERANCE_NM:
        mine, theirs = (f"{s[1]} columns x {s[2]} bands" for s in (info.shape, other.shape))
        far = f", wavelengths up to {apart:.3g} nm apart" if apart > _TOLERANCE_NM else ""
        raise SourceError(
            f"the {kind} reference {other.path} does not fit: it has {theirs}, the scan {mine}"
            f"{far}.",
            path=path,
            hint=f"Name the {kind} reference of this camera and binning (--{kind} FILE), or"
            " --white none to keep counts.",
        )


def _ratio(info: SourceInfo, white: SourceInfo) -> tuple[float, tuple[str, ...]]:
    for name in _EXPOSURES:
        mine, theirs = (_positive(i.metadata.get(name)) for i in (info, white))
        if mine is not None and theirs is not None:
            return theirs / mine, ()
        if mine is not None or theirs is not None:
            which = "scan" if theirs is None else "white reference"
            note = f"only one header states {name!r}; the {which} is taken to have the same"
            return 1.0, (f"{note} integration time.",)
    return 1.0, ()


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def as_calibrated(info: SourceInfo) -> SourceInfo:
    """What a source holds once it is calibrated: reflectance, 1 for a perfect panel."""
    return replace(
        info,
        dtype=np.dtype(np.float32),
        quantity="reflectance",
        units="1",
        scale=1.0,
        offset=0.0,
        nodata=None,
        saturation=None,
    )


class ReferenceMeans:
    """Averages references, on workers, each once.

    Parameters
    ----------
    client : distributed.Client
    options : ConvertOptions
    """

    def __init__(self, client: Client, options: ConvertOptions) -> None:
        self._client = client
        self._options = options
        self._known: OrderedDict[tuple[Any, ...], ReferenceMean] = OrderedDict()

    def of(self, references: SessionReferences, info: SourceInfo) -> PreparedReferences:
        """Averages of the references of a scan, cropped as it is.

        Parameters
        ----------
        references : SessionReferences
        info : SourceInfo
            Of the scan, cropped.
        """
        limit = info.saturation
        white = self._mean(references.white, limit)
        dark = None if references.dark is None else self._mean(references.dark, limit)
        chosen = slice(None)
        if self._options.crop is not None:
            chosen = Crop.parse(self._options.crop).columns(len(white.mean))
        bad = white.bad if dark is None else white.bad | dark.bad
        attrs = {
            "white": str(references.white),
            "dark": None if references.dark is None else str(references.dark),
            "panel": references.panel,
            "integration_time_ratio": references.ratio,
            "white_lines": white.lines,
            "dark_lines": 0 if dark is None else dark.lines,
            "sha256": {file: digest_of_file(file) for file in references.files},
            "formula": "(raw - dark) / (white - dark) x panel x integration_time_ratio",
            "nodata": info.nodata,
            "saturation": info.saturation,
        }
        return PreparedReferences(
            white.mean[chosen],
            np.zeros_like(white.mean[chosen]) if dark is None else dark.mean[chosen],
            bad[chosen],
            _panel(references.panel, info),
            references.ratio,
            attrs,
        )

    def _mean(self, reference: Reference, saturation: float | None) -> ReferenceMean:
        status = Path(reference.path).stat()
        key = (reference, saturation, status.st_size, status.st_mtime_ns)
        if key not in self._known:
            while len(self._known) >= _KEPT:
                self._known.popitem(last=False)
            self._known[key] = submit_carried(
                self._client, _averaged, reference, self._options.mode, saturation
            ).result()
        self._known.move_to_end(key)
        return self._known[key]


def _averaged(reference: Reference, mode: str | None, saturation: float | None) -> ReferenceMean:
    with open_source(reference.path, mode=mode) as source:
        return mean_of_columns(source, reference.frame, saturation)


def _panel(panel: str | None, info: SourceInfo) -> NDArray[np.float64]:
    channels = info.shape[2]
    if panel is None or _is_number(panel):
        return np.full(channels, 1.0 if panel is None else float(panel))
    from hsi_batch.nodes import ChannelAxis
    from hsi_batch.nodes.spectral_library import SpectralLibrary

    library = SpectralLibrary.read(panel)
    if len(library.names) != 1:
        raise PipelineError(
            f"the panel file holds {len(library.names)} spectra; one was expected.", path=panel
        )
    return np.asarray(library.on(ChannelAxis(channels, info.wavelength)).spectra[0])


def write_references(session: Session, prepared: PreparedReferences) -> None:
    """Keep the averaged references with a session, for workers and for whoever asks later."""
    arrays = {
        "white": (prepared.white, ("x", "channel"), "mean counts of the white reference"),
        "dark": (prepared.dark, ("x", "channel"), "mean counts of the dark reference"),
        "reference_bad": (prepared.bad, ("x", "channel"), "not finite or saturated"),
        "panel": (prepared.panel, ("channel",), "reflectance of the white panel"),
    }
    for name, (values, dims, words) in arrays.items():
        array = create_array(
            session.group,
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype.name,
            dims=dims,
            attrs={"long_name": words},
        )
        array[...] = values
    wrong = prepared.calibration.bad
    session.group.attrs["calibration"] = {**prepared.attrs, "bad_pixels": int(wrong.sum())}


def calibration_of(session: Session) -> Calibration | None:
    """The map that a session was, or is being, calibrated with; None for one that is raw."""
    told = session.attrs.get("calibration")
    if told is None:
        return None
    white, dark, bad, panel = (
        np.asarray(session.group[name][...])  # type: ignore[index]
        for name in ("white", "dark", "reference_bad", "panel")
    )
    return Calibration.of(
        white, dark, bad, panel=panel, ratio=float(told["integration_time_ratio"])
    )
