"""Workers in two network namespaces with addresses of their own; a link is cut in the middle."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same, maps_of
from recordings import scene, write_envi
from ssh_loopback import SSHD, cluster_text, daemon

from hsi_batch.cluster import connect
from hsi_batch.workflow import run_workflow

PIPELINE = Path(__file__).parents[2] / "workflows" / "pipelines" / "rx_statistical.yaml"
CUT_SECONDS = 12.0


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def namespace(name, number):
    """A namespace at 198.18.NUMBER.2, joined to this one (198.18.NUMBER.1) by a veth pair."""
    here, there = f"198.18.{number}.1", f"198.18.{number}.2"
    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}-h", "type", "veth", "peer", "name", f"{name}-n")
        ip("link", "set", f"{name}-n", "netns", name)
        ip("addr", "add", f"{here}/24", "dev", f"{name}-h")
        ip("link", "set", f"{name}-h", "up")
        ip("-n", name, "addr", "add", f"{there}/24", "dev", f"{name}-n")
        ip("-n", name, "link", "set", f"{name}-n", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "route", "add", "default", "via", here)
        yield there
    finally:
        ip("netns", "del", name)


@pytest.fixture(name="hosts")
def hosts_fixture(tmp_path):
    if SSHD is None or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root, ip and sshd: apt-get install iproute2 openssh-server")
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text()
    folder = tmp_path / "ssh"
    with ExitStack() as stack:
        try:
            addresses = [
                stack.enter_context(namespace(f"hsi{os.getpid() % 10000}{x}", 40 + i))
                for i, x in enumerate("ab")
            ]
            # Workers send each other what they have found.
            forward.write_text("1")
            stack.callback(forward.write_text, before)
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"no network namespaces here ({error})")
        names = [f"hsi{os.getpid() % 10000}{x}" for x in "ab"]
        ports = [
            stack.enter_context(daemon(folder, address, 2022, within=["ip", "netns", "exec", name]))
            for address, name in zip(addresses, names, strict=True)
        ]
        yield names, cluster_text(folder, ports, address="198.18.40.1", hosts=addresses)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_link_is_cut_for_a_while(tmp_path, hosts, client):
    names, text = hosts
    for index in range(8):
        cube, _ = scene(index, lines=400, samples=200, bands=48)
        axis = np.linspace(400, 900, 48)
        write_envi(tmp_path / "rec" / f"s{index}.hdr", cube, wavelength=axis)
    workflows = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        workflows.append(tmp_path / name / "workflow.yaml")
        workflows[-1].write_text(
            f"archive: a.zarr\nsources: {tmp_path}/rec\npipeline: {PIPELINE}\n"
            "fit: {out: fitted.yaml}\nscore: {out: s.zarr}\n"
        )
    run_workflow(workflows[0], client=client)
    cuts = []

    def cut():
        ip("link", "set", f"{names[1]}-h", "down")
        begun = time.monotonic()
        time.sleep(CUT_SECONDS)
        ip("link", "set", f"{names[1]}-h", "up")
        cuts.append(time.monotonic() - begun)

    thread = threading.Thread(target=cut)

    def observer(progress):
        if progress.stage == "score" and progress.done and not thread.ident:
            thread.start()

    path = tmp_path / "ssh.yaml"
    path.write_text(f"{text}environment: [PYTHONPATH]\n")
    with connect(path) as ssh:
        ssh.wait_for_workers(2, timeout=60)
        hosts = {address.rpartition(":")[0] for address in ssh.nthreads()}
        assert hosts == {"tls://198.18.40.2", "tls://198.18.41.2"}
        done = run_workflow(workflows[1], client=ssh, observer=observer)
        thread.join()
    assert cuts
    assert done.failed == 0
    for store in ("a.zarr", "s.zarr"):
        assert_same(*(maps_of(w.parent / store) for w in workflows))
