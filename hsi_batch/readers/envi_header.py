"""What an ENVI header says about its cube, checked: nothing in it is taken on trust."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.readers.envi_fields import EnviFields, read_fields
from hsi_batch.readers.geography import Geography, geography_of
from hsi_batch.readers.protocol import Quantity
from hsi_batch.readers.units import to_nanometres

__all__ = ["EnviHeader", "dtype_of", "quantity_of", "read_header", "scaling_of"]

_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("i2"),
    3: np.dtype("i4"),
    4: np.dtype("f4"),
    5: np.dtype("f8"),
    12: np.dtype("u2"),
    13: np.dtype("u4"),
    14: np.dtype("i8"),
    15: np.dtype("u8"),
}


@dataclass(frozen=True)
class EnviHeader:
    """What a header says about its cube, checked.

    Attributes
    ----------
    lines, samples, bands : int
        Shape of the cube, each at least 1.
    dtype : numpy.dtype
        As stored, in the byte order of the file.
    offset : int
        Bytes before the first pixel.
    interleave : str
        ``"bil"``, ``"bip"``, ``"bsq"``, or empty if the header does not say.
    wavelength, fwhm : numpy.ndarray of float64, shape (bands,), optional
        Nanometres; None without units or with unknown ones.
    good_band : numpy.ndarray of bool, shape (bands,), optional
        From ``bbl``; 0 is bad.
    scale, zero : float
        Physical value = stored value * scale + zero. Gains or offsets that differ between bands
        are not applied; they stay in ``metadata``.
    reflectance : bool
        Whether a ``reflectance scale factor`` is given.
    nodata : float, optional
        From ``data ignore value``; None for NaN, which counts as invalid anyway.
    saturation : float, optional
        From ``bit depth`` (or ``bits per pixel``, ``adc bits``): the largest count, 2**bits - 1.
    quantity, units : str, optional
        From the scale factor, or from ``data units``.
    geography : Geography, optional
        From ``map info`` and ``coordinate system string``.
    integration_time_ms : float, optional
        From ``tint``, which Specim cameras state in milliseconds.
    sensor : str, optional
        From ``sensor type`` unless it is Unknown.
    time_ms : int, optional
        From ``acquisition time`` if it is an ISO date with a time of day; UTC unless it says
        otherwise. Milliseconds since 1970.
    metadata : dict
        Every field, verbatim.
    notes : tuple of str
        What the header says of the values that is not applied.
    """

    lines: int
    samples: int
    bands: int
    dtype: np.dtype[Any]
    offset: int
    interleave: str
    wavelength: NDArray[np.float64] | None
    fwhm: NDArray[np.float64] | None
    good_band: NDArray[np.bool_] | None
    scale: float
    zero: float
    reflectance: bool
    nodata: float | None
    sensor: str | None
    time_ms: int | None
    metadata: dict[str, str | list[str]]
    notes: tuple[str, ...] = ()
    saturation: float | None = None
    quantity: Quantity | None = None
    units: str | None = None
    integration_time_ms: float | None = None
    geography: Geography | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the data file must have."""
        return self.offset + self.lines * self.samples * self.bands * self.dtype.itemsize


def read_header(path: str) -> EnviHeader:
    """Read and check a header.

    Raises
    ------
    hsi_batch.errors.SourceError
        Not an ENVI header, a field that is missing, malformed or contradicts another, or a kind
        of file that is not a cube of real numbers. Names the line where there is one.
    """
    fields = read_fields(path)
    _refuse_what_is_not_raw(fields)
    bands = fields.integer("bands", least=1)
    wavelength, fwhm = _spectral_axis(fields, bands)
    scale, zero, reflectance = scaling_of(fields, bands)
    good = fields.numbers("bbl", bands)
    sensor = fields.text("sensor type")
    quantity, units = quantity_of(fields, reflectance=reflectance)
    return EnviHeader(
        lines=fields.integer("lines", least=1),
        samples=fields.integer("samples", least=1),
        bands=bands,
        dtype=dtype_of(fields),
        offset=fields.integer("header offset", default=0),
        interleave=_interleave(fields, bands),
        wavelength=wavelength,
        fwhm=fwhm,
        good_band=None if good is None else good != 0,
        scale=scale,
        zero=zero,
        reflectance=reflectance,
        nodata=_nodata(fields),
        sensor=None if sensor is None or sensor.casefold() == "unknown" else sensor,
        time_ms=_time_ms(fields.text("acquisition time")),
        metadata=dict(fields.values),
        notes=_notes(fields),
        saturation=_saturation(fields),
        quantity=quantity,
        units=units,
        integration_time_ms=_positive(fields.text("tint")),
        geography=geography_of(fields),
    )


def _refuse_what_is_not_raw(fields: EnviFields) -> None:
    kind = (fields.text("file type") or "").casefold()
    if "library" in kind or "classification" in kind:
        raise fields.error(
            f"the file type is {fields.text('file type')!r}, not a cube.",
            "file type",
            hint="Leave it out of the sources.",
        )
    compression = fields.text("file compression")
    if compression not in (None, "0"):
        raise fields.error(
            "the data file is compressed, which is not supported.",
            "file compression",
            hint="Save it again without compression.",
        )
    for name in ("major frame offsets", "minor frame offsets"):
        offsets = fields.numbers(name)
        if offsets is not None and offsets.any():
            raise fields.error(
                f"{name!r} is not zero, which is not supported.",
                name,
                hint="Save the cube again as a plain ENVI file.",
            )


