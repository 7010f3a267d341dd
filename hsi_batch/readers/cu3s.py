"""Cubert ``.cu3s`` recordings, read through the vendor's ``cuvis`` package and library.

A recording holds raw frames; the cube of a frame is computed by the SDK in a processing mode, and
only for the frame as a whole. Importing this module needs neither the package nor the library.
"""

from __future__ import annotations

import operator
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import SourceError
from hsi_batch.files import Closing
from hsi_batch.readers.cu3s_metadata import frame_info, frame_metadata, session_metadata
from hsi_batch.readers.cu3s_processing import MODES, RAW, STORED, Mode, Processing, parse_mode
from hsi_batch.readers.cuvis_sdk import load_sdk
from hsi_batch.readers.protocol import FrameInfo, SourceInfo
from hsi_batch.readers.reference_names import reference_reason

__all__ = ["Cu3sFrame", "Cu3sReader", "Cu3sSource"]

#: The four formats of the SDK's image buffer.
_DTYPES = frozenset(map(np.dtype, (np.uint8, np.uint16, np.uint32, np.float32)))

#: How many unreadable frames are tried before a recording is given up at opening.
_PROBES = 32


class Cu3sReader:
    """The ``.cu3s`` format.

    Parameters
    ----------
    white, dark : str, optional
        Recordings whose first frame is the white or dark reference, in place of what the
        recordings carry themselves.
    """

    name = "cu3s"
    suffixes = (".cu3s",)

    def __init__(self, white: str | None = None, dark: str | None = None) -> None:
        given = {"White": white, "Dark": dark}
        self._references = {kind: os.fspath(p) for kind, p in given.items() if p is not None}

    def skip_reason(self, path: str) -> str | None:
        """Say so if the name is that of a white or dark reference; the file is not opened."""
        return reference_reason(Path(path).stem)

    def open(self, path: str, *, mode: str | None = None) -> Cu3sSource:
        """Open a recording and compute its first frame.

        Parameters
        ----------
        path : str
            A ``.cu3s`` file.
        mode : str, optional
            ``Raw, DarkSubtract, Reflectance, SpectralRadiance`` or ``Preview``: every cube is
            computed in this mode, whatever the file holds ready. ``stored``: cubes as they are in
            the file, raw ones where it has none. None is ``Reflectance``.

        Raises
        ------
        hsi_batch.errors.ConfigError
            There is no such mode.
        hsi_batch.errors.SdkMissingError
            The package or the library is not there.
        hsi_batch.errors.SourceError
            The file cannot be read, or lacks the references that the mode needs.
        """
        path = os.fspath(path)
        wanted = parse_mode(mode, self._references)
        for file in (path, *self._references.values()):
            _check_file(file)
        try:
            return Cu3sSource(path, wanted, self._references)
        except SourceError as error:
            # The traceback would keep handles of the SDK alive for as long as the error is kept.
            raise error.with_traceback(None) from None


