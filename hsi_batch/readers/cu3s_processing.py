"""The processing modes of the Cuvis SDK, and the one context of a recording that computes cubes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hsi_batch.errors import ConfigError, SourceError, did_you_mean
from hsi_batch.readers.cuvis_sdk import Sdk
from hsi_batch.readers.protocol import Quantity

__all__ = ["MODES", "RAW", "STORED", "Mode", "Processing", "parse_mode"]

#: Kinds of reference measurement that a recording can carry.
_KINDS = ("Dark", "White", "WhiteDark", "SpRad", "Distance")


@dataclass(frozen=True)
class Mode:
    """One way of turning raw data into a cube.

    Attributes
    ----------
    name : str
        As in ``cuvis.ProcessingMode``.
    quantity : {"dn", "reflectance", "radiance"}, optional
        What the numbers are.
    references : tuple of str
        Which references the SDK's documentation asks for. Cameras differ (some have more in their
        factory calibration, spectral radiance also needs SpRad), so the SDK has the last word.
    """

    name: str
    quantity: Quantity | None
    references: tuple[str, ...] = ()


RAW = Mode("Raw", "dn")
#: Cubes as the file holds them; what they are, each frame says.
STORED = Mode("stored", None)
#: The modes of the SDK by name. Its Preview makes a picture and, as documented, no cube.
MODES = {
    mode.name: mode
    for mode in (
        RAW,
        Mode("DarkSubtract", "dn", ("Dark",)),
        Mode("Reflectance", "reflectance", ("White", "Dark")),
        Mode("SpectralRadiance", "radiance", ("Dark",)),
        Mode("Preview", None),
    )
}


def parse_mode(name: str | None, references: Collection[str] = ()) -> Mode:
    """Find a mode by name, whatever its case; None is Reflectance.

    Parameters
    ----------
    name : str, optional
        A key of :data:`MODES`, or ``stored``.
    references : collection of str
        Kinds of reference that the user gives as files.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The mode is unknown, or uses none of the given references.

    Examples
    --------
    >>> parse_mode("reflectance").name
    'Reflectance'
    """
    known = {mode.name.lower(): mode for mode in (*MODES.values(), STORED)}
    mode = MODES["Reflectance"] if name is None else known.get(name.lower())
    if mode is None:
        names = [known_mode.name for known_mode in known.values()]
        raise ConfigError(
            f"{name!r} is not a processing mode of .cu3s recordings; there are {', '.join(names)}.",
            hint=did_you_mean(str(name), names).strip() or None,
        )
    if references and not mode.references:
        raise ConfigError(
            f"{' and '.join(references)} reference files are given, but mode {mode.name} uses"
            " none.",
            hint="Leave them out, or choose another mode.",
        )
    return mode


class Processing:
    """The processing context of a recording, set to one mode before it is used.

    Left alone, a context computes in whatever mode the library takes for its default. A second one
    costs seconds and memory, so there is never more than this one for a recording.

    Parameters
    ----------
    sdk : Sdk
        The started SDK.
    session : cuvis.SessionFile
        The recording.
    path : str
        Its file, for errors.
    mode : Mode
        One of :data:`MODES`.
    files : mapping of str
        Recordings whose first frame replaces a reference, by kind (``White``, ``Dark``).
    """

    def __init__(
        self, sdk: Sdk, session: Any, path: str, mode: Mode, files: Mapping[str, str]
    ) -> None:
        self.mode = mode
        self._sdk = sdk
        self._session = session
        self._path = path
        self._files = dict(files)
        self._replaced: list[Any] = []
        self._checked = False
        cuvis = sdk.cuvis
        self._context = sdk.call("set up processing", cuvis.ProcessingContext, session, path=path)
        for kind, file in self._files.items():
            self._replace(kind, file)
        arguments = self._arguments(mode)
        sdk.call("set the mode", self._context.set_processing_args, arguments, path=path)

    def apply(self, measurement: Any, frame: int) -> None:
        """Compute the cube of a ``cuvis.Measurement`` in place.

        Raises
        ------
        hsi_batch.errors.SourceError
            Without ``frame`` if the recording lacks a reference that the mode needs, else of this
            frame.
        """
        if not self._checked:
            self._check_references(measurement)
            self._checked = True
        # Drops copies of what the file holds ready, so that one cube lies beside the SDK's own.
        measurement.data = {}
        self._sdk.call(
            f"process the frame to {self.mode.name}",
            self._context.apply,
            measurement,
            path=self._path,
            frame=frame,
        )
        made = measurement.processing_mode.name
        if made != self.mode.name:
            raise SourceError(
                f"asked for {self.mode.name}, the Cuvis SDK made {made}.",
                path=self._path,
                frame=frame,
                hint="Choose another mode, or look at the SDK's version.",
            )

    def references(self) -> dict[str, str]:
        """Where each reference of the context is from: a file, or the ``"recording"``."""
        return {
            kind: self._files.get(kind, "recording") for kind in _KINDS if self._has_reference(kind)
        }

    def _replace(self, kind: str, file: str) -> None:
        cuvis, call = self._sdk.cuvis, self._sdk.call
        session = call("open the reference", cuvis.SessionFile, file, path=file)
        reference = call("read the reference", session.get_measurement, 0, path=file)
        if reference is None:
            raise SourceError(
                "the first frame of the reference was dropped.",
                path=file,
                hint="Record the reference again.",
            )
        reference.data = {}  # copies of its images, of no use here
        self._replaced.append(reference)
        call(
            f"use it as {kind} reference",
            self._context.set_reference,
            reference,
            cuvis.ReferenceType[kind],
            path=file,
        )

    def _arguments(self, mode: Mode) -> Any:
        cuvis = self._sdk.cuvis
        return cuvis.ProcessingArgs(processing_mode=cuvis.ProcessingMode[mode.name])

    def _check_references(self, measurement: Any) -> None:
        """Refuse the recording if the mode is impossible: now, and not at each of its frames."""
        if not self.mode.references or self._capable(measurement, self.mode):
            return
        found = [kind for kind in _KINDS if self._has_reference(kind, search=True)]
        missing = [kind for kind in self.mode.references if kind not in found]
        if not missing:  # then the SDK has other reasons, and will give them
            return
        modes = [mode for mode in MODES.values() if mode.quantity is not None]
        possible = [mode.name for mode in modes if self._capable(measurement, mode)]
        raise SourceError(
            f"mode {self.mode.name} needs a {' and a '.join(missing)} reference, which the "
            f"recording lacks (it has {', '.join(found) or 'none'}).",
            path=self._path,
            hint=f"Modes that are possible: {', '.join([*possible, STORED.name])}.",
        )

    def _capable(self, measurement: Any, mode: Mode) -> bool:
        """Whether the SDK can compute ``mode``; it alone sees references within the frame."""
        return bool(self._sdk.ask(self._context.is_capable, measurement, self._arguments(mode)))

    def _has_reference(self, kind: str, *, search: bool = False) -> bool:
        reference = self._sdk.cuvis.ReferenceType[kind]
        if self._sdk.ask(self._context.has_reference, reference):
            return True
        return search and self._sdk.ask(self._session.get_reference, 0, reference) is not None
