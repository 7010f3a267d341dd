"""URLs: which are read by what, which are refused; and places of any store by fsspec."""

from __future__ import annotations

from pathlib import Path

import pytest

import hsi_batch as hb
from hsi_batch.errors import ConfigError
from hsi_batch.places import absolute, normal_url, place, stores
from hsi_batch.places.url import split_version
from hsi_batch.stages.verify import verify


@pytest.mark.parametrize(
    "url",
    [
        "s3://user:hunter2@bucket/a.zarr",
        "https://user:hunter2@host/a.zarr",
        "s3://bucket/a.zarr?X-Amz-Signature=hunter2",
        "s3://bucket/a.zarr#hunter2",
        "icechunk+s3://user:hunter2@bucket/a@v1",
    ],
)
def test_urls_with_secrets_are_refused_and_not_repeated(hsi, url):
    with pytest.raises(ConfigError, match="are refused") as caught:
        place(url)
    assert "hunter2" not in str(caught.value)
    done = hsi("ls", url)
    assert done.code == 2
    assert "hunter2" not in done.out + done.err


def test_paths_that_were_urls_are_urls_again():
    assert normal_url(Path("s3://bucket/a.zarr")) == "s3://bucket/a.zarr"
    assert normal_url(Path("icechunk+file:///d/a")) == "icechunk+file:///d/a"
    assert absolute(Path("file:///d/a.zarr")) == "/d/a.zarr"
    assert absolute("C:/a").endswith("/C:/a")
    assert split_version("icechunk+s3://b/a@v3") == ("icechunk+s3://b/a", "v3")
    assert split_version("s3://b/a@v3") == ("s3://b/a@v3", "")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("s3://bucket/a.zarr", "pip install 'hsi-batch[s3]'"),
        ("icechunk+s3://bucket/a", "pip install 'hsi-batch[icechunk]'"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, url, line):
    monkeypatch.setattr(stores, "find_spec", lambda _: None)
    stores._plain.cache_clear()
    with pytest.raises(ConfigError) as caught:
        place(url)
    assert line in str(caught.value)


def test_schemes_that_nothing_reads():
    with pytest.raises(ConfigError, match="fsspec cannot open"):
        place("nonsense://host/a.zarr")
    with pytest.raises(ConfigError, match="keeps no versions"):
        hb.open_archive("s3://bucket/a.zarr", version="v1")
    with pytest.raises(ConfigError, match="names no store"):
        place("s3://")


def test_what_fsspec_reads_is_a_store(client, made_recordings, tmp_path):
    url = f"local://{tmp_path}/b.zarr"
    result = hb.convert(made_recordings, url, client=client)
    assert (result.failed, result.blocks) == (0, 2)
    hb.convert(made_recordings, tmp_path / "a.zarr", client=client)
    for file in (tmp_path / "a.zarr").rglob("*"):
        if file.is_file():
            other = tmp_path / "b.zarr" / file.relative_to(tmp_path / "a.zarr")
            assert other.read_bytes() == file.read_bytes()
    assert verify(url, deep=True, client=client).sound


def test_pipelines_and_pages_are_written_to_files(hsi, tmp_path):
    done = hsi("report", tmp_path / "s.zarr", "--out", "s3://bucket/r.html")
    assert done.code == 2
    assert "local files" in done.err
