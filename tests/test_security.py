"""Malicious files of every kind: refused with one of our errors, and nothing happens."""

import hashlib
import io
import json
import pickle
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from archive_helpers import cube_of, make_archive
from distributed import Client
from graphs import chain

from hsi_batch.archive import open_archive
from hsi_batch.archive.names import session_names
from hsi_batch.archive.partials import load_partial
from hsi_batch.archive.records import BlockRecord
from hsi_batch.archive.remove import remove_session
from hsi_batch.cluster import ExistingConfig, connect, read_cluster
from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError, HsiBatchError, SourceError, StoreError
from hsi_batch.nodes import RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.readers.annotations import open_annotation
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.kept_file import read_kept
from hsi_batch.tls import SecurityConfig, temporary

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
YAMLS = {
    "calls": "archive: !!python/object/apply:os.system ['touch sprung']\n",
    "makes an object": "archive: !!python/object/new:os.system ['touch sprung']\n",
    "imports": "archive: !!python/name:antigravity.x\n",
    "billion laughs": LAUGHS,
    "itself": "&a [*a]\n",
    "deep flow": "a: " + "[" * 5000,
    "deep blocks": "".join(" " * i + f"a{i}:\n" for i in range(2000)),
    "merge of itself": "&a {<<: *a}\n",
    "huge": "a: " + "x" * (17 * 2**20),
}

#: Of the CPU: these take a fifth of one at most, and would take minutes if nothing stopped them.
SECONDS = 5


class Trap:
    """Springs when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return (open, (self.place, "w"))


@pytest.fixture(autouse=True)
def sprung(tmp_path, monkeypatch):
    """Nothing may have run when a test ends."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "sprung"
    yield place
    assert not place.exists()


# --- YAML ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", YAMLS)
def test_yaml(tmp_path, kind):
    path = tmp_path / "x.yaml"
    path.write_text(YAMLS[kind])
    before = set(sys.modules)
    begun = time.thread_time()
    with pytest.raises(ConfigError):
        read_yaml(path)
    assert time.thread_time() - begun < SECONDS
    assert "antigravity" not in set(sys.modules) - before


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.Popen", "hsi_trap.Node", "builtins.eval", "../x.Node"]
)
def test_classes_that_a_pipeline_names(tmp_path, monkeypatch, name):
    (tmp_path / "hsi_trap.py").write_text("open('sprung', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = name.rpartition(".")[0]
    text = (
        f"plugins: ['{package}']\nnodes:\n- {{name: d, class_name: CU3SDataNode}}\n"
        f"- {{name: x, class_name: '{name}', hparams: {{args: ['touch sprung']}}}}\n"
    )
    with pytest.raises(ConfigError):
        Pipeline.from_document(read_yaml("p.yaml", text=text))
    assert "hsi_trap" not in sys.modules


# --- weights, npz, kept statistics --------------------------------------------------------------


def test_weights(tmp_path, sprung):
    path = chain(RXGlobal(name="rx")).save(tmp_path / "p.yaml")
    torch.save({"state_dict": {"rx": {"mu": Trap(sprung)}}}, path.with_suffix(".pt"))
    with pytest.raises(ConfigError, match="more than tensors"):
        Pipeline.from_yaml(path)
    path.with_suffix(".pt").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ConfigError, match="read safely"):
        Pipeline.from_yaml(path)


def test_npz(tmp_path, sprung):
    objects = np.empty((4, 3, 2), dtype=object)
    objects[:] = Trap(sprung)
    np.savez(tmp_path / "objects.npz", cube=objects)
    np.savez(tmp_path / "meta.npz", cube=np.zeros((4, 3, 2), "u2"), meta=objects)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "<u2", "fortran_order": False, "shape": (10**6, 10**6, 100)}
        )
        file.writestr("cube.npy", buffer.getvalue() + bytes(1000))
    for name in ("objects", "bomb"):
        with pytest.raises(SourceError), open_source(str(tmp_path / f"{name}.npz")) as source:
            source.frame(0).read(0, 4)
    # What is not asked for is not looked at, or is refused.
    try:
        with open_source(str(tmp_path / "meta.npz")) as source:
            source.frame(0).read(0, 4)
    except SourceError:
        pass


def test_statistics_in_files(tmp_path, sprung):
    np.savez(tmp_path / "p.npz", index=np.array(Trap(sprung), dtype=object))
    assert load_partial(tmp_path / "p.npz") is None
    body = b"d\n" + zlib.compress(pickle.dumps(Trap(sprung)))
    head = b"hsi-batch-kept-1\n" + hashlib.sha256(body).digest()
    (tmp_path / "k").write_bytes(head + body)
    assert read_kept(tmp_path / "k", "d") is None


# --- labels -------------------------------------------------------------------------------------

COCO = {
    "a size of its own": {"size": [10**9, 10**9], "counts": [10**18]},
    "runs beyond the frame": {"size": [6, 5], "counts": [0, 10**12]},
    "negative runs": {"size": [6, 5], "counts": [-5, 35]},
    "text that is no code": {"size": [6, 5], "counts": "\u2603" * 100},
    "a point at infinity": [[1e308, 1e308, -1e308, 1, 3, 1e308]],
}


@pytest.mark.parametrize("kind", COCO)
def test_coco(tmp_path, kind):
    content = {
        "images": [{"id": 0, "height": 6, "width": 5, "file_name": "../../../etc/passwd"}],
        "categories": [{"id": 1, "name": "<script>alert(1)</script>"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 1, "segmentation": COCO[kind]}
        ],
    }
    (tmp_path / "s.json").write_text(json.dumps(content))
    begun = time.thread_time()
    try:
        with open_annotation(str(tmp_path / "s.json"), shape=(6, 5), frames=1) as labels:
            assert labels.labels(0, 0, 6).shape == (6, 5)
    except SourceError:
        pass
    else:
        assert kind == "a point at infinity"
    assert time.thread_time() - begun < SECONDS