def dtype_of(fields: EnviFields) -> np.dtype[Any]:
    """The type of the stored numbers, in the byte order of the file."""
    code = fields.integer("data type")
    if code in (6, 9):
        raise fields.error(
            f"data type {code} is complex; cubes must hold real numbers.",
            "data type",
            hint="Save magnitude or real part as data type 4.",
        )
    if code not in _DTYPES:
        known = ", ".join(f"{key} {value.name}" for key, value in _DTYPES.items())
        raise fields.error(f"data type {code} is unknown; known are {known}.", "data type")
    order = fields.integer("byte order", default=0)
    if order > 1:
        raise fields.error(
            f"byte order is {order}; expected 0 (little-endian) or 1 (big-endian).", "byte order"
        )
    return _DTYPES[code].newbyteorder("big" if order else "little")


def _interleave(fields: EnviFields, bands: int) -> str:
    text = (fields.text("interleave") or "").split(";")[0].strip().lower()
    if text not in ("", "bil", "bip", "bsq"):
        raise fields.error(f"interleave is {text!r}; expected bil, bip or bsq.", "interleave")
    # With a single band the three orders are the same.
    return text or ("bsq" if bands == 1 else "")


def _spectral_axis(
    fields: EnviFields, bands: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    wavelength = fields.numbers("wavelength", bands)
    fwhm = fields.numbers("fwhm", bands)
    if wavelength is not None and not wavelength.any():
        wavelength = None  # how some writers say that they do not know
    if fwhm is not None and not fwhm.any():
        fwhm = None
    if fwhm is not None and not (np.isfinite(fwhm).all() and (fwhm >= 0).all()):
        raise fields.error("'fwhm' holds values that are negative or not finite.", "fwhm")
    if wavelength is None:
        return None, None
    if not (np.isfinite(wavelength).all() and (wavelength > 0).all()):
        # An index or unknown axis may hold anything; only a physical one must be positive.
        if to_nanometres(np.ones(bands), None, fields.text("wavelength units")) is None:
            return None, None
        raise fields.error(
            "'wavelength' holds values that are not positive.",
            "wavelength",
            hint="Correct them, or delete 'wavelength'.",
        )
    return to_nanometres(wavelength, fwhm, fields.text("wavelength units")) or (None, None)


def scaling_of(fields: EnviFields, bands: int) -> tuple[float, float, bool]:
    """Scale, offset and whether they give reflectance.

    A reflectance scale factor stands before gains and offsets: ENVI applies one or the other.
    """
    factor = fields.numbers("reflectance scale factor")
    if factor is not None:
        if len(factor) != 1 or not (math.isfinite(factor[0]) and factor[0] > 0):
            raise fields.error(
                f"'reflectance scale factor' is {fields.text('reflectance scale factor')!r}; "
                "expected one number above zero.",
                "reflectance scale factor",
            )
        return 1.0 / float(factor[0]), 0.0, True
    gain = fields.numbers("data gain values")
    zero = fields.numbers("data offset values")
    for name, values in (("data gain values", gain), ("data offset values", zero)):
        if values is not None and len(values) not in (1, bands):
            raise fields.error(f"{name!r} has {len(values)} values for {bands} bands.", name)
    if gain is not None and not gain.all():
        return 1.0, 0.0, False  # a gain of zero is a placeholder
    if all(v is None or (np.isfinite(v).all() and (v == v[0]).all()) for v in (gain, zero)):
        return (
            1.0 if gain is None else float(gain[0]),
            0.0 if zero is None else float(zero[0]),
            False,
        )
    return 1.0, 0.0, False


def quantity_of(fields: EnviFields, *, reflectance: bool) -> tuple[Quantity | None, str | None]:
    """What the physical values are, and their units, as far as the header says it."""
    if reflectance:
        return "reflectance", "1"
    said = fields.text("data units")
    named: tuple[Quantity, ...] = ("reflectance", "radiance")
    found = next((word for word in named if said and word in said.casefold()), None)
    if found is None and said and said.casefold().strip() in ("dn", "counts", "digital numbers"):
        found = "dn"
    return found, "1" if found == "reflectance" else said


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _saturation(fields: EnviFields) -> float | None:
    dtype = dtype_of(fields)
    names = ("bit depth", "bits per pixel", "adc bits")
    bits = next((n for name in names if (n := _positive(fields.text(name)))), None)
    if bits is None or dtype.kind not in "iu" or not 1 < bits <= 8 * dtype.itemsize:
        return None
    return float(2 ** int(bits) - 1)


def _notes(fields: EnviFields) -> tuple[str, ...]:
    if fields.numbers("reflectance scale factor") is not None:
        return ()
    names = ("data gain values", "data offset values")
    values = {name: fields.numbers(name) for name in names}
    differing = [n for n, v in values.items() if v is not None and np.unique(v).size > 1]
    if not differing:
        return ()
    named = " and ".join(repr(name) for name in differing)
    return (
        (
            f"its {named} differ from band to band, which one scale and offset cannot say: the"
            " pixels stay as recorded, and the values are kept in the attribute `metadata`."
        ),
    )


def _nodata(fields: EnviFields) -> float | None:
    values = fields.numbers("data ignore value")
    if values is None or (values != values[0]).any():  # NaN differs from itself
        return None
    return float(values[0])


def _time_ms(text: str | None) -> int | None:
    if text is None or not re.match(r"\d{4}-?\d\d-?\d\d[T ]\d", text):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)
