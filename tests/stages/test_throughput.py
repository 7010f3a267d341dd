"""What workers did: from records, from their pages of metrics, in Dask's own report."""

from __future__ import annotations

import urllib.request

import pytest
from commands import hsi_fixture  # noqa: F401
from recordings import scene, write_envi

from hsi_batch.archive.layout import BlockKey
from hsi_batch.archive.records import BlockRecord, Records, RecordWriter
from hsi_batch.archive.store import state_folder
from hsi_batch.stages.throughput import throughput


def test_workers_and_machines_are_told_apart(tmp_path):
    store = tmp_path / "a.zarr"
    folder = Records(state_folder(store) / "records" / "convert").new_run()
    with RecordWriter(folder, "t") as writer:
        for i, (worker, seconds) in enumerate(
            [("tcp://10.0.0.1:1", 1.0), ("tcp://10.0.0.1:2", 3.0), ("tls://10.0.0.2:1", 0.5)] * 2
        ):
            outcome = "failed" if i == 5 else "done"
            key = BlockKey("s", i, 0, 9)
            writer.write(BlockRecord(key, outcome, "d", seconds=seconds + i / 100, worker=worker))
    (stage,) = throughput(store)
    assert [(n.name, n.blocks, n.failed) for n in stage.nodes] == [
        ("10.0.0.1", 4, 0),
        ("10.0.0.2", 1, 1),
    ]
    first = stage.workers[0]
    assert (first.name, first.slowest) == ("tcp://10.0.0.1:2", "s[4][y=0:9]")
    assert first.rate == pytest.approx(2 / (3.01 + 3.04))
    assert "node 10.0.0.1" in str(stage)
    assert throughput(tmp_path / "none.zarr") == []


def metrics(client):
    """Our counters, summed over the pages of all workers."""
    found = {}
    for address, info in client.scheduler_info(n_workers=-1)["workers"].items():
        host = address.split("://")[1].rpartition(":")[0]
        page = f"http://{host}:{info['services']['dashboard']}/metrics"
        for line in urllib.request.urlopen(page).read().decode().splitlines():
            if line.startswith("hsi_batch_") and "_created" not in line:
                name, value = line.split(" ")
                found[name] = found.get(name, 0.0) + float(value)
    return found


def test_a_run_is_counted_and_reported(tmp_path, client, hsi):
    for index in range(3):
        cube, _ = scene(index)
        write_envi(tmp_path / "rec" / f"s{index}.hdr", cube)
    (tmp_path / "w.yaml").write_text("archive: a.zarr\nsources: rec\n")
    before = metrics(client)
    page = tmp_path / "performance.html"
    assert hsi("run", tmp_path / "w.yaml", "--performance", page).code == 0
    assert "<html" in page.read_text()[:500].lower()
    after = metrics(client)
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    assert grown['hsi_batch_frames_total{stage="convert"}'] == 3
    assert grown['hsi_batch_bytes_total{stage="convert"}'] == 3 * cube.nbytes
    assert grown['hsi_batch_failures_total{stage="convert"}'] == 0
    told = hsi("status", tmp_path / "a.zarr", "--workers")
    assert "node 127.0.0.1" in told.out
    shares = hsi("status", tmp_path / "a.zarr", "--workers", "--json").json
    assert sum(worker["blocks"] for worker in shares[0]["workers"]) == 3
