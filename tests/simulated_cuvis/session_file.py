"""The files that the simulated Cuvis library reads, and how tests write them.

A file begins with 32 bytes, ``SIMULATED-CU3S 1 <start>`` padded with spaces; ``start`` is where the
cubes begin. Between the two lies an index of text lines ``word value``, ended by a line ``end``:
first the session (``fps``, ``hash``, ``operation_mode``, ``rule``), then after each line ``frame``
what that frame is (``shape``, ``wavelength``, ``cube <mode> <format> <offset>``, ``stored``,
metadata, ``rule``). A dropped frame has ``gap 1``, a reference ``reference <type>``. Cubes are raw
C-contiguous ``(y, x, channel)`` numbers; each mode of a frame that can be had is listed with a
cube, and processing to a mode hands that cube out unchanged, so any array comes back bit for bit.
``rule <call> <status> <after> <sleep_ms> <message>`` makes a call fail or wait, see :class:`Fault`.

It has nothing in common with Cubert's format but the suffix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["MODES", "REFERENCES", "Fault", "Hole", "write_session"]

MODES = {"Raw": 0, "DarkSubtract": 1, "Reflectance": 2, "SpectralRadiance": 3}
PREVIEW = 5
REFERENCES = {"Dark": 0, "White": 1, "WhiteDark": 2, "SpRad": 3, "Distance": 4}
OPERATION_MODES = {"Software": 1, "Internal": 2, "External": 3, "UNDEFINED": 4}
FORMATS = {"uint8": 1, "uint16": 2, "uint32": 3, "float32": 4}
HEADER = 32
PAGE = 4096


@dataclass(frozen=True)
class Hole:
    """A cube of zeros that takes no space on disk."""

    shape: tuple[int, int, int]
    dtype: DTypeLike = np.uint16


@dataclass(frozen=True)
class Fault:
    """One call that fails or is slow.

    Attributes
    ----------
    call : str
        Name without prefix: ``load, get_size, get_fps, get_hash, get_operation_mode, create,
        set_args, set_reference, has_reference, get_reference`` of the session; ``get_mesu,
        get_metadata, get_data_count, get_data_info, get_data_image, get_data_string,
        get_data_gps, get_data_sensor_info, is_capable, apply, clear_cube`` of a frame.
    frame : int, optional
        Index among the frames that were not dropped. None: the session itself.
    status : int
        What the call returns; 1 is success (for a call that is only slow).
    after : int
        How often the call works before it fails, counted for each measurement that was fetched
        (or for each opened session).
    """

    call: str
    frame: int | None = None
    status: int = -1
    after: int = 0
    sleep_ms: int = 0
    message: str = "simulated failure"


Cube = NDArray[Any] | Hole


def write_session(
    path: str | Path,
    cubes: Sequence[Cube | Mapping[str, Cube]],
    *,
    mode: str = "Reflectance",
    stored: str | None = None,
    wavelengths: ArrayLike | None = "auto",  # type: ignore[assignment]
    references: Iterable[str] = ("White", "Dark"),
    implicit: Iterable[str] = (),
    gaps: Iterable[int] = (),
    fps: float | None = None,
    hash: str = "",  # noqa: A002
    operation_mode: str = "UNDEFINED",
    frames: Mapping[int, Mapping[str, Any]] | None = None,
    faults: Iterable[Fault] = (),
    **metadata: Any,
) -> Path:
    """Write a session that the simulated library serves.

    Parameters
    ----------
    path : str or Path
        File to write; the suffix is the caller's.
    cubes : sequence
        One entry a frame, ``(y, x, channel)`` in uint8, uint16, uint32 or float32, or a
        :class:`Hole`; or a mapping from mode to such a cube (all of one shape).
    mode : str
        The mode whose processing yields a plain entry of ``cubes``.
    stored : str, optional
        The mode whose cube a fetched frame carries at once. None: no frame carries a cube, it has
        to be computed, which is how the real SDK records by default.
    wavelengths : array_like of int, optional
        One per channel, nm; ``"auto"`` is 400, 410, ...; None if the file has none.
    references : iterable of str
        References of the session, of :data:`REFERENCES`.
    implicit : iterable of str
        References that each frame brings itself, which only ``is_capable`` and ``apply`` see.
    gaps : iterable of int
        Positions in the recording that were dropped (``cubes`` are the others, in order).
    fps, hash, operation_mode
        Of the session; by default not recorded.
    frames : mapping, optional
        ``{index: {...}}`` with what is different for one frame: ``stored``, ``wavelengths``,
        ``implicit``, ``made`` (the mode that processing claims to have computed), or any metadata
        field.
    faults : iterable of Fault
        Calls that fail or are slow.
    **metadata
        Fields of every frame: ``name, comment, product_name, serial_number, assembly,
        session_name`` (text), ``capture_time, factory_calibration`` (ms since 1970),
        ``integration_time`` (ms), ``averages, distance, session_no, sequence_no, flags, frame_id``.

    Returns
    -------
    Path
        ``path``.
    """
    faults = list(faults)
    dropped = set(gaps)
    index = [f"operation_mode {OPERATION_MODES[operation_mode]}"]
    if hash:
        index.append(f"hash {hash}")
    if fps is not None:
        index.append(f"fps {fps!r}")
    index += [_rule(fault) for fault in faults if fault.frame is None]

    parts: list[tuple[int, Cube]] = []
    position = size = 0
    for number, entry in enumerate(cubes):
        while position in dropped:
            index += ["frame", "gap 1"]
            position += 1
        listed = entry if isinstance(entry, Mapping) else {mode: entry}
        own = dict((frames or {}).get(number, {}))
        common = {"stored": stored, "wavelengths": wavelengths, "implicit": implicit}
        fields = _metadata(position) | common | metadata | own
        index += _frame(listed, fields)
        for name, cube in listed.items():
            dtype = np.dtype(cube.dtype)
            index.append(f"cube {MODES[name]} {FORMATS[dtype.name]} {{{len(parts)}}}")
            parts.append((size, cube))
            size += -(-int(np.prod(cube.shape)) * dtype.itemsize // PAGE) * PAGE
        index += [_rule(fault) for fault in faults if fault.frame == number]
        position += 1
    index += ["frame", "gap 1"] * sum(gap >= position for gap in dropped)
    for name in references:
        index += ["frame", f"reference {REFERENCES[name]}", f"name {name}"]
    index.append("end\n")
    return _write(Path(path), "\n".join(index), parts, size)


def _metadata(position: int) -> dict[str, Any]:
    return {
        "name": f"frame_{position:03d}",
        "frame_id": position,
        "capture_time": 1_700_000_000_000 + 100 * position,
        "integration_time": 12.5,
        "averages": 1,
        "distance": 1500.0,
        "session_name": "simulated",
        "session_no": 1,
        "sequence_no": position,
        "product_name": "ULTRIS SIM",
        "serial_number": "0000",
    }


def _frame(listed: Mapping[str, Cube], fields: dict[str, Any]) -> list[str]:
    (shape,) = {tuple(cube.shape) for cube in listed.values()}
    lines = ["frame", "shape {} {} {}".format(*shape)]
    stored = fields.pop("stored")
    lines.append(f"stored {PREVIEW if stored is None else MODES[stored]}")
    wavelengths = fields.pop("wavelengths")
    if isinstance(wavelengths, str):
        wavelengths = range(400, 400 + 10 * shape[2], 10)
    if wavelengths is not None:
        lines.append("wavelength " + " ".join(str(int(nm)) for nm in wavelengths))
    if "made" in fields:
        lines.append(f"made {MODES[fields.pop('made')]}")
    lines.append(f"implicit {sum(1 << REFERENCES[name] for name in fields.pop('implicit'))}")
    return lines + [f"{word} {_line(value)}" for word, value in fields.items()]


def _rule(fault: Fault) -> str:
    message = _line(fault.message)
    return f"rule {fault.call} {fault.status} {fault.after} {fault.sleep_ms} {message}"


def _line(value: Any) -> str:
    text = str(value)
    if "\n" in text or "{" in text or "}" in text:
        raise ValueError(f"the index cannot hold {text!r}")
    return text


def _write(path: Path, index: str, parts: list[tuple[int, Cube]], size: int) -> Path:
    # Offsets have a fixed width, so that the index does not grow by them.
    room = len(index.format(*["0" * 16] * len(parts)).encode("utf-8", "surrogateescape"))
    start = -(-(HEADER + room) // PAGE) * PAGE
    text = index.format(*[f"{start + offset:016d}" for offset, _ in parts])
    with path.open("wb") as out:
        out.write(f"SIMULATED-CU3S 1 {start:<15d}".encode())
        out.write(text.encode("utf-8", "surrogateescape"))
        for offset, cube in parts:
            if not isinstance(cube, Hole) and cube.size:
                out.seek(start + offset)
                out.write(memoryview(np.ascontiguousarray(cube)).cast("B"))
        out.truncate(start + size)
    return path
