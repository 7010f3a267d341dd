"""npz cubes: however they were saved, the lines are those of the cube."""

import io
import zipfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers.envi_files import bytes_read, random_cube, shared_data

from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.readers.npz import NpzReader

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def save(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return str(path)


def rewrite(path, compression):
    """The same members under another compression."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


@st.composite
def saved_cubes(draw):
    frames = draw(st.one_of(st.none(), st.integers(1, 3)))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(draw(st.sampled_from("<>")))
    full = shape if frames is None else (frames, *shape)
    cube = random_cube(full, dtype.newbyteorder("="), draw(st.integers(0, 9))).astype(dtype)
    if draw(st.booleans()):
        cube = np.asfortranarray(cube)
    cuts = sorted(draw(st.lists(st.integers(0, shape[0]), max_size=4)))
    return cube, frames, draw(st.booleans()), [0, *cuts, shape[0]]


@settings(deadline=None, max_examples=150)
@given(saved_cubes())
def test_any_cube_is_read_by_lines(tmp_path_factory, case):
    cube, frames, compressed, cuts = case
    path = save(tmp_path_factory.mktemp("npz") / "a.npz", compressed, cube=cube)
    with NpzReader().open(path) as source:
        info = source.info
        expected = cube[None] if frames is None else cube
        assert info.frames == len(expected)
        assert info.shape == cube.shape[-3:]
        assert info.dtype == cube.dtype.newbyteorder("=")
        fortran = not cube.flags.c_contiguous
        assert info.access == ("frame" if fortran else "sequential" if compressed else "lines")
        for index, whole in enumerate(expected):
            frame = source.frame(index)
            for start, stop in pairwise(cuts):
                lines = frame.read(start, stop)
                np.testing.assert_array_equal(lines, whole[start:stop])
                assert lines.dtype == info.dtype
                assert lines.dtype.isnative
                assert lines.flags.c_contiguous


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_in_any_order(tmp_path, compressed):
    cube = random_cube((4, 5, 3, 2), "u2")
    path = save(tmp_path / "a.npz", compressed, cube=cube)
    with NpzReader().open(path) as source:
        for index in (2, 0, 3, 1, 1):
            assert np.array_equal(source.frame(index).read(1, 4), cube[index, 1:4])


def test_frames_opened_at_once(tmp_path):
    cube = random_cube((2, 6, 3, 2), "u2")
    with NpzReader().open(save(tmp_path / "a.npz", True, cube=cube)) as source:
        first, second = source.frame(0), source.frame(1)
        parts = [(first.read(i, i + 1), second.read(i, i + 1)) for i in range(6)]
    assert np.array_equal(np.concatenate([p[0] for p in parts]), cube[0])
    assert np.array_equal(np.concatenate([p[1] for p in parts]), cube[1])


def test_a_compressed_frame_does_not_go_back(tmp_path):
    cube = random_cube((6, 3, 2), "u2")
    with NpzReader().open(save(tmp_path / "a.npz", True, cube=cube)) as source:
        frame = source.frame(0)
        assert np.array_equal(frame.read(3, 4), cube[3:4])
        with pytest.raises(ValueError, match=r"lines 2:3 .* after line 3; .*Open the frame again"):
            frame.read(2, 3)
        assert np.array_equal(source.frame(0).read(2, 3), cube[2:3])


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(tmp_path, compression):
    cube = random_cube((6, 3, 2), "u2")
    path = save(tmp_path / "a.npz", cube=cube)
    rewrite(path, compression)
    with NpzReader().open(path) as source:
        assert source.info.access == "sequential"
        assert np.array_equal(source.frame(0).read(0, 6), cube)


def test_lines_are_read_in_place(tmp_path):
    cube = random_cube((2, 200, 50, 40), "u2")
    with NpzReader().open(save(tmp_path / "a.npz", other=cube[0], cube=cube)) as source:
        before = bytes_read()
        lines = source.frame(1).read(70, 80)
        count = bytes_read() - before
    assert np.array_equal(lines, cube[1, 70:80])
    assert lines.nbytes <= count < lines.nbytes + 2000


def test_a_large_compressed_cube_in_pieces(tmp_path):
    cube = np.arange(2 * 300 * 100 * 60, dtype="u4").reshape(2, 300, 100, 60)
    with NpzReader().open(save(tmp_path / "a.npz", True, cube=cube)) as source:
        frame = source.frame(1)
        assert np.array_equal(frame.read(100, 290), cube[1, 100:290])
        assert np.array_equal(frame.read(295, 300), cube[1, 295:])


def test_a_large_fortran_cube_in_pieces(tmp_path):
    cube = np.asfortranarray(random_cube((1500, 1100, 3), "u2"))
    with NpzReader().open(save(tmp_path / "a.npz", cube=cube)) as source:
        assert np.array_equal(source.frame(0).read(700, 720), cube[700:720])


def test_the_returned_lines_are_the_callers(tmp_path):
    cube = np.asfortranarray(random_cube((4, 3, 2), "u2"))
    with NpzReader().open(save(tmp_path / "a.npz", cube=cube)) as source:
        frame = source.frame(0)
        frame.read(0, 4)[:] = 0
        assert np.array_equal(frame.read(0, 4), cube)


# --- what else is in the file -------------------------------------------------------------------

CUBE = random_cube((4, 3, 2), "u2")


def info(folder, **arrays):
    with NpzReader().open(save(folder / "a.npz", cube=CUBE, **arrays)) as source:
        return source.info


@pytest.mark.parametrize("key", ["wavelengths", "wavelength"])
@pytest.mark.parametrize("dtype", ["i4", ">f4", "f8"])
def test_wavelengths(tmp_path, key, dtype):
    found = info(tmp_path, **{key: np.array([500, 600], dtype)}).wavelength
    assert found.tolist() == [500, 600]
    assert found.dtype == np.float64


@pytest.mark.parametrize("value", [None, [], [0, 0]])
def test_wavelengths_that_are_not_known(tmp_path, value):
    assert info(tmp_path, **({} if value is None else {"wavelengths": value})).wavelength is None


@pytest.mark.parametrize("value", [[500], [500, 600, 700], ["a", "b"], [500, -1], [500, np.nan]])
def test_wavelengths_that_are_wrong(tmp_path, value):
    with pytest.raises(SourceError, match=r"a.npz: 'wavelengths' .*leave it out"):
        info(tmp_path, wavelengths=value)


def test_metadata(tmp_path):
    found = info(
        tmp_path, meta='{"sensor": "AVIRIS", "n": [1]}', source="s.cu3s", mask=CUBE[..., 0]
    )
    assert found.sensor == "AVIRIS"
    assert found.metadata == {"meta": {"sensor": "AVIRIS", "n": [1]}, "source": "s.cu3s"}
    assert (found.reader, found.quantity, found.mode) == ("npz", None, None)
    assert found.files == (found.path,) == (found.pixels,)


@pytest.mark.parametrize("meta", ["not json", '["a list"]', '{"sensor": 5}', np.array([1, 2])])
def test_metadata_of_other_kinds(tmp_path, meta):
    assert info(tmp_path, meta=meta).sensor is None


def test_pickled_metadata_is_ignored(tmp_path):
    found = info(tmp_path, meta=np.array({"sensor": "x"}, dtype=object))
    assert found.metadata == {}


def test_real_scenes():
    folder = shared_data()
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored, NpzReader().open(str(path)) as source:
            cube = stored["cube"]
            assert source.info.dtype == cube.dtype
            assert (source.info.wavelength is None) == (stored["wavelengths"].size == 0)
            assert source.info.access == "sequential"
            assert np.array_equal(source.frame(0).read(0, len(cube)), cube)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cube", "words"),
    [
        (CUBE.astype("c8"), "the cube is complex64; expected integers or real numbers"),
        (CUBE > 0, "the cube is bool"),
        (CUBE.astype("U5"), "the cube is str"),
        (CUBE.astype(object), "the cube is object"),
        (CUBE.astype("f8").view("f8,f8")[..., 0], "the cube is void"),
        (CUBE.astype("M8[s]"), "the cube is datetime64"),
        (CUBE.astype(np.longdouble), "the cube is"),
        (CUBE[0], r"the cube has 2 axes, shape \(3, 2\); expected \(y, x, channel\) or"),
        (CUBE[None, None], "the cube has 5 axes"),
        (np.float32(3), "the cube has 0 axes"),
        (CUBE[:0], r"the cube is empty, shape \(0, 3, 2\)"),
        (CUBE[None][:0], r"the cube is empty, shape \(0, 4, 3, 2\)"),
    ],
)
def test_cubes_that_are_refused(tmp_path, cube, words):
    path = save(tmp_path / "a.npz", cube=cube)
    with pytest.raises(SourceError, match=words) as caught:
        NpzReader().open(path)
    assert str(caught.value).startswith(path)
    assert caught.value.hint


def test_no_cube(tmp_path):
    path = save(tmp_path / "a.npz", data=CUBE, mask=CUBE)
    with pytest.raises(SourceError, match=r"no array 'cube' in it, only data, mask. Save it as"):
        NpzReader().open(path)
    assert NpzReader().skip_reason(path) == "no array 'cube' in it, only data, mask"


def test_skip_reason_is_for_sound_files_only(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    assert NpzReader().skip_reason(str(tmp_path / "a.npz")) is None
    assert NpzReader().skip_reason(str(tmp_path / "missing.npz")) is None
    assert NpzReader().skip_reason(save(tmp_path / "b.npz", cube=CUBE)) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"no zip at all", "it is not a zip file"),
        (b"\x93NUMPY\x01\x00v\x00", "it is a single .npy array under the wrong name"),
        (b"PK\x03\x04" + bytes(99), "its end is missing or damaged"),
    ],
)
def test_what_is_not_an_npz_file(tmp_path, content, words):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"not a complete npz file: {words}") as caught:
        NpzReader().open(str(path))
    assert "numpy.savez" in caught.value.hint


def test_a_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"missing.npz: cannot be opened: No such file"):
        NpzReader().open(str(tmp_path / "missing.npz"))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file(tmp_path, compressed):
    path = Path(save(tmp_path / "a.npz", compressed, cube=CUBE))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"its end is missing or damaged .*Copy it again"):
        NpzReader().open(str(path))


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(CUBE)[:-1], r"sizes disagree: array 'cube' has 175 bytes; expected 176 for 4 x 3 x 2"),
        (npy(CUBE) + b"x", r"sizes disagree: array 'cube' has 177 bytes; expected 176"),
        (b"not npy", r"array 'cube' cannot be read: .*magic"),
        (b"", r"array 'cube' cannot be read"),
        (b"\x93NUMPY\x03\x00" + bytes(20), r"npy format 3.0 is for records"),
        (npy(CUBE)[:20], r"array 'cube' cannot be read"),
    ],
)
def test_members_that_are_damaged(tmp_path, compression, content, words):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("cube.npy", content)
    with pytest.raises(SourceError, match=words) as caught:
        NpzReader().open(str(path))
    assert caught.value.hint


def damaged(path, old, new):
    content = Path(path).read_bytes()
    assert content.count(old) >= 1
    Path(path).write_bytes(content.replace(old, new))


def test_a_wrong_checksum_shows_at_the_last_line(tmp_path):
    cube = random_cube((40, 30, 20), "u2")
    path = save(tmp_path / "a.npz", True, cube=cube)
    with zipfile.ZipFile(path) as file:
        crc = file.getinfo("cube.npy").CRC.to_bytes(4, "little")
    damaged(path, crc, bytes(4))
    with NpzReader().open(path) as source:
        frame = source.frame(0)
        frame.read(0, 20)
        with pytest.raises(
            SourceError, match=r"lines 20:40 cannot be decompressed: Bad CRC"
        ) as caught:
            frame.read(20, 40)
    assert caught.value.frame == 0
    assert "copy or create it again" in caught.value.hint


def test_damaged_compressed_data(tmp_path):
    cube = random_cube((400, 30, 20), "u2") & 255
    path = save(tmp_path / "a.npz", True, cube=cube)
    content = bytearray(Path(path).read_bytes())
    content[200_000:200_030] = b"\xff" * 30
    Path(path).write_bytes(content)
    with NpzReader().open(path) as source:
        with pytest.raises(SourceError, match=r"lines 0:400 cannot be decompressed"):
            source.frame(0).read(0, 400)
        # What lies before the damage can still be read, from a frame opened again.
        assert np.array_equal(source.frame(0).read(0, 3), cube[:3])


@settings(deadline=None)
@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(-900, 899), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_any_damage_is_a_source_error(tmp_path_factory, compressed, damages):
    folder = tmp_path_factory.mktemp("damage")
    path = save(folder / "a.npz", compressed, cube=CUBE, wavelengths=[400, 500], meta="{}")
    content = bytearray(Path(path).read_bytes())
    for place, value in damages:
        content[place % len(content)] = value
    Path(path).write_bytes(content)
    with suppress(SourceError), NpzReader().open(path) as source:
        source.frame(0).read(0, source.info.shape[0])


def test_names_that_are_empty(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("xxxx", b"")
        file.writestr("folder/", b"")
        file.writestr("cube.npy", npy(CUBE))
    content = (tmp_path / "a.npz").read_bytes()
    at = content.index(b"PK\x01\x02")
    content = content[: at + 28] + bytes(2) + content[at + 30 : at + 46] + content[at + 50 :]
    end = content.index(b"PK\x05\x06")
    size = int.from_bytes(content[end + 12 : end + 16], "little") - 4
    content = content[: end + 12] + size.to_bytes(4, "little") + content[end + 16 :]
    (tmp_path / "a.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert "" in file.namelist()
    with NpzReader().open(str(tmp_path / "a.npz")) as source:
        assert np.array_equal(source.frame(0).read(0, 4), CUBE)


def test_a_header_that_numpy_stumbles_on(tmp_path):
    content = npy(CUBE)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr(
            "cube.npy", content.replace(b"'shape': (4, 3, 2), }", b"'shape': (4, 3, 2, { ")
        )
    with pytest.raises(SourceError, match="array 'cube' cannot be read: "):
        NpzReader().open(str(tmp_path / "a.npz"))


def test_an_encrypted_member(tmp_path):
    path = save(tmp_path / "a.npz", cube=CUBE)
    content = bytearray(Path(path).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    Path(path).write_bytes(content)
    with pytest.raises(SourceError, match=r"array 'cube' cannot be read: .*encrypted"):
        NpzReader().open(path)


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 5)])
def test_lines_that_are_not_there_are_an_index_error(tmp_path, bounds):
    with (
        NpzReader().open(save(tmp_path / "a.npz", cube=CUBE)) as source,
        pytest.raises(IndexError, match=r"the frame has lines 0:4"),
    ):
        source.frame(0).read(*bounds)


@pytest.mark.parametrize("index", [-1, 1])
def test_frames_that_are_not_there(tmp_path, index):
    with (
        NpzReader().open(save(tmp_path / "a.npz", cube=CUBE)) as source,
        pytest.raises(SourceError, match=rf"frame {index}: there is no such frame; .* 0 to 0"),
    ):
        source.frame(index)


def test_modes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no processing modes; 'Raw' was asked for"):
        NpzReader().open(save(tmp_path / "a.npz", cube=CUBE), mode="Raw")
