"""Workers over real SSH, on ports of the loopback address."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from comparing import assert_same, maps_of
from recordings import scene, write_envi
from ssh_loopback import cluster_text, ssh_hosts_fixture  # noqa: F401

from hsi_batch.cluster import connect
from hsi_batch.errors import ClusterError
from hsi_batch.stages.convert import convert


def written(tmp_path, text):
    path = tmp_path / "ssh.yaml"
    path.write_text(text)
    return path


def test_workers_come_by_ssh_and_go(tmp_path, ssh_hosts, client):
    folder, ports = ssh_hosts
    cube, mask = scene(3, lines=64)
    write_envi(tmp_path / "rec" / "s.hdr", cube, mask=mask)
    os.environ["HSI_TEST_TOLD"] = "a secret"
    text = cluster_text(folder, ports) + "environment: [HSI_TEST_TOLD, PYTHONPATH]\n"
    with connect(written(tmp_path, text)) as ssh:
        ssh.wait_for_workers(2, timeout=30)
        assert all(address.startswith("tls://127.0.0.1") for address in ssh.nthreads())
        assert set(ssh.run(lambda: os.environ["OMP_NUM_THREADS"]).values()) == {"1"}
        assert set(ssh.run(os.getenv, "HSI_TEST_TOLD").values()) == {"a secret"}
        pids = set(ssh.run(os.getpid).values())
        seen = " ".join(" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
        assert "a secret" not in seen
        assert "PRIVATE KEY" not in seen
        scratch = set(ssh.run(lambda dask_worker: dask_worker.local_directory).values())
        convert([tmp_path / "rec"], tmp_path / "ssh.zarr", client=ssh)
    convert([tmp_path / "rec"], tmp_path / "here.zarr", client=client)
    assert_same(maps_of(tmp_path / "here.zarr"), maps_of(tmp_path / "ssh.zarr"))
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    while any(Path(p).exists() for p in scratch) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [p for p in scratch if Path(p).exists()] == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("known_hosts: ", "known_hosts: {tmp}/empty\n# "), "not trusted"),
        (("key_file: ", "key_file: {tmp}/other\n# "), "Permission denied|No such file"),
        (("memory: 2 GiB", "memory: 2 GiB\npython: /no/python"), "/no/python"),
        (("memory: 2 GiB", "memory: 2 GiB\nscratch: /no/such/folder"), "/no/such/folder"),
    ],
)
def test_what_each_machine_said_is_told(tmp_path, ssh_hosts, changed, says):
    folder, ports = ssh_hosts
    (tmp_path / "empty").write_text("")
    before, after = changed
    text = cluster_text(folder, ports).replace(before, after.format(tmp=tmp_path))
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=says) as caught:
        connect(written(tmp_path, text + "timeout: 60s\n"))
    # Not only when the time is over.
    assert time.monotonic() - begun < 50
    assert all(f":{port}: " in str(caught.value) for port in ports)
