"""The .cu3s reader on the real ``cuvis`` wrapper over the simulated library: what it reads.

What these tests show and what they cannot is in docs/cu3s.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulated_cuvis import Fault, Library, write_session
from simulated_cuvis.helpers import SHAPE, random_cubes, read_all
from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401

from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.readers.cu3s import Cu3sReader
from hsi_batch.readers.cu3s_metadata import frame_info
from hsi_batch.readers.protocol import Frame

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture
def reader() -> Cu3sReader:
    return Cu3sReader()


DTYPES = [np.uint8, np.uint16, np.uint32, np.float32]

# ---------------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_come_back_bit_for_bit(tmp_path: Path, reader: Cu3sReader, dtype: Any) -> None:
    written = random_cubes(dtype=dtype)
    path = str(write_session(tmp_path / "a.cu3s", written))
    with reader.open(path) as source:
        info = source.info
        assert (info.frames, info.shape, info.dtype) == (3, SHAPE, np.dtype(dtype))
        for cube, got in zip(written, read_all(source), strict=True):
            assert got.dtype == cube.dtype
            assert got.tobytes() == cube.tobytes()


def test_axes_are_line_sample_channel(tmp_path: Path, reader: Cu3sReader) -> None:
    y, x, channel = np.indices((4, 3, 2))
    cube = (100 * y + 10 * x + channel).astype(np.uint16)
    with reader.open(str(write_session(tmp_path / "a.cu3s", [cube]))) as source:
        assert source.info.shape == (4, 3, 2)
        assert source.frame(0).read(3, 4)[0, 2, 1] == 321


def test_lines_are_read_by_range_as_new_arrays(tmp_path: Path, reader: Cu3sReader) -> None:
    (cube,) = written = random_cubes(1)
    with reader.open(str(write_session(tmp_path / "a.cu3s", written))) as source:
        frame = source.frame(0)
        assert isinstance(frame, Frame)
        lines = frame.read(1, 3)
        assert np.array_equal(lines, cube[1:3])
        assert lines.flags.c_contiguous
        assert lines.flags.owndata
        lines[:] = 0
        assert np.array_equal(frame.read(1, 3), cube[1:3])
        assert frame.read(2, 2).shape == (0, 4, 5)
        for start, stop in [(-1, 2), (0, 4), (2, 1)]:
            with pytest.raises(ValueError, match="not within 0:3"):
                frame.read(start, stop)


def test_a_frame_outlives_its_source(tmp_path: Path, reader: Cu3sReader) -> None:
    (cube,) = written = random_cubes(1)
    source = reader.open(str(write_session(tmp_path / "a.cu3s", written)))
    frame = source.frame(0)
    source.close()
    source.close()
    assert np.array_equal(frame.read(0, 3), cube)
    with pytest.raises(ValueError, match="is closed"):
        source.frame(0)


def test_wavelengths(tmp_path: Path, reader: Cu3sReader) -> None:
    with reader.open(str(write_session(tmp_path / "a.cu3s", random_cubes(1)))) as source:
        assert source.info.wavelength.dtype == np.float64
        assert source.info.wavelength.tolist() == [400, 410, 420, 430, 440]
    path = write_session(tmp_path / "b.cu3s", random_cubes(1), wavelengths=None)
    with reader.open(str(path)) as source:
        assert source.info.wavelength is None


def test_dropped_frames_are_skipped_but_numbered(tmp_path: Path, reader: Cu3sReader) -> None:
    written = random_cubes(3)
    path = write_session(tmp_path / "a.cu3s", written, gaps=[0, 2, 9])
    with reader.open(str(path)) as source:
        assert source.info.frames == 3
        assert source.info.metadata["frames_with_dropped"] == 6
        assert [source.frame(i).info.frame_id for i in range(3)] == [1, 3, 4]
        assert all(map(np.array_equal, written, read_all(source)))


def test_frame_info(tmp_path: Path, reader: Cu3sReader) -> None:
    own = {
        0: {"capture_time": 1_700_000_000_123},
        1: {"capture_time": 0, "integration_time": "nan"},
    }
    path = write_session(tmp_path / "a.cu3s", random_cubes(2), frames=own, integration_time=7.25)
    with reader.open(str(path)) as source:
        first, second = source.frame(0).info, source.frame(1).info
    assert (first.time_ms, first.frame_id, first.integration_time_ms) == (
        1_700_000_000_123,
        0,
        7.25,
    )
    assert (second.time_ms, second.frame_id, second.integration_time_ms) == (None, 1, None)


def test_a_naive_capture_time_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    naive = datetime(2024, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001  (wrappers before 3.6)
    info = frame_info(SimpleNamespace(capture_time=naive, frame_id=1, integration_time=2))
    monkeypatch.undo()
    time.tzset()
    assert info.time_ms == 1_704_164_645_678


def test_metadata_is_json_and_complete(
    tmp_path: Path, reader: Cu3sReader, library: Library
) -> None:
    path = write_session(
        tmp_path / "a.cu3s",
        random_cubes(1),
        fps=12.5,
        hash="ab12",
        operation_mode="Internal",
        product_name="ULTRIS X20",
        serial_number="4711",
        comment="caf\udce9 \udcff",
        distance=-1,
        averages=3,
        flags=0,
        factory_calibration=1_600_000_000_000,
        session_name="field",
        session_no=4,
        sequence_no=2,
    )
    with reader.open(str(path)) as source:
        info = source.info
    metadata = json.loads(json.dumps(dict(info.metadata), allow_nan=False))
    assert metadata == info.metadata
    assert info.sensor == "ULTRIS X20 4711"
    assert info.path == info.pixels == str(path)
    assert info.files == (str(path),)
    assert (info.reader, info.access, info.mode) == ("cu3s", "frame", "Reflectance")
    assert info.reader_version.startswith("3.")
    assert metadata["sdk"]["library"].startswith("SIMULATED CUVIS")
    assert metadata["sdk"]["built_against"].startswith("CUBERT SDK")
    assert (metadata["fps"], metadata["hash"], metadata["operation_mode"]) == (
        12.5,
        "ab12",
        "Internal",
    )
    assert metadata["references"] == {"Dark": "recording", "White": "recording"}
    first = metadata["first_frame"]
    assert first["comment"] == "caf\ufffd \ufffd"
    assert first["distance_mm"] is None
    assert (first["averages"], first["factory_calibration"]) == (3, "2020-09-13")
    assert first["session"] == {"name": "field", "number": 4, "sequence": 2}


@pytest.mark.parametrize("call", ["get_fps", "get_hash", "get_operation_mode", "get_size"])
def test_what_a_session_need_not_say_may_fail(
    tmp_path: Path, reader: Cu3sReader, call: str
) -> None:
    fault = Fault(call, status=-30, after=int(call == "get_size"))
    path = write_session(tmp_path / "a.cu3s", random_cubes(1), fps=3, hash="x", faults=[fault])
    key = {"get_size": "frames_with_dropped"}.get(call, call.removeprefix("get_"))
    with reader.open(str(path)) as source:
        assert source.info.metadata[key] is None


def test_silent_zeros_of_the_wrapper_do_not_matter(tmp_path: Path, reader: Cu3sReader) -> None:
    faults = [Fault("get_data_gps", 0), Fault("get_data_sensor_info", 0)]
    written = random_cubes(1)
    path = write_session(tmp_path / "a.cu3s", written, faults=faults)
    with reader.open(str(path)) as source:
        assert np.array_equal(read_all(source), written)
        assert "48.4" not in json.dumps(dict(source.info.metadata))


# ---------------------------------------------------------------------- modes

QUANTITIES = [
    # mode, dtype, quantity, scale, saturation
    ("Raw", np.uint8, "dn", 1.0, None),
    ("Raw", np.uint16, "dn", 1.0, None),
    ("DarkSubtract", np.uint16, "dn", 1.0, None),
    ("Reflectance", np.uint16, "reflectance", 1e-4, 65535.0),
    ("Reflectance", np.uint32, "reflectance", 1e-4, None),
    ("Reflectance", np.float32, "reflectance", 1.0, None),
    ("SpectralRadiance", np.float32, "radiance", 1.0, None),
]


@pytest.mark.parametrize(("mode", "dtype", "quantity", "scale", "saturation"), QUANTITIES)
def test_each_mode_yields_its_own_cube(
    tmp_path: Path,
    reader: Cu3sReader,
    mode: str,
    dtype: Any,
    quantity: str,
    scale: float,
    saturation: float | None,
) -> None:
    names = ["Raw", "DarkSubtract", "Reflectance", "SpectralRadiance"]
    entry = dict(zip(names, random_cubes(4), strict=True))
    (entry[mode],) = random_cubes(1, dtype)
    references = ["White", "Dark", "SpRad"]
    path = write_session(tmp_path / "a.cu3s", [entry], references=references)
    for name in (mode, mode.lower(), mode.upper()):
        with reader.open(str(path), mode=name) as source:
            info = source.info
            assert np.array_equal(read_all(source), [entry[mode]])
            assert (info.mode, info.quantity, info.scale) == (mode, quantity, scale)
            assert (info.saturation, info.offset, info.nodata) == (saturation, 0.0, None)


def test_a_mode_is_applied_even_to_a_cube_that_is_there(
    tmp_path: Path, reader: Cu3sReader, library: Library
) -> None:
    raw, reflectance = random_cubes(2)
    entry = {"Raw": raw, "Reflectance": reflectance}
    path = write_session(tmp_path / "a.cu3s", [entry], stored="Raw")
    with reader.open(str(path)) as source:
        assert np.array_equal(read_all(source), [reflectance])
    before = library.calls("apply")
    path = write_session(tmp_path / "b.cu3s", [entry], stored="Reflectance")
    with reader.open(str(path), mode="Reflectance") as source:
        assert np.array_equal(read_all(source), [reflectance])
    assert library.calls("apply") == before + 2  # once to describe, once for the frame


@pytest.mark.parametrize("mode", ["stored", "Stored"])
def test_stored_takes_the_cube_that_is_there(
    tmp_path: Path, reader: Cu3sReader, library: Library, mode: str
) -> None:
    applied, contexts = library.calls("apply"), library.created("contexts")
    written = random_cubes(2, np.float32)
    path = write_session(
        tmp_path / "a.cu3s", written, mode="SpectralRadiance", stored="SpectralRadiance"
    )
    with reader.open(str(path), mode=mode) as source:
        assert np.array_equal(read_all(source), written)
        assert (source.info.mode, source.info.quantity) == ("SpectralRadiance", "radiance")
        assert source.info.metadata["mode_asked"] == "stored"
    assert library.calls("apply") == applied
    assert library.created("contexts") == contexts


def test_stored_without_a_cube_is_raw(tmp_path: Path, reader: Cu3sReader) -> None:
    raw, reflectance = random_cubes(2)
    entry = {"Raw": raw, "Reflectance": reflectance}
    path = write_session(tmp_path / "a.cu3s", [entry], references=[])
    with reader.open(str(path), mode="stored") as source:
        assert np.array_equal(read_all(source), [raw])
        assert (source.info.mode, source.info.quantity) == ("Raw", "dn")


def test_stored_refuses_a_frame_in_another_mode(tmp_path: Path, reader: Cu3sReader) -> None:
    entry = dict(zip(["Raw", "Reflectance"], random_cubes(2), strict=True))
    path = write_session(
        tmp_path / "a.cu3s", [entry] * 3, stored="Reflectance", frames={1: {"stored": None}}
    )
    with reader.open(str(path), mode="stored") as source:
        with pytest.raises(SourceError, match=r"mode differs.* got Raw, expected Reflectance") as e:
            source.frame(1)
        assert e.value.frame == 1
        assert np.array_equal(source.frame(2).read(0, 3), entry["Reflectance"])


def test_preview_makes_no_cube(tmp_path: Path, reader: Cu3sReader) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(1), stored="Reflectance")
    with pytest.raises(SourceError, match="no cube in mode Preview"):
        reader.open(str(path), mode="preview")


def test_a_mode_other_than_the_one_asked_is_refused(tmp_path: Path, reader: Cu3sReader) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(2), frames={1: {"made": "Raw"}})
    with (
        reader.open(str(path)) as source,
        pytest.raises(SourceError, match="asked for Reflectance, the Cuvis SDK made Raw"),
    ):
        source.frame(1)


def test_an_unknown_mode_is_a_configuration_error(
    tmp_path: Path, reader: Cu3sReader, library: Library
) -> None:
    loaded = library.calls("load")
    path = write_session(tmp_path / "a.cu3s", random_cubes(1))
    with pytest.raises(ConfigError, match="Did you mean 'Reflectance'") as e:
        reader.open(str(path), mode="Reflectanse")
    for name in ("Raw", "DarkSubtract", "Reflectance", "SpectralRadiance", "Preview", "stored"):
        assert name in e.value.message
    assert library.calls("load") == loaded


def test_one_context_a_source_and_one_start_a_process(
    tmp_path: Path, reader: Cu3sReader, library: Library
) -> None:
    path = str(write_session(tmp_path / "a.cu3s", random_cubes(3)))
    before = library.created("contexts")
    for _ in range(2):
        with reader.open(path) as source:
            read_all(source)
    assert library.created("contexts") == before + 2
    assert library.calls("init") == 1
    assert library.init_level == 2  # warning
    assert library.init_found_settings
    assert library.init_settings.is_absolute()  # and not whatever lies in the current folder
    assert not library.init_settings.exists()


# ---------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("mode", "references", "missing", "possible"),
    [
        (None, [], "White and a Dark", "Raw, stored"),
        ("Reflectance", ["Dark"], "White", "Raw, DarkSubtract, stored"),
        ("Reflectance", ["White", "WhiteDark"], "Dark", "Raw, stored"),
        ("DarkSubtract", ["White"], "Dark", "Raw, stored"),
        ("SpectralRadiance", ["SpRad"], "Dark", "Raw, stored"),
    ],
)
def test_missing_references_are_told_at_opening(
    tmp_path: Path,
    reader: Cu3sReader,
    mode: str | None,
    references: list[str],
    missing: str,
    possible: str,
) -> None:
    entry = dict(
        zip(
            ["Raw", "DarkSubtract", "Reflectance", "SpectralRadiance"], random_cubes(4), strict=True
        )
    )
    path = write_session(tmp_path / "a.cu3s", [entry], references=references)
    with pytest.raises(SourceError) as e:
        reader.open(str(path), mode=mode)
    assert f"needs a {missing} reference" in e.value.message
    assert f"it has {', '.join(references) or 'none'}" in e.value.message
    assert e.value.hint == f"Modes that are possible: {possible}."
    assert (e.value.path, e.value.frame) == (str(path), None)


def test_references_within_the_frames_count(tmp_path: Path, reader: Cu3sReader) -> None:
    written = random_cubes(1)
    path = write_session(tmp_path / "a.cu3s", written, references=["Dark"], implicit=["White"])
    with reader.open(str(path)) as source:
        assert np.array_equal(read_all(source), written)
        assert source.info.metadata["references"] == {"Dark": "recording"}


def test_references_that_only_the_session_tells_of_count(
    tmp_path: Path, reader: Cu3sReader, library: Library
) -> None:
    faults = [Fault("is_capable", 0), Fault("has_reference")]
    written = random_cubes(1)
    path = write_session(tmp_path / "a.cu3s", written, faults=faults)
    asked = library.calls("get_reference")
    with reader.open(str(path)) as source:
        assert np.array_equal(read_all(source), written)
    assert library.calls("get_reference") > asked


def test_a_library_that_fails_when_asked_for_references_has_none(
    tmp_path: Path, reader: Cu3sReader
) -> None:
    path = write_session(
        tmp_path / "a.cu3s", random_cubes(1), references=[], faults=[Fault("get_reference")]
    )
    with pytest.raises(SourceError, match="White and a Dark reference"):
        reader.open(str(path))


def test_what_only_the_sdk_knows_to_be_missing_is_told_at_opening(
    tmp_path: Path, reader: Cu3sReader
) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(2), mode="SpectralRadiance")
    with pytest.raises(SourceError, match="simulated: cannot process: a reference is missing"):
        reader.open(str(path), mode="SpectralRadiance")


def test_references_from_other_files(tmp_path: Path, library: Library) -> None:
    written = random_cubes(2)
    path = str(write_session(tmp_path / "a.cu3s", written, references=["Dark"]))
    white = str(write_session(tmp_path / "w.cu3s", random_cubes(1), mode="Raw"))
    with Cu3sReader(white=white).open(path) as source:
        assert np.array_equal(read_all(source), written)
        assert source.info.files == (path, white)
        assert source.info.metadata["references"] == {"Dark": "recording", "White": white}
        # The wrapper's measurement keeps its own session.
        assert library.live() == {"sessions": 2, "contexts": 1, "measurements": 1}
    for mode in ("stored", "Raw", "Preview"):
        with pytest.raises(ConfigError, match=f"White reference files are given, but mode {mode}"):
            Cu3sReader(white=white).open(path, mode=mode)


def test_a_bad_reference_file_is_named(tmp_path: Path) -> None:
    path = str(write_session(tmp_path / "a.cu3s", random_cubes(1)))
    absent = str(tmp_path / "none.cu3s")
    with pytest.raises(SourceError, match="no such file") as e:
        Cu3sReader(dark=absent).open(path)
    assert e.value.path == absent
    garbage = tmp_path / "garbage.cu3s"
    garbage.write_bytes(b"no session at all, but long enough to be one")
    with pytest.raises(SourceError, match="could not open the reference") as e:
        Cu3sReader(dark=str(garbage)).open(path)
    assert e.value.path == str(garbage)
    empty = str(write_session(tmp_path / "e.cu3s", [], gaps=[0]))
    with pytest.raises(SourceError, match="could not read the reference") as e:
        Cu3sReader(dark=empty).open(path)
    assert e.value.path == empty
    lost = [Fault("get_mesu", 0, -20)]
    dropped = str(write_session(tmp_path / "d.cu3s", random_cubes(1), faults=lost))
    with pytest.raises(SourceError, match="first frame of the reference was dropped") as e:
        Cu3sReader(dark=dropped).open(path)
    assert e.value.path == dropped


# ---------------------------------------------------------------------- the real thing

REAL = ("HSI_BATCH_REAL_CUVIS", "HSI_BATCH_REAL_CU3S")
#: As it was before the simulated library was set up.
ENVIRONMENT = dict(os.environ)


@pytest.mark.skipif(
    not all(os.environ.get(name) for name in REAL),
    reason=f"set {REAL[0]} (folder of libcuvis.so) and {REAL[1]} (a recording) to run it",
)
def test_a_real_recording_on_the_real_library() -> None:
    script = """
import json, sys
import numpy as np
from hsi_batch.readers.cu3s import Cu3sReader
for mode in ("Raw", "stored"):
    with Cu3sReader().open(sys.argv[1], mode=mode) as source:
        info = source.info
        assert "SIMULATED" not in info.metadata["sdk"]["library"]
        json.dumps(dict(info.metadata), allow_nan=False)
        for index in sorted({0, info.frames - 1}):
            cube = source.frame(index).read(0, info.shape[0])
            assert (cube.shape, cube.dtype) == (info.shape, info.dtype)
            assert cube.min() < cube.max()
        if info.wavelength is not None:
            assert 100 < info.wavelength.min() <= info.wavelength.max() < 20_000
        print(mode, info)
"""
    environment = {**ENVIRONMENT, "CUVIS": os.environ[REAL[0]]}
    done = subprocess.run(
        [sys.executable, "-c", script, os.environ[REAL[1]]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
