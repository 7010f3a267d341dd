"""Folders are listed once for all the recordings in them, and again after they change."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from recordings import write_npz

import hsi_batch as hb
from hsi_batch.errors import SourceError
from hsi_batch.readers import folders
from hsi_batch.readers.annotations import find_annotation
from hsi_batch.readers.folders import once_per_folder
from hsi_batch.readers.positions import find_positions
from hsi_batch.readers.references import find_references


@pytest.fixture
def listings(monkeypatch):
    """Names of the folders that were listed, one after the other."""
    seen, listed = [], os.listdir

    def listdir(folder):
        seen.append(os.fspath(folder))
        return listed(folder)

    monkeypatch.setattr(folders.os, "listdir", listdir)
    return seen


def settled(folder, ago=60.0):
    at = time.time() - ago
    os.utime(folder, (at, at))


def test_a_conversion_lists_a_folder_as_often_for_many_recordings(client, tmp_path, listings):
    counts = []
    for number in (3, 30):
        folder = tmp_path / f"in{number}"
        for i in range(number):
            write_npz(folder / f"s{i:02d}.npz", np.ones((1, 16, 4, 3), np.uint16))
        settled(folder)
        listings.clear()
        result = hb.convert(folder, tmp_path / f"{number}.zarr", client=client, dry_run=True)
        assert len(result.plan.sessions) == number
        counts.append(sum(name == str(folder) for name in listings))
    assert counts[0] == counts[1] > 0


def test_what_is_beside_a_recording_is_seen_when_it_comes(tmp_path):
    scan = str(tmp_path / "scan.hdr")
    for look, name, found in (
        (find_annotation, "scan_gt.png", "scan_gt.png"),
        (lambda path: find_references(path).white, "WHITEREF_scan.hdr", "WHITEREF_scan.hdr"),
        (lambda path: find_references(path).dark, "darkReference.hdr", "darkReference.hdr"),
        (lambda path: find_positions(path)[0], "SCAN_igm.HDR", "SCAN_igm.HDR"),
        (lambda path: find_positions(path)[1], "scan.gps", "scan.gps"),
    ):
        settled(tmp_path, 60)
        assert look(scan) is None
        (tmp_path / name).write_bytes(b"")
        settled(tmp_path, 30)
        assert look(scan) == str(tmp_path / found)
        (tmp_path / name).unlink()
        settled(tmp_path, 20)
        assert look(scan) is None


def test_a_folder_that_changed_just_now_is_listed_each_time(tmp_path, listings):
    @once_per_folder
    def count(names):
        return len(names)

    now = time.time()
    for number in range(3):
        (tmp_path / str(number)).touch()
        # As on a file system whose clock has not ticked since.
        os.utime(tmp_path, (now, now))
        assert count(tmp_path) == number + 1
    assert len(listings) == 3
    settled(tmp_path)
    assert [count(tmp_path) for _ in range(4)] == [3] * 4
    assert len(listings) == 4


def test_a_folder_that_cannot_be_listed(tmp_path):
    @once_per_folder
    def names_of(names):
        return names

    with pytest.raises(SourceError, match="gone: the folder cannot be searched"):
        names_of(tmp_path / "gone")
    assert find_references(str(tmp_path / "gone" / "scan.hdr")) == (None, None)
    assert find_positions(str(tmp_path / "gone" / "scan.hdr")) == (None, None)
