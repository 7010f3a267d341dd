"""Archives of many sessions: what a worker opens of one does not grow with all."""

import pytest
import zarr
from archive_helpers import cube_of, make_archive

from hsi_batch.archive.session import Session
from hsi_batch.archive.store import open_member
from hsi_batch.errors import StoreError


def test_a_session_is_opened_without_the_metadata_of_all(tmp_path, monkeypatch):
    make_archive(tmp_path / "a.zarr", {f"s{i}": cube_of(i, frames=1) for i in range(3)})
    read = []
    get = zarr.storage.LocalStore.get

    async def noted(self, key, *arguments, **options):
        read.append(key)
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", noted)
    session = Session.open(tmp_path / "a.zarr", "s1")
    assert (session.cube[:] == cube_of(1, frames=1)).all()
    assert read
    assert all(key.startswith("s1/") for key in read)


@pytest.mark.parametrize("name", ["", "s9", "s1/cube", "..", "/"])
def test_what_is_no_session(tmp_path, name):
    make_archive(tmp_path / "a.zarr", {"s1": cube_of(1, frames=1)})
    assert open_member(tmp_path / "a.zarr", name) is None
    with pytest.raises(StoreError, match="there is no such session"):
        Session.open(tmp_path / "a.zarr", name)
    with pytest.raises(StoreError, match="there is nothing here"):
        Session.open(tmp_path / "b.zarr", name)