def test_json_nested_beyond_reason(tmp_path):
    (tmp_path / "s.json").write_text('{"images": ' + "[" * 200_000)
    with (
        pytest.raises(SourceError),
        open_annotation(str(tmp_path / "s.json"), shape=(6, 5), frames=1) as labels,
    ):
        labels.labels(0, 0, 6)


# --- names and places ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../x", "..", "a/../../b", ".hidden", "__x", "zarr.json", "a\nb", "a\x00b", "~root"]
)
def test_names_of_sessions_stay_in_the_archive(name):
    (found,) = session_names([f"/in/{name}.hdr"], root="/in").values()
    assert "/" not in found
    assert found.lstrip("._") == found
    assert found != "zarr.json"
    assert all(c.isalnum() or c in "._-" for c in found)


@pytest.mark.parametrize("name", ["../secret", "/etc", "s/../../secret", ".", "..", "s/cube"])
def test_sessions_that_lie_elsewhere_are_not_reached(tmp_path, name):
    make_archive(tmp_path / "secret", {"s": cube_of(1)})
    make_archive(tmp_path / "a.zarr", {"s": cube_of(1)})
    archive = open_archive(tmp_path / "a.zarr")
    with pytest.raises(HsiBatchError):
        archive.session(name)
    with pytest.raises(HsiBatchError):
        remove_session(tmp_path / "a.zarr", name)
    assert (tmp_path / "secret" / "s" / "cube").is_dir()


@pytest.mark.parametrize("part", ["t", "s/label"])
def test_archives_of_links_are_refused(tmp_path, part):
    make_archive(tmp_path / "other.zarr", {"t": cube_of(1)})
    make_archive(tmp_path / "a.zarr", {"s": cube_of(1)})
    target = tmp_path / "other.zarr" / "t"
    (tmp_path / "a.zarr" / part).symlink_to(target if part == "t" else target / "cube")
    before = sorted(p for p in target.rglob("*"))
    for attempt in (
        lambda: open_archive(tmp_path / "a.zarr").session(part.partition("/")[0]),
        lambda: remove_session(tmp_path / "a.zarr", part.partition("/")[0]),
    ):
        with pytest.raises(StoreError):
            attempt()
    assert sorted(p for p in target.rglob("*")) == before


def test_records_name_no_classes():
    line = '{"key":{"session":"s","frame":0,"start":0,"stop":1,"__class__":"x"},"outcome":"done"}'
    with pytest.raises((TypeError, KeyError, ValueError)):
        BlockRecord.from_json(line)


# --- TLS ----------------------------------------------------------------------------------------


def test_tls_of_an_existing_cluster(tmp_path):
    for name in ("ca.pem", "me.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    path = tmp_path / "c.yaml"
    path.write_text(
        "type: existing\naddress: tls://127.0.0.1:8786\n"
        "security: {ca_file: ca.pem, cert: me.pem, key: key.pem}\n"
    )
    config = read_cluster(path)
    assert isinstance(config, ExistingConfig)
    assert config.security == SecurityConfig(
        ca_file=f"{tmp_path}/ca.pem", cert=f"{tmp_path}/me.pem", key=f"{tmp_path}/key.pem"
    )
    security = config.security.to_dask()
    assert security.require_encryption
    assert security.get_tls_config_for_role("client")["cert"] == f"{tmp_path}/me.pem"
    (tmp_path / "key.pem").unlink()
    with pytest.raises(ConfigError, match=r"c\.yaml:3: security\.key: there is no such file"):
        read_cluster(path)


@pytest.mark.filterwarnings("ignore")
def test_a_local_cluster_with_temporary_certificates(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("type: local\nworkers: 1\nsecurity: temporary\ndashboard: true\n")
    with connect(path) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        assert all(a.startswith("tls://127.0.0.1:") for a in client.scheduler_info()["workers"])
        assert client.submit(sum, [1, 2]).result(30) == 3
        assert listening() <= {"127.0.0.1", "::1"}
        # Neither without a certificate, nor with one of somebody else.
        bare = address.replace("tls://", "tcp://")
        for where, security in ((bare, None), (address, temporary())):
            with pytest.raises((OSError, TimeoutError, RuntimeError)):
                Client(where, timeout=2, security=security, set_as_default=False)
        # The certificate lies where only we can read it.
        folder = Path(client._folder)
        assert folder.stat().st_mode & 0o077 == 0
        key = folder / "key.pem"
        assert key.stat().st_mode & 0o077 == 0
        (tmp_path / "e.yaml").write_text(
            f"type: existing\naddress: {address}\nsecurity: {{ca_file: {folder}/cert.pem,"
            f" cert: {folder}/cert.pem, key: {key}}}\n"
        )
        with connect(tmp_path / "e.yaml") as other:
            assert other.submit(sum, [3, 4]).result(30) == 7
    assert not folder.exists()


def test_temporary_certificates_need_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match="need the package cryptography"):
        temporary()


def listening():
    """Addresses that this process and its children listen on."""
    me = psutil.Process()
    return {
        c.laddr.ip
        for p in (me, *me.children(recursive=True))
        for c in p.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }


def test_nothing_listens_but_on_the_loopback_address(client):
    del client
    assert listening() <= {"127.0.0.1", "::1"}
