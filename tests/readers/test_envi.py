"""ENVI pixels: whatever the layout, the lines are those of the cube."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers.envi_files import CODES, bytes_read, random_cube, shared_data, write_envi

from hsi_batch.errors import ConfigError, SourceError
from hsi_batch.readers.envi import EnviReader, find_data_file

INTERLEAVES = ("bip", "bil", "bsq")


def read(header, start=0, stop=None):
    with EnviReader().open(header) as source:
        return source.frame(0).read(start, source.info.shape[0] if stop is None else stop)


@st.composite
def layouts(draw):
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 40)))
    start = draw(st.integers(0, shape[0]))
    return {
        "cube": random_cube(
            shape, draw(st.sampled_from(list(CODES.values()))), draw(st.integers(0, 99))
        ),
        "interleave": draw(st.sampled_from(INTERLEAVES)),
        "big": draw(st.booleans()),
        "offset": draw(st.integers(0, 77)),
    }, (start, draw(st.integers(start, shape[0])))


@settings(deadline=None, max_examples=150)
@given(layouts())
def test_any_layout_gives_the_lines_of_the_cube(tmp_path_factory, case):
    layout, (start, stop) = case
    header = write_envi(tmp_path_factory.mktemp("envi"), **layout)
    with EnviReader().open(header) as source:
        lines = source.frame(0).read(start, stop)
        info = source.info
    cube = layout["cube"]
    np.testing.assert_array_equal(lines, cube[start:stop])
    assert lines.dtype == cube.dtype == info.dtype
    assert lines.dtype.isnative
    assert lines.flags.c_contiguous
    assert lines.flags.owndata or lines.base is None or lines.base.flags.owndata
    assert info.shape == cube.shape
    assert (info.frames, info.access, info.reader) == (1, "lines", "envi")


@pytest.mark.parametrize("interleave", INTERLEAVES)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((130, 64, 600), "u2"),  # more pieces than one system call takes, several groups of bands
        ((40, 512, 130), "u1"),  # rows a power of two apart
        ((3, 70_000, 17), "f8"),  # a line alone is larger than the scratch
        ((900, 100, 64), "f4"),  # more lines than the scratch holds
    ],
)
def test_layouts_larger_than_the_scratch(tmp_path, interleave, shape, dtype):
    cube = random_cube(shape, dtype)
    header = write_envi(tmp_path, cube, interleave, big=True, offset=5)
    start, stop = shape[0] // 3, shape[0] - shape[0] // 5
    assert np.array_equal(read(header, start, stop), cube[start:stop])
    assert np.array_equal(read(header), cube)


@pytest.mark.parametrize("interleave", INTERLEAVES)
@pytest.mark.parametrize("big", [False, True])
def test_agrees_with_spectral(tmp_path, interleave, big):
    from spectral.io import envi as spy

    cube = random_cube((5, 6, 7), "i2")
    header = write_envi(tmp_path, cube, interleave, big=big, offset=3)
    theirs = spy.open(header)
    # Without a memory map spectral reads pixel by pixel, which is what we compare with.
    expected = np.array([[theirs.read_pixel(i, j) for j in range(6)] for i in range(5)])
    theirs.fid.close()
    if theirs.using_memmap:
        theirs._memmap = None
    assert np.array_equal(read(header), expected)


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_reads_no_more_than_the_lines_asked_for(tmp_path, interleave):
    cube = random_cube((200, 50, 40), "u2")
    header = write_envi(tmp_path, cube, interleave)
    with EnviReader().open(header) as source:
        before = bytes_read()
        source.frame(0).read(70, 80)
        count = bytes_read() - before
    needed = 10 * 50 * 40 * 2
    assert needed <= count < needed + 2000  # and what reading the counter itself costs


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_threads_share_a_source(tmp_path, interleave):
    cube = random_cube((96, 40, 50), "u2")
    with EnviReader().open(write_envi(tmp_path, cube, interleave)) as source:
        frame = source.frame(0)
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda i: frame.read(i, i + 3), range(0, 96, 3)))
    assert np.array_equal(np.concatenate(parts), cube)


def test_each_read_is_a_new_array(tmp_path):
    cube = random_cube((4, 3, 2), "u2")
    with EnviReader().open(write_envi(tmp_path, cube, "bip")) as source:
        first = source.frame(0).read(0, 4)
        first[:] = 0
        assert np.array_equal(source.frame(0).read(0, 4), cube)


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 5), (5, 6)])
def test_lines_that_are_not_there_are_an_index_error(tmp_path, bounds):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    with (
        EnviReader().open(header) as source,
        pytest.raises(IndexError, match=r"the frame has lines 0:4"),
    ):
        source.frame(0).read(*bounds)


def test_there_is_one_frame(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    with EnviReader().open(header) as source, pytest.raises(SourceError) as caught:
        source.frame(1)
    assert caught.value.frame == 1
    assert header in str(caught.value)


def test_modes_are_refused(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    with pytest.raises(ConfigError, match=r"no processing modes; 'Reflectance' was asked for"):
        EnviReader().open(header, mode="Reflectance")


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_a_file_that_shrinks_after_opening(tmp_path, interleave):
    cube = random_cube((50, 4, 3), "u2")
    with EnviReader().open(write_envi(tmp_path, cube, interleave)) as source:
        os.truncate(source.info.pixels, 600)
        with pytest.raises(
            SourceError, match=r"lines 40:50 were read.*Copy the recording"
        ) as caught:
            source.frame(0).read(40, 50)
    assert caught.value.frame == 0
    assert "scene.raw" in str(caught.value)


def test_a_closed_source_is_not_read(tmp_path):
    with EnviReader().open(write_envi(tmp_path, random_cube((4, 3, 2), "u2"))) as source:
        frame = source.frame(0)
    source.close()  # a second time does nothing
    with pytest.raises(ValueError, match="closed"):
        frame.read(0, 1)


def test_a_refused_file_is_closed(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    os.truncate(tmp_path / "scene.raw", 47)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SourceError):
        EnviReader().open(header)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"),
    [(47, "is truncated: it has 47 bytes"), (0, "is truncated"), (49, "is too large: it has 49")],
)
def test_sizes_that_disagree(tmp_path, size, words):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    os.truncate(tmp_path / "scene.raw", size)
    with pytest.raises(SourceError) as caught:
        EnviReader().open(header)
    text = str(caught.value)
    assert words in text
    assert "expected 48 (4 lines x 3 samples x 2 bands of uint16 behind an offset of 0)" in text
    assert text.startswith(header)
    assert caught.value.hint


def test_absurd_sizes_are_just_sizes(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"), lines=10**17)
    with pytest.raises(SourceError, match=r"expected 1,200,000,000,000,000,000"):
        EnviReader().open(header)


# --- where the data file is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["", ".dat", ".raw", ".img", ".bin", ".bil", ".bip", ".bsq", ".hyspex", ".RAW", ".IMG"]
)
def test_data_file_by_its_suffix(tmp_path, data):
    cube = random_cube((4, 3, 2), "u2")
    assert np.array_equal(read(write_envi(tmp_path, cube, data=data)), cube)


def test_header_named_after_the_data_file(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"), name="a.raw", data="")
    (tmp_path / "a.dat").write_bytes(b"unrelated")
    assert find_data_file(header) == str(tmp_path / "a.raw")


def test_data_file_of_another_header_does_not_count(tmp_path):
    one = write_envi(tmp_path, random_cube((4, 3, 2), "u2", 1), name="a", data=".dat")
    two = write_envi(tmp_path, random_cube((4, 3, 2), "u2", 2), name="a.raw", data="")
    assert find_data_file(one) == str(tmp_path / "a.dat")
    assert find_data_file(two) == str(tmp_path / "a.raw")


def test_a_folder_is_not_a_data_file(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    (tmp_path / "scene").mkdir()
    assert find_data_file(header) == str(tmp_path / "scene.raw")


def test_several_data_files(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    (tmp_path / "scene.dat").write_bytes(bytes(48))
    with pytest.raises(SourceError, match=r"several files .*: scene.dat, scene.raw .*Keep one"):
        EnviReader().open(header)


def test_no_data_file(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    (tmp_path / "scene.raw").unlink()
    with pytest.raises(SourceError, match=r"not found \(tried scene and scene\[.dat .raw .*beside"):
        EnviReader().open(header)


def test_interleave_from_the_name_of_the_data_file(tmp_path):
    cube = random_cube((4, 3, 2), "u2")
    header = write_envi(tmp_path, cube, "bsq", data=".bsq")
    text = Path(header).read_text().replace("interleave = bsq\n", "")
    Path(header).write_text(text)
    assert np.array_equal(read(header), cube)
    (tmp_path / "scene.bsq").rename(tmp_path / "scene.raw")
    with pytest.raises(SourceError, match=r"no 'interleave'.*Add a line 'interleave = bil'"):
        EnviReader().open(header)


def test_a_single_band_needs_no_interleave(tmp_path):
    cube = random_cube((4, 3, 1), "u2")
    header = write_envi(tmp_path, cube, "bil")
    Path(header).write_text(Path(header).read_text().replace("interleave = bil\n", ""))
    assert np.array_equal(read(header), cube)


def test_what_the_source_says_of_its_files(tmp_path):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"))
    with EnviReader().open(header) as source:
        assert source.info.path == header
        assert source.info.files == (header, str(tmp_path / "scene.raw"))
        assert source.info.pixels == str(tmp_path / "scene.raw")


# --- files that are not recordings --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "skipped"),
    [
        ("WHITEREF_2021-05-04_003", True),
        ("DARKREF_scan", True),
        ("WHITEDARKREF_scan", True),
        ("scan_white", True),
        ("scan_white_2", True),
        ("scan_dark_2020-01-01", True),
        ("white_ref", True),
        ("scan-dark-reference", True),
        ("darkReference", True),
        ("white", True),
        ("whitefish_01", False),
        ("white_rice_03", False),
        ("dark_chocolate", False),
        ("darkroom_3", False),
        ("eggwhite", False),
        ("snow_white_rabbit", False),
        ("scene", False),
    ],
)
def test_references_are_known_by_their_names(tmp_path, name, skipped):
    header = write_envi(tmp_path, random_cube((4, 3, 2), "u2"), name=name)
    reason = EnviReader().skip_reason(header)
    assert (reason is not None) == skipped
    if skipped:
        assert "reference by its name" in reason
    EnviReader().open(header).close()  # it can still be read, as a reference


@pytest.mark.parametrize("kind", ["ENVI Spectral Library", "ENVI Classification"])
def test_libraries_and_classifications(tmp_path, kind):
    header = write_envi(tmp_path, random_cube((4, 3, 1), "u1"), data=".sli", file_type=kind)
    assert EnviReader().skip_reason(header) == f"an {kind}"
    with pytest.raises(SourceError, match=f"scene.hdr:9: the file type is '{kind}', not a cube"):
        EnviReader().open(header)


def test_a_broken_header_is_not_skipped(tmp_path):
    (tmp_path / "a.hdr").write_text("")
    (tmp_path / "b.hdr").write_text("ENVI\nsamples = x\n")
    assert EnviReader().skip_reason(str(tmp_path / "a.hdr")) is None
    assert EnviReader().skip_reason(str(tmp_path / "b.hdr")) is None
    assert EnviReader().skip_reason(str(tmp_path / "missing.hdr")) is None


# --- real scenes --------------------------------------------------------------------------------


def test_real_scene_equals_its_npz():
    folder = shared_data()
    cube = np.load(folder / "envi-lhdata-100.npz")["cube"]
    with EnviReader().open(str(folder / "envi" / "LHData.hdr")) as source:
        info = source.info
        assert np.array_equal(source.frame(0).read(0, 100), cube)
        assert np.array_equal(source.frame(0).read(31, 57), cube[31:57])
    assert info.dtype == np.uint16
    assert info.wavelength[0] == 390.190002
    assert info.wavelength.shape == (186,)
    assert info.sensor is None
    assert info.metadata["sensor type"] == "Unknown"


def test_real_header_with_comments_and_without_defaults():
    folder = shared_data()
    with EnviReader().open(str(folder / "envi" / "corn-kernel-hyperspectral.hdr")) as source:
        info = source.info
        assert info.shape == (31, 43, 580)
        assert info.wavelength[[0, -1]].tolist() == [366.551, 1048.421]
        raw = np.fromfile(info.pixels, "<u2").reshape(31, 580, 43).transpose(0, 2, 1)
        assert np.array_equal(source.frame(0).read(0, 31), raw)


def test_real_esri_header_is_refused():
    header = str(shared_data() / "envi" / "arcgis.hdr")
    with pytest.raises(
        SourceError, match=r"arcgis.hdr: not an ENVI header: .*Esri.*gdal_translate"
    ):
        EnviReader().open(header)
    assert "Esri" in EnviReader().skip_reason(header)
