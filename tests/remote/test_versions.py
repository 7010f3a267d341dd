"""Icechunk repositories: a run appears whole or not at all, and every version opens again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import icechunk
import numpy as np
import pytest
from commands import start
from object_storage import Gone, tell
from recordings import write_envi

import hsi_batch as hb
from hsi_batch.errors import ConfigError, StorageError, StoreError, StoreInUseError
from hsi_batch.places.versioned import repository, versioned_store, versions_of
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.stages.verify import verify

PIPELINE = Path(__file__).parents[2] / "workflows" / "pipelines" / "rx_statistical.yaml"
RUN = "hsi-batch-run"


def cubes(archive):
    return {name: archive[name].load() for name in archive}


def unsealed(data):
    return {key: value for key, value in data.attrs.items() if key != "seal"}


def same(one, other):
    assert sorted(one) == sorted(other)
    for name in one:
        assert one[name].equals(other[name])
        # Repositories gather no metadata in groups, so the digest of a group is another.
        seals = [data.attrs["seal"] for data in (one[name], other[name])]
        # And Icechunk wants the parts of a chunk's name in folders, which metadata say.
        counts = [{k: n for k, (_, n) in seal["arrays"].items()} for seal in seals]
        assert counts[0] == counts[1]
        assert unsealed(one[name]) == unsealed(other[name])


def test_versions_of_an_archive_and_of_scores(client, made_recordings, tmp_path):
    url, local = f"icechunk+file://{tmp_path}/a", tmp_path / "a.zarr"
    hb.convert(made_recordings, local, client=client)
    result = hb.convert(made_recordings, url, client=client)
    assert (result.archive, result.failed, result.blocks) == (url, 0, 2)
    first = cubes(hb.open_archive(url))
    same(first, cubes(hb.open_archive(local)))
    assert list(versions_of(url)) == ["v1"]
    assert RUN not in repository(url).list_branches()

    # Nothing to do makes no version.
    assert hb.convert(made_recordings, url, client=client).up_to_date == 2
    assert list(versions_of(url)) == ["v1"]

    write_envi(made_recordings / "r2.hdr", np.full((40, 30, 8), 7, np.uint16))
    hb.convert(made_recordings, url, client=client)
    snapshots = versions_of(url)
    assert list(snapshots) == ["v1", "v2"]
    assert list(hb.open_archive(url)) == ["r0", "r1", "r2"]
    old = hb.open_archive(url, version="v1")
    assert list(old) == ["r0", "r1"]
    same(cubes(old), first)
    same(cubes(hb.open_archive(f"{url}@{snapshots['v1'][0]}")), first)
    assert verify(f"{url}@v1", deep=True, client=client).sound
    with pytest.raises(StoreError, match=r"no version 'v9'.*There are v1, v2"):
        hb.open_archive(url, version="v9")
    with pytest.raises(ConfigError, match="cannot be written to"):
        hb.convert(made_recordings, f"{url}@v1", client=client)

    fitted = tmp_path / "f.yaml"
    fit_file(PIPELINE, url, fitted, client=client)
    scores = {}
    for archive, store in ((old, f"icechunk+file://{tmp_path}/s"), (local, tmp_path / "s.zarr")):
        scored = hb.score(fitted, archive, store, client=client)
        assert (scored.failed, scored.blocks) == (0, 2)
        scores[str(store)] = scored.metrics
        assert verify(store, deep=True, client=client).sound
    assert len({str(metrics) for metrics in scores.values()}) == 1
    repeated = hb.score(fitted, old, f"icechunk+file://{tmp_path}/s", client=client)
    assert repeated.blocks == 0


def test_a_killed_run_shows_nothing_and_is_finished_by_the_next(client, made_recordings, tmp_path):
    url = f"icechunk+file://{tmp_path}/a"
    hb.convert(made_recordings, url, client=client)
    first = cubes(hb.open_archive(url))
    rng = np.random.default_rng(1)
    for index in range(2, 6):
        cube = rng.integers(0, 4000, (400, 300, 32)).astype(np.uint16)
        write_envi(made_recordings / f"r{index}.hdr", cube)
    run = start("convert", made_recordings, "--archive", url, "--workers", 1)
    records = tmp_path / "a.hsi-batch" / "records" / "convert"
    limit = time.monotonic() + 100
    while not [f for f in records.glob("0*/*.jsonl") if f.stat().st_size]:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert RUN in repository(url).list_branches(), "killed too late to show anything"
    assert list(versions_of(url)) == ["v1"]
    same(cubes(hb.open_archive(url)), first)
    assert verify(url, deep=True, client=client).sound

    result = hb.convert(made_recordings, url, client=client)
    assert result.failed == 0
    hb.convert(made_recordings, tmp_path / "b.zarr", client=client)
    same(cubes(hb.open_archive(url)), cubes(hb.open_archive(tmp_path / "b.zarr")))
    assert list(versions_of(url)) == ["v1", "v2"]
    assert verify(url, deep=True, client=client).sound


def test_a_run_that_fails_publishes_nothing_and_keeps_what_it_did(
    client, made_recordings, tmp_path, monkeypatch
):
    from hsi_batch.stages import convert as module

    url = f"icechunk+file://{tmp_path}/a"

    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", broken)
        with pytest.raises(KeyboardInterrupt):
            hb.convert(made_recordings, url, client=client)
    assert versions_of(url) == {}
    with pytest.raises(StoreError, match="nothing here"):
        hb.open_archive(url)
    result = hb.convert(made_recordings, url, client=client)
    assert (result.failed, result.blocks) == (0, 0), "its chunks were kept"
    assert list(hb.open_archive(url)) == ["r0", "r1"]


def test_a_repository_that_was_half_made_is_made_and_other_files_are_left(
    client, made_recordings, tmp_path
):
    url, folder = f"icechunk+file://{tmp_path}/a", tmp_path / "a"
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)))
    shutil.rmtree(folder / "refs")
    (first,) = (folder / "snapshots").iterdir()
    # Of a write that was killed itself.
    shutil.copy(first, f"{first}#1")
    notes = folder / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ConfigError, match="something here that is no repository"):
        hb.convert(made_recordings, url, client=client)
    assert (notes.read_text(), first.exists()) == ("mine", True)
    notes.unlink()
    assert hb.convert(made_recordings, url, client=client).failed == 0
    assert verify(url, deep=True, client=client).sound


@pytest.mark.slow  # Icechunk asks for most of a minute
def test_storage_that_goes_away_publishes_nothing(workers, server, s3, made_recordings, impatient):
    url = f"icechunk+{s3}/a"
    with Gone(server.url, writes=4) as gone:
        tell(workers, {"AWS_ENDPOINT_URL": gone.url})
        try:
            with pytest.raises(StorageError):
                hb.convert(made_recordings, url, client=workers)
            assert gone.left < 0
        finally:
            tell(workers, server.environment())
            repository.cache_clear()
            workers.run(repository.cache_clear)
    assert versions_of(url) == {}
    assert hb.convert(made_recordings, url, client=workers).failed == 0
    assert list(versions_of(url)) == ["v1"]
    assert verify(url, deep=True, client=workers).sound


def test_two_runs_at_once(made_recordings, tmp_path):
    from hsi_batch.archive.transactions import writing

    url = f"icechunk+file://{tmp_path}/a"
    with (
        writing(url, "convert"),
        pytest.raises(StoreInUseError, match="another run"),
        writing(url, "score"),
    ):
        pass


def test_a_repository_on_s3(workers, s3, made_recordings, tmp_path):
    url = f"icechunk+{s3}/a"
    hb.convert(made_recordings, url, client=workers)
    hb.convert(made_recordings, tmp_path / "a.zarr", client=workers)
    same(cubes(hb.open_archive(url, version="v1")), cubes(hb.open_archive(tmp_path / "a.zarr")))
    assert verify(url, deep=True, client=workers).sound


def test_workers_with_several_threads_are_refused(monkeypatch):
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=2))
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    with pytest.raises(ConfigError, match="has 2 threads; one is needed"):
        versioned_store("icechunk+file:///nowhere@~run-1")
