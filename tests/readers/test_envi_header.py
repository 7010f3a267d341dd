"""ENVI headers: what is taken from them, what is never guessed, and what is refused."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers.envi_files import random_cube, write_envi

from hsi_batch.errors import SourceError
from hsi_batch.readers.envi import EnviReader
from hsi_batch.readers.envi_header import read_header
from hsi_batch.readers.units import to_nanometres

CUBE = random_cube((4, 3, 2), "u2")


def info(folder, **extra):
    with EnviReader().open(write_envi(folder, CUBE, **extra)) as source:
        return source.info


def refusal(folder, **extra):
    with pytest.raises(SourceError) as caught:
        EnviReader().open(write_envi(folder, CUBE, **extra))
    return caught.value


def header_of(folder, text):
    path = folder / "scene.hdr"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_header(str(path))


MINIMAL = "ENVI\nsamples = 3\nlines = 4\nbands = 2\ndata type = 12\ninterleave = bil\n"


# --- forms of the text --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        MINIMAL.replace("\n", "\r\n"),
        MINIMAL.replace("\n", "\r"),
        "\ufeff" + MINIMAL,
        MINIMAL.upper(),
        MINIMAL.replace("data type", "Data  Type").replace("lines", "  lines  "),
        MINIMAL.replace("\n", "\n; a comment = with a sign\n"),
        MINIMAL.replace("\n", "\n\n"),
        MINIMAL.rstrip("\n"),
        MINIMAL.replace("= 12", "= 12 ; unsigned").replace("= bil", "= bil ; by line"),
        MINIMAL + "a line without meaning\n = 5\n1 = 2\n",
    ],
)
def test_forms_of_the_text(tmp_path, text):
    header = header_of(tmp_path, text)
    assert (header.lines, header.samples, header.bands) == (4, 3, 2)
    assert header.dtype == np.dtype("<u2")
    assert (header.offset, header.interleave) == (0, "bil")


@pytest.mark.parametrize(
    "lists",
    [
        "wavelength = {500, 600}",
        "wavelength = {500, 600,}",
        "wavelength = {\n500,\n600\n}",
        "wavelength = {\n500,\n; in between\n600,\n}",
        "wavelength =\n{500, 600}",
        "wavelength = {500 600}",
        "wavelength = { 500.0 , 6e2 } ; nm\nbbl = {1, 0}",
    ],
)
def test_forms_of_a_list(tmp_path, lists):
    header = header_of(tmp_path, f"{MINIMAL}{lists}\nwavelength units = nm\n")
    assert header.wavelength.tolist() == [500, 600]


def test_text_that_is_not_ascii(tmp_path):
    unit = "wavelength = {0.5, 0.6}\nwavelength units = \N{MICRO SIGN}m\n"
    text = f"{MINIMAL}description = {{\nK\N{LATIN SMALL LETTER U WITH DIAERESIS}vette = 3}}\n{unit}"
    for encoding in ("utf-8", "latin-1", "utf-8-sig"):
        header = header_of(tmp_path, text.encode(encoding))
        assert header.wavelength.tolist() == [500, 600]
        assert header.metadata["description"] == "K\N{LATIN SMALL LETTER U WITH DIAERESIS}vette = 3"


def test_metadata_is_verbatim(tmp_path):
    found = info(tmp_path, band_names="{Band A, band B}", Operator="Ann B.", wavelength="{1,2}")
    assert found.metadata["band names"] == ["Band A", "band B"]
    assert found.metadata["operator"] == "Ann B."
    assert found.metadata["wavelength"] == ["1", "2"]
    assert found.metadata["lines"] == "4"


# --- wavelengths --------------------------------------------------------------------------------

MICROMETRE = "\N{MICRO SIGN}m"
GREEK_MICROMETRE = "\N{GREEK SMALL LETTER MU}m"


@pytest.mark.parametrize(
    ("units", "value", "expected"),
    [
        ("Nanometers", 500, 500),
        ("nm", 500, 500),
        ("nanometres", 500, 500),
        ("Micrometers", 0.5, 500),
        ("um", 0.5, 500),
        (MICROMETRE, 0.5, 500),
        (GREEK_MICROMETRE, 0.5, 500),
        ("microns", 0.5, 500),
        ("Millimeters", 0.5, 5e5),
        ("mm", 0.5, 5e5),
        ("Centimeters", 0.5, 5e6),
        ("cm", 0.5, 5e6),
        ("Meters", 0.5, 5e8),
        ("m", 0.5, 5e8),
        ("Angstroms", 5000, 500),
        ("Wavenumber", 20000, 500),
        ("1/cm", 20000, 500),
        ("cm-1", 20000, 500),
        ("GHz", 599584.916, 500),
        ("MHz", 599584916, 500),
        ("THz", 599.584916, 500),
    ],
)
def test_units_of_wavelength(tmp_path, units, value, expected):
    found = info(tmp_path, wavelength=f"{{{value}, {value}}}", wavelength_units=units)
    np.testing.assert_allclose(found.wavelength, [expected] * 2, rtol=1e-12)
    assert found.wavelength.dtype == np.float64


@pytest.mark.parametrize("units", [None, "", "Unknown", "Index", "furlongs"])
def test_wavelengths_are_never_guessed(tmp_path, units):
    found = info(tmp_path, wavelength="{500.5, 600.5}", fwhm="{5, 6}", wavelength_units=units)
    assert found.wavelength is None
    assert found.fwhm is None
    assert found.metadata["wavelength"] == ["500.5", "600.5"]


def test_an_index_may_begin_at_zero(tmp_path):
    assert info(tmp_path, wavelength="{0, 1}", wavelength_units="Index").wavelength is None


def test_zeros_mean_that_the_wavelength_is_not_known(tmp_path):
    found = info(tmp_path, wavelength="{0, 0}", fwhm="{0, 0}", wavelength_units="nm")
    assert found.wavelength is None
    assert found.fwhm is None


def test_widths_follow_the_units(tmp_path):
    found = info(tmp_path, wavelength="{0.5, 0.6}", fwhm="{0.005, 0.006}", wavelength_units="um")
    np.testing.assert_allclose(found.fwhm, [5, 6])
    found = info(tmp_path, wavelength="{20000, 10000}", fwhm="{4, 4}", wavelength_units="1/cm")
    np.testing.assert_allclose(found.fwhm, [0.1, 0.4], rtol=1e-6)


@given(
    st.lists(st.floats(1, 1e6), min_size=1, max_size=9),
    st.sampled_from(["nm", "um", "mm", "1/cm", "GHz", "Angstroms"]),
)
def test_narrow_channels_keep_their_edges(values, units):
    centre = np.array(values)
    width = centre * 1e-4
    wavelength, fwhm = to_nanometres(centre, width, units)
    low, high = (to_nanometres(centre + s * width / 2, None, units)[0] for s in (-1, 1))
    np.testing.assert_allclose(fwhm, np.abs(high - low), rtol=1e-6)
    assert (wavelength > 0).all()


# --- the rest of what is taken ------------------------------------------------------------------


def test_bad_bands(tmp_path):
    assert info(tmp_path, bbl="{1, 0}").good_band.tolist() == [True, False]
    assert info(tmp_path).good_band is None


@pytest.mark.parametrize(
    ("fields", "quantity", "scale", "offset"),
    [
        ({}, None, 1, 0),
        ({"reflectance_scale_factor": "10000"}, "reflectance", 1e-4, 0),
        ({"reflectance_scale_factor": "1.0"}, "reflectance", 1, 0),
        ({"data_gain_values": "{0.5, 0.5}"}, None, 0.5, 0),
        ({"data_gain_values": "0.5"}, None, 0.5, 0),
        ({"data_gain_values": "{0.5, 0.5}", "data_offset_values": "{3, 3}"}, None, 0.5, 3),
        ({"data_offset_values": "{3, 3}"}, None, 1, 3),
        ({"data_gain_values": "{0.5, 0.6}"}, None, 1, 0),
        ({"data_gain_values": "{0.5, 0.5}", "data_offset_values": "{3, 4}"}, None, 1, 0),
        ({"data_gain_values": "{0, 0}"}, None, 1, 0),
        ({"data_gain_values": "{2, 2}", "reflectance_scale_factor": "4"}, "reflectance", 0.25, 0),
    ],
)
def test_scaling(tmp_path, fields, quantity, scale, offset):
    found = info(tmp_path, **fields)
    assert (found.quantity, found.scale, found.offset) == (quantity, scale, offset)
    for name, value in fields.items():
        stored = found.metadata[name.replace("_", " ")]
        assert stored == value or ", ".join(stored) == value.strip("{}")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"data_gain_values": "{0.5, 0.5}", "data_offset_values": "{3, 3}"}, None),
        ({"data_gain_values": "{2, 3}", "reflectance_scale_factor": "4"}, None),
        ({"data_gain_values": "{0, 0}"}, None),
        ({"data_gain_values": "{0.5, 0.6}"}, "'data gain values' differ"),
        (
            {"data_gain_values": "{0.5, 0.6}", "data_offset_values": "{3, 4}"},
            "'data gain values' and 'data offset values' differ",
        ),
        ({"data_gain_values": "{2, 2}", "data_offset_values": "{3, 4}"}, "'data offset values' d"),
    ],
)
def test_gains_that_are_not_applied_are_noted(tmp_path, fields, says):
    notes = info(tmp_path, **fields).notes
    assert len(notes) == (says is not None)
    assert all(f"its {says}" in note and "as recorded" in note for note in notes)


@pytest.mark.parametrize(
    ("value", "nodata"),
    [("-9999", -9999.0), ("{0}", 0.0), ("{-1, -1}", -1.0), ("{-1, 0}", None), ("nan", None)],
)
def test_nodata(tmp_path, value, nodata):
    assert info(tmp_path, data_ignore_value=value).nodata == nodata


def test_sensor(tmp_path):
    assert info(tmp_path, sensor_type="FX17").sensor == "FX17"
    assert info(tmp_path, sensor_type="unknown").sensor is None
    assert info(tmp_path).sensor is None


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2020-01-02T03:04:05.250Z", 1577934245250),
        ("2020-01-02T03:04:05+01:00", 1577930645000),
        ("2020-01-02 03:04:05", 1577934245000),
        ("2020-01-02", None),
        ("yesterday", None),
        ("2020-13-02T03:04:05Z", None),
        (None, None),
    ],
)
def test_acquisition_time(tmp_path, text, time_ms):
    with EnviReader().open(write_envi(tmp_path, CUBE, acquisition_time=text)) as source:
        assert source.frame(0).info.time_ms == time_ms


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["samples", "lines", "bands", "data type"])
def test_required_fields(tmp_path, name):
    error = refusal(tmp_path, **{name.replace(" ", "_"): None})
    assert f"the header has no {name!r}" in str(error)
    assert f"Add a line '{name} = <whole number>'" in str(error)


@pytest.mark.parametrize(
    ("fields", "line", "words"),
    [
        ({"samples": "0"}, 2, "'samples' is 0; it must be 1 or more"),
        ({"lines": "-4"}, 3, "'lines' is -4; it must be 1 or more"),
        ({"bands": "two"}, 4, "'bands' is 'two', which is not a whole number"),
        ({"bands": "2.5"}, 4, "'bands' is '2.5', which is not a whole number"),
        ({"lines": "9" * 30}, 3, "which is not a whole number"),
        ({"header_offset": "-1"}, 5, "'header offset' is -1; it must be 0 or more"),
        ({"data_type": "6"}, 6, "data type 6 is complex; cubes must hold real numbers"),
        ({"data_type": "9"}, 6, "data type 9 is complex"),
        ({"data_type": "7"}, 6, "data type 7 is unknown; known are 1 uint8, 2 int16"),
        ({"byte_order": "2"}, 8, "byte order is 2; expected 0 (little-endian) or 1"),
        ({"wavelength": "{1, 2, 3}"}, 9, "'wavelength' has 3 values for 2 bands"),
        ({"wavelength": "{1}"}, 9, "'wavelength' has 1 values for 2 bands"),
        ({"wavelength": "{1, x}"}, 9, "value 2 of 'wavelength' is 'x', which is not a number"),
        ({"fwhm": "{1, 2, 3}"}, 9, "'fwhm' has 3 values for 2 bands"),
        ({"fwhm": "{1, -2}"}, 9, "'fwhm' holds values that are negative"),
        ({"bbl": "{1}"}, 9, "'bbl' has 1 values for 2 bands"),
        ({"data_gain_values": "{1, 2, 3}"}, 9, "'data gain values' has 3 values for 2 bands"),
        ({"data_ignore_value": "none"}, 9, "value 1 of 'data ignore value' is 'none'"),
        ({"reflectance_scale_factor": "0"}, 9, "expected one number above zero"),
        ({"reflectance_scale_factor": "{1, 2}"}, 9, "expected one number above zero"),
        ({"file_compression": "1"}, 9, "the data file is compressed"),
        ({"major_frame_offsets": "{4, 4}"}, 9, "'major frame offsets' is not zero"),
    ],
)
def test_fields_that_are_refused(tmp_path, fields, line, words):
    error = refusal(tmp_path, **fields)
    assert words in str(error)
    assert error.line == line
    assert str(error).startswith(f"{tmp_path / 'scene.hdr'}:{line}: ")


def test_interleave_that_is_not_known(tmp_path):
    with pytest.raises(SourceError, match=r"hdr:6: interleave is 'tiled'; expected bil, bip or"):
        header_of(tmp_path, MINIMAL.replace("bil", "Tiled"))


def test_wavelengths_must_be_positive_in_a_physical_unit(tmp_path):
    error = refusal(tmp_path, wavelength="{-1, 5}", wavelength_units="nm")
    assert "'wavelength' holds values that are not positive" in str(error)
    assert "delete 'wavelength'" in error.hint


def test_frame_offsets_of_zero_are_fine(tmp_path):
    assert info(tmp_path, major_frame_offsets="{0, 0}", file_compression="0").shape == (4, 3, 2)


def test_a_list_that_is_never_closed(tmp_path):
    with pytest.raises(SourceError) as caught:
        header_of(tmp_path, MINIMAL + "wavelength = {500,\n600\n")
    assert caught.value.line == 7
    assert "the '{' of 'wavelength' is never closed" in str(caught.value)
    assert "cut off" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\x00\x01\x02" * 99, "it is a binary file"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "a Radiance high-dynamic-range picture"),
        (b"\x5c\x01\x00\x00" + bytes(344), "an Analyze or NIfTI header"),
        (b"BYTEORDER I\nLAYOUT BIL\nNROWS 5\n", "an Esri (ArcGIS) BIL/BIP/BSQ header"),
        (MINIMAL.replace("ENVI\n", "").encode(), "its first line is not 'ENVI'"),
        (b"ENVIRONMENT = 5\n", "it begins with 'ENVIRONMENT = 5'"),
        ("K\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode() * 300, "it begins with"),
    ],
)
def test_what_is_not_an_envi_header(tmp_path, content, words):
    with pytest.raises(SourceError) as caught:
        header_of(tmp_path, content)
    assert "not an ENVI header" in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_header_that_cannot_be_read(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: No such file"):
        read_header(str(tmp_path / "missing.hdr"))


DAMAGE = st.tuples(
    st.integers(0, 400),
    st.integers(0, 8),
    st.sampled_from(["", "{", "}", "=", ";", "\n", "\r", ",", "-1", "nan", "1e400", "\0", "\xff"]),
)


@settings(deadline=None)
@given(st.lists(DAMAGE, min_size=1, max_size=4))
def test_any_damage_is_a_source_error(tmp_path_factory, damages):
    folder = tmp_path_factory.mktemp("damage")
    extra = {"wavelength": "{400, 500}", "wavelength_units": "nm", "fwhm": "{1,\n2}"}
    path = write_envi(folder, CUBE, **extra, bbl="{1, 1}", reflectance_scale_factor="1e4")
    text = Path(path).read_text("latin-1")
    for place, count, piece in damages:
        text = text[:place] + piece + text[place + count :]
    Path(path).write_text(text, "latin-1")
    with suppress(SourceError), EnviReader().open(path) as source:
        source.frame(0).read(0, source.info.shape[0])


def test_the_parser_is_not_told_of_names_in_upper_case(tmp_path, recwarn):
    header_of(tmp_path, MINIMAL.replace("lines", "Lines"))
    assert not recwarn.list


def test_a_name_in_braces_is_not_a_field(tmp_path):
    header = header_of(tmp_path, MINIMAL + "description = {\nlines = 99\n}\n")
    assert header.lines == 4
    assert header.metadata["description"] == "lines = 99"
