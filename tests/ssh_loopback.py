"""SSH daemons of our own, with keys of their own, on ports of the loopback address."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")


def free_port(address="127.0.0.1") -> int:
    with socket.socket() as taken:
        taken.bind((address, 0))
        return taken.getsockname()[1]


@contextmanager
def daemon(folder: Path, address="127.0.0.1", port=None, within=()):
    """One ``sshd`` that lets in whoever has the key in its folder; gives its port."""
    port = port or free_port(address)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "key"):
        if not (folder / name).exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
    shutil.copy(folder / "key.pub", folder / "authorized")
    config = folder / f"sshd-{port}.conf"
    config.write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    log = (folder / f"sshd-{port}.log").open("wb")
    process = subprocess.Popen([*within, SSHD, "-D", "-e", "-f", config], stderr=log)
    public = (folder / "host.pub").read_text().split()[:2]
    with (folder / "known_hosts").open("a") as known:
        known.write(f"[{address}]:{port} {' '.join(public)}\n")
    try:
        deadline = time.monotonic() + 10
        while b"listening" not in (folder / f"sshd-{port}.log").read_bytes():
            assert process.poll() is None, (folder / f"sshd-{port}.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@pytest.fixture(name="ssh_hosts")
def ssh_hosts_fixture(tmp_path):
    """Two daemons; gives a cluster YAML of both, and their folder."""
    if SSHD is None or getpass.getuser() != "root":
        pytest.skip("needs openssh-server, and root to start it: apt-get install openssh-server")
    with ExitStack() as stack:
        folder = tmp_path / "ssh"
        ports = [stack.enter_context(daemon(folder)) for _ in range(2)]
        yield folder, ports


def cluster_text(folder, ports, address="127.0.0.1", hosts=None):
    hosts = hosts or ["127.0.0.1"] * len(ports)
    lines = "".join(
        f"  - {{host: {host}, port: {port}, user: root, interface: {host}}}\n"
        for host, port in zip(hosts, ports, strict=True)
    )
    return (
        f"type: ssh\naddress: {address}\nmemory: 2 GiB\nkey_file: {folder}/key\n"
        f"known_hosts: {folder}/known_hosts\nhosts:\n{lines}"
    )
