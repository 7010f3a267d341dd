"""Files are written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pixel_strategies  # noqa: F401  (its hypothesis profile)
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.files import digest_json, digest_of, read_table, write_atomically

# The kernel refuses to let the file grow, as a full disk would.
FULL_DISK = """
import resource, sys
from pathlib import Path
from hsi_batch.files import write_atomically
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
try:
    write_atomically(Path(sys.argv[1]), b"x" * 100_000)
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\x00\xff", b"\x00\xff"), ("größe\n", "größe\n".encode()), ("", b""), ("a\r\nb", b"a\r\nb")],
)
def test_contents_are_written_as_given(tmp_path, content, expected):
    path = tmp_path / "a.json"
    write_atomically(path, content)
    assert path.read_bytes() == expected
    assert names(tmp_path) == ["a.json"]


def test_an_old_file_is_replaced_and_others_may_read_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("a much longer old content")
    path.chmod(0o600)
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["a.json"]


def test_folders_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"
    write_atomically(tmp_path / "a" / "b" / "c.txt", "y")
    assert names(tmp_path / "a" / "b") == ["c.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_no_new_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "a.json"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert names(tmp_path) == []


def test_a_name_that_cannot_be_replaced_leaves_no_temporary(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "a.json" / "inside").write_text("kept")
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "a.json", "x")
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json" / "inside").read_text() == "kept"


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "a.bin"
    whole = [bytes([65 + k]) * 200_000 for k in range(2)]
    write_atomically(path, whole[0])
    torn = []
    finished = threading.Event()

    def read():
        while not finished.is_set():
            if path.read_bytes() not in whole:
                torn.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(60):
            write_atomically(path, whole[turn % 2])
    finally:
        finished.set()
        reader.join()
    assert not torn


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([65 + k]) * 50_000 for k in range(4)]

    def write(content):
        for _ in range(10):
            write_atomically(path, content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["a.bin"]


# --- digests ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def turned(value):
    """The same value with the keys of all mappings in opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_digests_do_not_depend_on_the_order_of_keys(value):
    assert digest_json(value) == digest_json(turned(value))
    assert digest_json(value) == digest_json(json.loads(json.dumps(value)))


@given(JSON, JSON)
def test_different_values_have_different_digests(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest_json(one) == digest_json(other)) == same


def test_digests_are_sha256():
    assert digest_of(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert digest_json({"b": [1], "a": "ä"}) == digest_of(b'{"a": "\\u00e4", "b": [1]}')
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert digest_json({"path": Path("/a")}) == digest_json({"path": "/a"})


def test_a_damaged_table_is_a_value_error():
    """Arrow and pandas have a dozen of others."""
    buffer = io.BytesIO()
    pd.DataFrame({"session": ["a", "b"], "frames": [1, 2]}).to_parquet(buffer)
    raw = buffer.getvalue()
    assert list(read_table(raw)["frames"]) == [1, 2]
    kinds = set()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        for part in (bytes(damaged), raw[:place]):
            try:
                read_table(part)
            except ValueError as error:
                kinds.add(str(error).partition(":")[0])
    assert "TypeError" in kinds