class Cu3sFrame:
    """One computed cube; nothing of the SDK is behind it any more.

    Attributes
    ----------
    info : FrameInfo
        Time, number and exposure.
    """

    def __init__(self, cube: NDArray[Any], info: FrameInfo) -> None:
        self._cube = cube
        self.info = info

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Lines ``start:stop`` as a new C-contiguous ``(lines, x, channel)`` array."""
        lines = self._cube.shape[0]
        if not 0 <= start <= stop <= lines:
            raise ValueError(f"lines {start}:{stop} are not within 0:{lines}")
        return self._cube[start:stop].copy()


class _Measured(NamedTuple):
    """What the SDK delivered for one frame, free of its handles."""

    cube: NDArray[Any]
    wavelength: NDArray[np.float64] | None
    mode: str
    info: FrameInfo
    metadata: dict[str, Any]


class Cu3sSource(Closing):
    """An opened recording: one session handle, at most one processing context.

    Threads may share it; they take turns, because the SDK does not promise to serve two at once.
    It cannot be sent to another process: send the path.

    Attributes
    ----------
    info : SourceInfo
        From the session and its first readable frame.
    """

    def __init__(self, path: str, mode: Mode, references: dict[str, str]) -> None:
        self._path = path
        self._mode = mode
        self._references = references
        self._sdk = load_sdk(path)
        self._lock = threading.Lock()
        self._session: Any = None
        self._processing: Processing | None = None
        try:
            self.info = self._open()
        except BaseException:
            self.close()
            raise

    def frame(self, index: SupportsIndex) -> Cu3sFrame:
        """Compute frame ``index``, counted without the dropped ones.

        Raises
        ------
        hsi_batch.errors.SourceError
            It cannot be read, or differs from :attr:`info` in shape, dtype, channels or mode.
        """
        number = int(operator.index(index))  # the wrapper refuses the integers of numpy
        with self._lock:
            if self._session is None:
                raise ValueError(f"{self._path} is closed")
            try:
                if not 0 <= number < self.info.frames:
                    raise self._error(f"the recording has {self.info.frames} frames.", number)
                measured = self._measure(number)
                self._compare(measured, number)
            except SourceError as error:
                raise error.with_traceback(None) from None  # as in Cu3sReader.open
        return Cu3sFrame(measured.cube, measured.info)

    def close(self) -> None:
        """Free the handles of the SDK; frames already opened stay valid."""
        with self._lock:
            # The wrapper frees a handle when its object goes, and has no other way.
            self._processing = None
            self._session = None

    def __reduce__(self) -> NoReturn:
        # The wrapper's objects do pickle: as bare numbers, which elsewhere belong to others.
        raise TypeError(
            "an open .cu3s recording cannot be pickled or copied: it holds handles of the Cuvis "
            "SDK in this process; send the path and open it there"
        )

    def _open(self) -> SourceInfo:
        self._session = self._sdk.call(
            "open the file",
            self._sdk.cuvis.SessionFile,
            self._path,
            path=self._path,
            hint="It is damaged, cut short, still being recorded, or not a recording: copy it "
            "again, or try it in Cubert's own viewer.",
        )
        frames = self._sdk.call("count the frames", len, self._session, path=self._path)
        if not frames:
            raise self._error("the recording has no frames; it may hold references only.")
        first = self._first_readable(frames)
        return self._describe(frames, first)

    def _first_readable(self, frames: int) -> _Measured:
        first: SourceError | None = None
        for number in range(min(frames, _PROBES)):
            try:
                return self._measure(number)
            except SourceError as error:
                if error.frame is None:  # of the recording, not of this frame
                    raise
                first = first or error.with_traceback(None)
        assert first is not None
        tried = f"the first {_PROBES} of {frames} frames" if frames > _PROBES else "its frames"
        raise self._error(f"none of {tried} can be read: frame {first.frame}: {first.message}")

    def _describe(self, frames: int, first: _Measured) -> SourceInfo:
        shape, dtype = first.cube.shape, first.cube.dtype
        quantity = MODES[first.mode].quantity
        counts = quantity == "reflectance" and np.issubdtype(dtype, np.integer)
        about = first.metadata
        sensor = " ".join(filter(None, (about["product_name"], about["serial_number"])))
        return SourceInfo(
            path=self._path,
            files=(self._path, *self._references.values()),
            pixels=self._path,
            frames=frames,
            shape=(shape[0], shape[1], shape[2]),
            dtype=dtype,
            wavelength=first.wavelength,
            quantity=quantity,
            # Documented: 100 % is 10000 counts, and 65535 is "that much or more". What full scale
            # of the raw counts is depends on the camera, and no field says it.
            scale=1e-4 if counts else 1.0,
            saturation=65535.0 if counts and dtype == np.uint16 else None,
            sensor=sensor or None,
            mode=first.mode,
            access="frame",
            reader=Cu3sReader.name,
            reader_version=self._sdk.versions["wrapper"],
            metadata={
                **session_metadata(self._sdk, self._session),
                "mode_asked": self._mode.name,
                "references": self._processing.references() if self._processing else {},
                "first_frame": about,
            },
        )

    def _measure(self, number: int) -> _Measured:
        """Fetch a frame and compute its cube; its handle is free again on return."""
        measurement = self._sdk.call(
            "fetch the frame", self._session.get_measurement, number, path=self._path, frame=number
        )
        if measurement is None:
            raise self._error("the frame was dropped while recording.", number)
        if self._mode is not STORED or "cube" not in measurement.data:
            self._processor().apply(measurement, number)
        # Never `measurement.cube`: it would make a second context, in a mode of its own.
        image = measurement.data.get("cube")
        cube = getattr(image, "array", None)
        if cube is None:
            made = measurement.processing_mode.name
            raise self._error(f"the Cuvis SDK made no cube in mode {made}.", number)
        if cube.ndim != 3 or not cube.size or cube.dtype not in _DTYPES:
            raise self._error(f"the cube is {cube.shape} {cube.dtype}.", number)
        return _Measured(
            cube=cube,
            wavelength=None if image.wavelength is None else np.array(image.wavelength, float),
            mode=measurement.processing_mode.name,
            info=frame_info(measurement),
            metadata=frame_metadata(measurement),
        )

    def _processor(self) -> Processing:
        """Make the context when it is first needed: a cube that is in the file needs none."""
        if self._processing is None:
            mode = RAW if self._mode is STORED else self._mode
            self._processing = Processing(
                self._sdk, self._session, self._path, mode, self._references
            )
        return self._processing

    def _compare(self, measured: _Measured, number: int) -> None:
        """Refuse a frame that is not like the rest of the recording."""
        info = self.info
        pairs = {
            "shape": (measured.cube.shape, info.shape),
            "dtype": (measured.cube.dtype, info.dtype),
            "mode": (measured.mode, info.mode),
            "wavelengths": (_nanometres(measured.wavelength), _nanometres(info.wavelength)),
        }
        for what, (got, expected) in pairs.items():
            if got != expected:
                raise self._error(
                    f"its {what} differs from that of the recording: got {got}, expected "
                    f"{expected}.",
                    number,
                )

    def _error(
        self, message: str, frame: int | None = None, hint: str | None = None
    ) -> SourceError:
        return SourceError(message, path=self._path, frame=frame, hint=hint)


def _nanometres(wavelength: NDArray[np.float64] | None) -> list[float] | None:
    return None if wavelength is None else wavelength.tolist()


def _check_file(path: str) -> None:
    """Say what the SDK would not: that there is no file, or nothing in it."""
    file = Path(path)
    if file.suffix.lower() not in Cu3sReader.suffixes:
        raise SourceError(
            f"the suffix is {file.suffix!r}, not '.cu3s'.",
            path=path,
            hint="Give the session file itself; older .cu3 files must be exported as .cu3s.",
        )
    try:
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        problem, hint = "there is no such file.", "Check the path."
    except IsADirectoryError:
        problem, hint = "it is a folder.", "Give the .cu3s files in it."
    except OSError as error:
        problem, hint = f"it cannot be read ({error.strerror}).", "Check disk and permissions."
    else:
        if not empty:
            return
        problem, hint = "the file is empty.", "Copy it again from where it was recorded."
    raise SourceError(problem, path=path, hint=hint)
