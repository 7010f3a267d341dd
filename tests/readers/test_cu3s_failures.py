"""The .cu3s reader over the simulated library: frames and files that cannot be read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_cuvis import Fault, Hole, Library, write_session
from simulated_cuvis.helpers import SHAPE, random_cubes
from simulated_cuvis.plugin import library_fixture, simulated_cuvis_fixture  # noqa: F401

from hsi_batch.errors import SourceError
from hsi_batch.readers.cu3s import Cu3sReader

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture
def reader() -> Cu3sReader:
    return Cu3sReader()


def assert_ours(error: SourceError, library: Library, live: dict[str, int]) -> None:
    """The error is whole, ours alone, and holds no handle."""
    assert error.__cause__ is None
    assert error.__context__ is None
    assert library.live() == live
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.path, again.frame) == (str(error), error.path, error.frame)
    assert "\n" not in str(error)


@pytest.mark.parametrize("call", ["load", "get_size", "create", "set_args"])
def test_failures_of_the_session(
    tmp_path: Path, reader: Cu3sReader, library: Library, call: str
) -> None:
    path = write_session(
        tmp_path / "a.cu3s", random_cubes(2), faults=[Fault(call, message="the disk is on fire")]
    )
    with pytest.raises(SourceError, match=r"\(SDKException: the disk is on fire\)") as e:
        reader.open(str(path))
    assert (e.value.path, e.value.frame) == (str(path), None)
    assert_ours(e.value, library, {})


FRAME_FAILURES = [
    # the call, how often it works before, and what the wrapper raises
    ("get_mesu", 0, "SDKException: too hot"),
    ("get_metadata", 0, "SDKException: too hot"),
    ("get_metadata", 1, "SDKException: too hot"),
    ("get_data_count", 0, "SDKException: too hot"),
    ("get_data_count", 1, "SDKException: too hot"),
    ("get_data_info", 0, "ValueError"),
    ("get_data_info", 7, "ValueError"),
    ("get_data_image", 0, "KeyError: 0"),
    ("get_data_image", 2, "KeyError: 0"),
    ("get_data_string", 0, "ValueError"),
    ("apply", 0, "SDKException: too hot"),
]


@pytest.mark.parametrize(("call", "after", "reason"), FRAME_FAILURES)
def test_failures_of_one_frame(
    tmp_path: Path, reader: Cu3sReader, library: Library, call: str, after: int, reason: str
) -> None:
    written = random_cubes(3)
    fault = Fault(call, 1, after=after, message="too hot")
    path = write_session(tmp_path / "a.cu3s", written, stored="Reflectance", faults=[fault])
    with reader.open(str(path)) as source:
        with pytest.raises(SourceError) as e:
            source.frame(1)
        assert (e.value.path, e.value.frame) == (str(path), 1)
        assert reason in e.value.message
        assert_ours(e.value, library, {"sessions": 1, "contexts": 1})
        assert np.array_equal(source.frame(0).read(0, 3), written[0])
        assert np.array_equal(source.frame(2).read(0, 3), written[2])


@pytest.mark.parametrize("status", [-1, -10, -11, -12, -30, -41, -42, -43])
@pytest.mark.parametrize("call", ["get_mesu", "apply"])
def test_every_status_is_an_error_of_the_frame(
    tmp_path: Path, reader: Cu3sReader, library: Library, call: str, status: int
) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(2), faults=[Fault(call, 1, status)])
    with reader.open(str(path)) as source:
        with pytest.raises(SourceError, match="simulated failure") as e:
            source.frame(1)
        assert e.value.frame == 1
        assert_ours(e.value, library, {"sessions": 1, "contexts": 1})


def test_a_frame_that_is_none(tmp_path: Path, reader: Cu3sReader, library: Library) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(2), faults=[Fault("get_mesu", 1, -20)])
    with reader.open(str(path)) as source:
        with pytest.raises(SourceError, match="dropped") as e:
            source.frame(1)
        assert_ours(e.value, library, {"sessions": 1, "contexts": 1})


def test_a_time_that_no_calendar_has(tmp_path: Path, reader: Cu3sReader, library: Library) -> None:
    path = write_session(
        tmp_path / "a.cu3s", random_cubes(2), frames={1: {"capture_time": 2**64 - 1}}
    )
    with reader.open(str(path)) as source:
        with pytest.raises(SourceError, match="OverflowError") as e:
            source.frame(1)
        assert_ours(e.value, library, {"sessions": 1, "contexts": 1})


def test_the_text_of_the_library_may_be_any_bytes(tmp_path: Path, reader: Cu3sReader) -> None:
    fault = Fault("apply", 0, message="caf\udce9 br\u00fbl\u00e9")
    path = write_session(tmp_path / "a.cu3s", random_cubes(1), faults=[fault])
    with pytest.raises(SourceError, match=r"caf. br\u00fbl\u00e9") as e:
        reader.open(str(path))
    str(e.value).encode("utf-8")


@pytest.mark.parametrize(
    ("other", "own", "what"),
    [
        (
            random_cubes(1, shape=(3, 4, 6))[0],
            {},
            r"shape .* got \(3, 4, 6\), expected \(3, 4, ",
        ),
        (random_cubes(1, np.uint8)[0], {}, "dtype .* got uint8, expected uint16"),
        (
            random_cubes(1)[0],
            {"wavelengths": [1, 2, 3, 4, 5]},
            r"wavelengths .* got \[1.0, .* \[400.0,",
        ),
        (random_cubes(1)[0], {"wavelengths": None}, "wavelengths .* got None"),
    ],
)
def test_a_frame_that_differs(
    tmp_path: Path, reader: Cu3sReader, other: Any, own: dict[str, Any], what: str
) -> None:
    first, last = random_cubes(2)
    path = write_session(tmp_path / "a.cu3s", [first, other, last], frames={1: own})
    with reader.open(str(path)) as source:
        with pytest.raises(SourceError, match=what) as e:
            source.frame(1)
        assert e.value.frame == 1
        assert np.array_equal(source.frame(2).read(0, 3), last)


def test_an_empty_cube(tmp_path: Path, reader: Cu3sReader) -> None:
    path = write_session(tmp_path / "a.cu3s", [np.zeros((0, 4, 5), np.uint16)])
    with pytest.raises(SourceError, match=r"the cube is \(0, 4, 5\) uint16"):
        reader.open(str(path))


def test_the_first_readable_frame_describes_the_recording(
    tmp_path: Path, reader: Cu3sReader
) -> None:
    faults = [Fault("get_mesu", 0), Fault("apply", 1)]
    written = random_cubes(3)
    path = write_session(tmp_path / "a.cu3s", written, faults=faults)
    with reader.open(str(path)) as source:
        assert source.info.frames == 3
        assert source.info.metadata["first_frame"]["frame_id"] == 2
        for bad in (0, 1):
            with pytest.raises(SourceError):
                source.frame(bad)
        assert np.array_equal(source.frame(2).read(0, 3), written[2])


@pytest.mark.parametrize(("count", "tried"), [(3, "its frames"), (40, "the first 32 of 40 frames")])
def test_a_recording_without_a_readable_frame(
    tmp_path: Path, reader: Cu3sReader, library: Library, count: int, tried: str
) -> None:
    faults = [Fault("apply", i, message=f"number {i}") for i in range(count)]
    path = write_session(tmp_path / "a.cu3s", [Hole(SHAPE)] * count, faults=faults)
    applied = library.calls("apply")
    with pytest.raises(SourceError, match=f"none of {tried} can be read: frame 0: .*number 0") as e:
        reader.open(str(path))
    assert e.value.frame is None
    assert library.calls("apply") == applied + min(count, 32)
    assert_ours(e.value, library, {})


@pytest.mark.parametrize("index", [-1, 2, 2**31, 2**40, np.int64(7)])
def test_indices_out_of_range(tmp_path: Path, reader: Cu3sReader, index: Any) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(2))
    with reader.open(str(path)) as source:
        with pytest.raises(SourceError, match="has 2 frames") as e:
            source.frame(index)
        assert e.value.frame == index


def test_indices_of_numpy_and_of_no_kind(tmp_path: Path, reader: Cu3sReader) -> None:
    written = random_cubes(2)
    with reader.open(str(write_session(tmp_path / "a.cu3s", written))) as source:
        assert np.array_equal(source.frame(np.int64(1)).read(0, 3), written[1])
        for index in ("1", 1.0, slice(1)):
            with pytest.raises(TypeError):
                source.frame(index)


# ---------------------------------------------------------------------- files


def test_a_file_cut_short_loses_its_last_frames_only(tmp_path: Path, reader: Cu3sReader) -> None:
    written = random_cubes(3, shape=(16, 16, 16))
    path = write_session(tmp_path / "a.cu3s", written)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 6000)
    with reader.open(str(path)) as source:
        assert np.array_equal(source.frame(1).read(0, 16), written[1])
        with pytest.raises(SourceError, match="ends within the frame") as e:
            source.frame(2)
        assert e.value.frame == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def scramble(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"shape 3", b"shore 3"))


def garble(path: Path) -> None:
    path.write_bytes(b"\x00\xff" * 5000)


@pytest.mark.parametrize("damage", [cut, scramble, garble])
def test_a_damaged_file(tmp_path: Path, reader: Cu3sReader, library: Library, damage: Any) -> None:
    path = write_session(tmp_path / "a.cu3s", random_cubes(1))
    damage(path)
    with pytest.raises(SourceError, match="could not open the file") as e:
        reader.open(str(path))
    assert e.value.path == str(path)
    assert "damaged" in e.value.hint
    assert_ours(e.value, library, {})


def test_files_that_are_none(tmp_path: Path, reader: Cu3sReader, library: Library) -> None:
    loaded = library.calls("load")
    (tmp_path / "folder.cu3s").mkdir()
    (tmp_path / "empty.cu3s").touch()
    (tmp_path / "scene.cu3").write_bytes(b"x")
    reasons = {
        "none.cu3s": "no such file",
        "folder.cu3s": "a folder",
        "empty.cu3s": "the file is empty",
        "scene.cu3": "the suffix is '.cu3'",
        "scene": "the suffix is ''",
    }
    for name, reason in reasons.items():
        path = str(tmp_path / name)
        with pytest.raises(SourceError, match=reason) as e:
            reader.open(path)
        assert e.value.path == path
        assert e.value.hint
    assert library.calls("load") == loaded


def test_a_recording_of_nothing_but_references(tmp_path: Path, reader: Cu3sReader) -> None:
    path = write_session(tmp_path / "a.cu3s", [], gaps=[0])
    with pytest.raises(SourceError, match="no frames"):
        reader.open(str(path))


def test_names_in_any_script(tmp_path: Path, reader: Cu3sReader) -> None:
    folder = tmp_path / "Äcker \u68ee"
    folder.mkdir()
    path = write_session(folder / "Größe 1.CU3S", random_cubes(1))
    with reader.open(str(path)) as source:
        assert source.info.path == str(path)


def test_names_of_references(reader: Cu3sReader) -> None:
    skipped = ["white", "Dark_001", "scene_white_ref", "WHITEREF_scene", "DARKREF_2024-05-01"]
    taken = ["lentils_000", "whitefish_01", "dark_chocolate_2", "Auto_001"]
    for stem in skipped:
        assert "reference" in (reader.skip_reason(f"/no/such/{stem}.cu3s") or ""), stem
    for stem in taken:
        assert reader.skip_reason(f"/no/such/{stem}.cu3s") is None, stem
