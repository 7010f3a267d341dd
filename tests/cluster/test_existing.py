"""A scheduler that runs already is used and left running, or its absence is one clear error."""

from __future__ import annotations

import gc
import json

import pytest
from distributed import Client

from hsi_batch.cluster import ExistingConfig, LocalConfig, connect, current_client
from hsi_batch.errors import ClusterError

#: Nobody listens here.
NOWHERE = "tcp://127.0.0.1:9"


def yaml_for(folder, text):
    path = folder / "existing.yaml"
    path.write_text(f"type: existing\ntimeout: 20\n{text}\n")
    return path


@pytest.mark.parametrize("how", ["address", "scheduler_file", "variable"])
def test_a_running_scheduler_is_used_and_left_running(client, tmp_path, monkeypatch, how):
    address = client.scheduler.address
    text = f"address: {address}"
    if how == "scheduler_file":
        (tmp_path / "s.json").write_text(json.dumps({"address": address}))
        text = f"scheduler_file: {tmp_path}/s.json"
    elif how == "variable":
        monkeypatch.setenv("HSI_TEST_SCHEDULER", address)
        text = "address: ${HSI_TEST_SCHEDULER}"
    with connect(yaml_for(tmp_path, text)) as other:
        assert other is not client
        assert other.scheduler.address == address
        assert other.submit(sum, [1, 2, 3]).result() == 6
    assert client.status == "running"
    assert len(client.nthreads()) == 2
    assert current_client() is client
    assert client.submit(sum, [1, 2]).result() == 3


def test_a_scheduler_that_does_not_answer_is_named():
    with pytest.raises(ClusterError, match=rf"no scheduler answers at {NOWHERE} within 0\.5 s"):
        connect(ExistingConfig(type="existing", address=NOWHERE, timeout=0.5))


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"address": null}'])
def test_a_scheduler_file_that_names_none_is_an_error_in_time(tmp_path, content):
    path = tmp_path / "s.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ClusterError, match=rf"no scheduler answers at {path} within 0\.5 s"):
        connect(ExistingConfig(type="existing", scheduler_file=str(path), timeout=0.5))


def test_an_address_that_is_none_is_an_error():
    with pytest.raises(ClusterError, match="no scheduler answers at nonsense://x"):
        connect(ExistingConfig(type="existing", address="nonsense://x", timeout=0.5))


@pytest.mark.parametrize("address", [NOWHERE, "nonsense://x"])
def test_a_client_that_cannot_connect_is_not_left_to_the_garbage_collector(address):
    # It would be closed by whatever thread is collected in, which may hold the lock it needs.
    gc.collect()
    before = set(map(id, gc.get_objects()))
    gc.disable()
    try:
        with pytest.raises(ClusterError) as caught:
            connect(ExistingConfig(type="existing", address=address, timeout=0.5))
        left = [one for one in gc.get_objects() if id(one) not in before]
        clients = [one for one in left if isinstance(one, Client)]
    finally:
        gc.enable()
    assert caught.value.__cause__ is None
    assert [one.status for one in clients] == ["closed"]


def test_a_scheduler_without_workers_is_named():
    with connect(LocalConfig(workers=1)) as own:
        own.retire_workers(list(own.nthreads()), close_workers=True)
        address = own.scheduler.address
        with pytest.raises(ClusterError, match=r"has no worker after 0\.5 s\. Start workers"):
            connect(ExistingConfig(type="existing", address=address, timeout=0.5))
        # It was left running.
        assert own.scheduler_info()["address"] == address
